//! What is seen of one instance, before anything is made of it.

use super::{stage::Stage, step::Taken};
use crate::{
    correlate::{Marker, NamedThread},
    explain::{Course, Explainer, Explanation},
    measure::page_cache::{CacheState, Residency},
    probe::{DeviceCounts, FileSums, Recording},
    sandbox::network::Offload,
    workload::client::Exchange,
};
use std::collections::BTreeMap;

/// Which part of a run an instance is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Name of the experiment.
    pub experiment: String,
    /// Variant of the experiment; empty when there is only one.
    pub variant: String,
    /// How many like it came before.
    pub repetition: u32,
}

/// Everything seen of one instance.
pub struct Observation {
    /// Names it in the dataset.
    pub id: String,
    /// Its place in the order of the run.
    pub position: u32,
    /// What it is part of.
    pub part: Part,
    /// Kind of the sandbox.
    pub sandbox: String,
    /// Name of the workload.
    pub workload: String,
    /// Whether probes were attached.
    pub probes: bool,
    /// Condition of the page cache that was asked for.
    pub cache: CacheState,
    /// How it was connected.
    pub network: &'static str,
    /// When it was launched, `CLOCK_MONOTONIC` nanoseconds; `None` if it never was.
    pub launch_ns: Option<u64>,
    /// The same since 1970.
    pub launched_at_unix_ns: Option<i64>,
    /// Nanoseconds from launch to first good response, or why there was none.
    pub outcome: Result<u64, String>,
    /// What the agent itself saw.
    pub markers: Vec<Marker>,
    /// How long the workload's `main` had run when its socket listened, as it says itself.
    pub since_main_ns: Option<u64>,
    /// What the client asked until the first good response.
    pub requests: Vec<Exchange>,
    /// What was done on it after that.
    pub steps: Vec<Taken>,
    /// What it did with files until then; `None` when nobody watched.
    pub files_of_start: Option<FileSums>,
    /// Names of the files that its start reads, by inode and device as the kernel encodes it.
    pub file_names: BTreeMap<(u64, u32), String>,
    /// What its network devices leave to others.
    pub offloads: Vec<Offload>,
    /// Page cache right before the launch.
    pub residency: Option<Residency>,
    /// Further conditions.
    pub conditions: BTreeMap<String, String>,
    /// Role of the agent's thread that saw the response.
    pub seen_by: &'static str,
    /// Whether its single events are to be written down.
    pub timeline: bool,
    /// If so, the lines of its console, each with the instant at which its end was read (`CLOCK_MONOTONIC` nanoseconds).
    pub console_lines: Vec<(u64, String)>,
}

impl Observation {
    /// Its course, for who explains what was recorded of it.
    pub fn course(&self) -> Course {
        Course {
            launch_ns: self.launch_ns,
            response_ns: self.launch_ns.zip(self.outcome.as_ref().ok().copied()).map(|(launch, wall)| launch + wall),
            seen_by: self.seen_by,
            markers: self.markers.clone(),
            since_main_ns: self.since_main_ns,
            steps: (1..).zip(self.steps.iter().map(|taken| taken.start_ns..taken.end_ns)).collect(),
            single_events: self.timeline,
            console_lines: self.console_lines.clone(),
        }
    }
}

/// An instance that is over: what was seen of it, and what was recorded.
pub struct Ended {
    /// What was seen of it.
    pub observation: Observation,
    pub(super) recorded: Option<Recorded>,
}

/// What the probes saw of an instance.
pub(super) struct Recorded {
    /// Knows what they saw so far.
    pub(super) explainer: Explainer,
    /// What they saw since.
    pub(super) recording: Recording,
    /// Threads of the sandbox that were still there in the end, if their names matter.
    pub(super) threads: Vec<NamedThread>,
    /// Name of the device and what passed it.
    pub(super) device: Option<(String, DeviceCounts)>,
}

impl Ended {
    /// Explains it: markers and phases of every instance that was launched, and, where probes saw it, where its time went and what
    /// its threads did.
    pub fn explain(self, stage: &mut Stage) -> (Observation, Explanation) {
        let Self { observation, recorded } = self;
        let course = observation.course();
        let explanation = match recorded {
            Some(Recorded { mut explainer, recording, threads, device }) => {
                explainer.feed(recording, &threads, &course, &mut stage.names);
                stage.fault_times.learn(&observation.sandbox, &observation.workload, explainer.timed_faults());
                explainer.finish(&course, device)
            }
            None => Explainer::default().finish(&course, None),
        };
        (observation, explanation)
    }
}
