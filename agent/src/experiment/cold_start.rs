//! The cold start: from the launch of a sandbox to its first good response, again and again, with and without probes.

use super::{
    explain::explain,
    instance::{Observation, Place, Stage, observe},
    plan::{Arms, plan},
    summary::{Gathered, Summary},
};
use crate::{
    correlate::Names,
    host::clock::unix_ns,
    probe::ExitReasons,
    record::{Dataset, Manifest, Outcome, tables},
    sandbox::{Sandbox, run_dir::RunDirectory},
};
use anyhow::{Context, Result};
use std::{path::Path, sync::Arc};
use ulid::Ulid;

/// What is to be run.
pub struct ColdStart {
    /// Kinds of sandboxes.
    pub sandboxes: Vec<Arc<dyn Sandbox>>,
    /// Instances of each kind, per arm.
    pub instances: u32,
    /// Whether instances with probes are compared to instances without.
    pub arms: Arms,
    /// Decides the order.
    pub seed: u64,
}

/// Told about the progress of a run.
pub trait Progress {
    /// An instance is about to be started.
    fn starts(&mut self, sandbox: &str, probes: bool);
    /// An instance is over.
    fn ended(&mut self, observation: &Observation);
}

impl ColdStart {
    /// How many instances the run has.
    pub fn total(&self) -> usize {
        plan(self.sandboxes.len(), self.instances, self.arms, self.seed).len()
    }

    /// Runs it. An instance that fails is a row with its error, and the run goes on; an interruption ends the run after the
    /// instance at hand. What was measured until then is in the dataset in any case.
    ///
    /// # Errors
    /// When the dataset can't be written.
    pub async fn run(
        &self,
        stage: &mut Stage,
        run_id: Ulid,
        run_directory: &RunDirectory,
        out: &Path,
        manifest: &Manifest,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        let mut dataset = Dataset::create(out, run_id, manifest)?;
        declare(&mut dataset)?;
        let mut names = Names { exits: ExitReasons::of_running_kernel(), ..Names::default() };
        let mut gathered = Gathered::of(self.sandboxes.iter().map(|sandbox| sandbox.name().to_owned()));
        for (position, cell) in (0..).zip(plan(self.sandboxes.len(), self.instances, self.arms, self.seed)) {
            if stage.interrupted.is_cancelled() {
                break;
            }
            let sandbox = &self.sandboxes[cell.sandbox];
            progress.starts(sandbox.name(), cell.probes);
            let place = Place::new(run_id, run_directory, position, cell)?;
            let observation = observe(stage, sandbox, place).await;
            progress.ended(&observation);
            let explanation = explain(&observation, &mut names);
            gathered.add(cell.sandbox, &observation, &explanation);
            explanation.append(&observation, &mut dataset)?;
            dataset.flush().context("the results so far are kept; what comes next can't be written")?;
        }
        let (instances_count, failed_count) = gathered.counts();
        let outcome = Outcome {
            finished_at_unix_ns: Some(unix_ns()),
            lost_events_count: gathered.lost(),
            instances_count,
            failed_count,
        };
        dataset.describe(manifest, &outcome)?;
        let missing =
            stage.probes.is_none().then(|| manifest.probes.missing.values().cloned().collect::<Vec<_>>().join("; "));
        Ok(gathered.summary(dataset.run_id(), self.seed, missing))
    }
}

/// Every table exists, also when there is nothing to say in it: readers can tell "nothing seen" from "not looked at".
fn declare(dataset: &mut Dataset) -> Result<()> {
    dataset.declare::<tables::Instance>()?;
    dataset.declare::<tables::Marker>()?;
    dataset.declare::<tables::Phase>()?;
    dataset.declare::<tables::Attribution>()?;
    dataset.declare::<tables::Request>()?;
    dataset.declare::<tables::Exit>()?;
    dataset.declare::<tables::Sched>()?;
    dataset.declare::<tables::Wakeup>()?;
    dataset.declare::<tables::Syscall>()?;
    dataset.declare::<tables::Fault>()?;
    dataset.declare::<tables::Block>()?;
    dataset.declare::<tables::Net>()?;
    dataset.declare::<tables::EventCount>()?;
    dataset.flush()?;
    Ok(())
}
