//! What instances of a run have in common, what is started, and under which names.

use super::{
    fault_times::FaultTimes,
    observation::{Observation, Part},
};
use crate::{
    correlate::Names,
    measure::page_cache::CacheState,
    probe::{Probes, Recording},
    sandbox::{Resources, Sandbox, launcher::Launcher, network, resources::CpuList, run_dir::RunDirectory},
    workload::Workload,
};
use anyhow::Result;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What every instance of a run has in common.
pub struct Stage {
    /// Where sandboxes are started from.
    pub launcher: Arc<Launcher>,
    /// The probes, if the host can have them.
    pub probes: Option<Probes>,
    /// What numbers in their records mean.
    pub names: Names,
    /// What page faults take.
    pub fault_times: FaultTimes,
    /// How instances are connected.
    pub network: network::Mode,
    /// What an instance may use.
    pub resources: Resources,
    /// CPUs that instances run on; `None`: all that the agent may use.
    pub cpus: Option<CpuList>,
    /// Port of the ready callback.
    pub callback_port: u16,
    /// Time from launch to response after which an instance has failed.
    pub timeout: Duration,
    /// Fires when the run is to end early.
    pub interrupted: CancellationToken,
}

impl Stage {
    /// Attaches the probes for such an instance and forgets what they saw so far, or makes sure that there are none.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn begin_recording(&mut self, observation: &Observation) -> Result<()> {
        let Some(probes) = &mut self.probes else { return Ok(()) };
        if !observation.probes {
            probes.detach();
            return Ok(());
        }
        probes.attach()?;
        probes.time_faults(self.fault_times.are_due(&observation.sandbox, &observation.workload))?;
        // What is left of the time before belongs to nobody.
        drop(probes.take()?);
        probes.forget_files()
    }

    /// Takes what the probes have seen since [`Stage::begin_recording`].
    ///
    /// # Errors
    /// When the kernel does not give it.
    pub fn end_recording(&mut self) -> Result<Option<Recording>> {
        self.probes.as_mut().map(Probes::take).transpose()
    }
}

/// What is started.
#[derive(Clone)]
pub struct Subject {
    /// What it is part of.
    pub part: Part,
    /// Kind of the sandbox.
    pub sandbox: Arc<dyn Sandbox>,
    /// What runs inside.
    pub workload: Workload,
    /// Condition of the page cache before the launch.
    pub cache: CacheState,
    /// Whether probes are attached.
    pub probes: bool,
    /// Conditions of the host that were found before.
    pub found: BTreeMap<String, String>,
}

/// Under which names one instance is started.
pub struct Place {
    pub(super) id: String,
    pub(super) label: String,
    pub(super) directory: PathBuf,
    pub(super) position: u32,
}

impl Place {
    /// The place of the instance that comes at `position` in the order of a run.
    ///
    /// # Errors
    /// When its directory can't be made.
    pub fn new(run_id: &str, run_directory: &RunDirectory, position: u32) -> Result<Self> {
        // Names on the host are short: the random end of the run's id keeps runs apart, the position its instances.
        let run = run_id.to_lowercase();
        let label = format!("{}{position:x}", &run[run.len() - 4..]);
        let directory = run_directory.instance(&label)?;
        Ok(Self { id: format!("{run_id}-{position:05}"), label, directory, position })
    }
}
