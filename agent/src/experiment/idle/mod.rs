//! Idle cost: what a sandbox costs when nobody asks anything of it, and who wakes it.
//!
//! Each instance is started, gives its first response, is left alone until it has settled, and is then watched for a window.

mod parameters;
mod watching;

use super::{
    cold_start::Progress,
    guests::Guests,
    observation::{Ended, Part},
    plan::{Arms, Cell, plan},
    rows,
    stage::{Place, Stage, Subject},
    statistics::{median, quantile},
};
use crate::{
    host::clock::unix_ns,
    measure::{host_load, page_cache::CacheState},
    probe::Aggregate,
    record::{Dataset, Manifest, Outcome, tables},
    sandbox::{Sandbox, run_dir::RunDirectory},
    steady::{Translators, Window, WindowSummary, summarise},
    workload::Workload,
};
use anyhow::{Context, Result};
pub use parameters::Parameters;
pub(super) use parameters::check_settle;
use serde::Serialize;
use std::sync::Arc;
pub use watching::Watching;

/// What is to be run.
pub struct Idle {
    /// Kinds of sandboxes.
    pub sandboxes: Vec<Arc<dyn Sandbox>>,
    /// What runs inside.
    pub workload: Workload,
    /// Condition of the page cache before each launch.
    pub cache: CacheState,
    /// How each is watched.
    pub watching: Watching,
    /// Instances of each kind.
    pub instances: u32,
    /// Decides the order.
    pub seed: u64,
    /// Functions of the guests.
    pub guests: Guests,
}

/// A run in a few lines.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run_id: String,
    /// Per sandbox, in the order in which they were asked for.
    pub sandboxes: Vec<SandboxSummary>,
}

/// One sandbox over all its instances.
#[derive(Debug, Serialize)]
pub struct SandboxSummary {
    /// Its name.
    pub sandbox: String,
    /// Instances that were watched.
    pub ok_count: usize,
    /// Those that were not.
    pub failed_count: usize,
    /// The first reason of those.
    pub first_error: Option<String>,
    /// Share of one CPU that it costs: median over the instances, lowest and highest.
    pub cost_ratio: Option<Interval>,
    /// Wake-ups per second.
    pub wakeups_per_s: Option<Interval>,
    /// The instance in the middle by its cost.
    pub typical: Option<WindowSummary>,
}

/// A figure over the instances.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Interval {
    /// In the middle.
    pub median: f64,
    /// 5 % lie below.
    pub p5: f64,
    /// 95 % lie below.
    pub p95: f64,
}

impl Interval {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self { median: median(values)?, p5: quantile(values, 0.05)?, p95: quantile(values, 0.95)? })
    }
}

impl Idle {
    /// How many instances the run has.
    pub fn total(&self) -> usize {
        self.order().len()
    }

    fn order(&self) -> Vec<Cell> {
        plan(self.sandboxes.len(), self.instances, Arms::Probed, self.seed)
    }

    /// Runs it and fills the dataset. An instance that fails is a row with its error, and the run goes on; an interruption ends
    /// the run after the instance at hand.
    ///
    /// # Errors
    /// When the dataset can't be written.
    pub async fn run(
        &self,
        stage: &mut Stage,
        aggregate: &mut Aggregate,
        run_directory: &RunDirectory,
        mut dataset: Dataset,
        manifest: &Manifest,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        declare(&mut dataset)?;
        let mut kept: Vec<Vec<Result<WindowSummary, String>>> = self.sandboxes.iter().map(|_| Vec::new()).collect();
        for (position, cell) in (0..).zip(self.order()) {
            if stage.interrupted.is_cancelled() {
                break;
            }
            let sandbox = &self.sandboxes[cell.sandbox];
            progress.starts(sandbox.name(), cell.probes);
            let repetition = u32::try_from(kept[cell.sandbox].len()).unwrap_or(u32::MAX);
            let subject = Subject {
                part: Part { experiment: "idle".to_owned(), variant: String::new(), repetition },
                sandbox: Arc::clone(sandbox),
                workload: self.workload.clone(),
                cache: self.cache,
                probes: cell.probes,
                found: host_load::look().await?.conditions().into(),
            };
            let place = Place::new(dataset.run_id(), run_directory, position)?;
            let (ended, window) = self.watching.watch(stage, aggregate, &subject, place).await;
            if stage.interrupted.is_cancelled() && ended.observation.outcome.is_err() {
                // What was cut short is neither a failure nor a result.
                break;
            }
            progress.ended(&ended.observation);
            kept[cell.sandbox].push(self.write(ended, window, stage, &mut dataset)?);
            dataset.flush().context("the results so far are kept; what comes next can't be written")?;
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let all = || kept.iter().flatten();
        let unrecorded = all().filter_map(|window| window.as_ref().ok()).map(|window| window.unrecorded_count).sum();
        let outcome = Outcome {
            finished_at_unix_ns: (!stage.interrupted.is_cancelled()).then(unix_ns),
            lost_events_count: unrecorded,
            instances_count: count(all().count()),
            failed_count: count(all().filter(|window| window.is_err()).count()),
        };
        dataset.describe(manifest, &outcome)?;
        let names = self.sandboxes.iter().map(|sandbox| sandbox.name().to_owned());
        let sandboxes = names.zip(&kept).map(|(name, kept)| of_sandbox(name, kept)).collect();
        Ok(Summary { run_id: dataset.run_id().to_owned(), sandboxes })
    }

    /// Writes what was observed of an instance.
    fn write(
        &self,
        ended: Ended,
        window: Option<Window>,
        stage: &mut Stage,
        dataset: &mut Dataset,
    ) -> Result<Result<WindowSummary, String>> {
        let (observation, explanation) = ended.explain(stage);
        let names = &mut stage.names;
        let window = match (window, &observation.outcome) {
            (Some(window), Ok(_)) => {
                let guest = self.guests.of_sandbox(&observation.sandbox);
                self.watching.append(&window, &observation, names, guest, dataset)?;
                Ok(summarise(&window, &Translators { names, guest }))
            }
            (None, Ok(_)) => Err("it was not watched".to_owned()),
            (_, Err(error)) => Err(error.clone()),
        };
        rows::append(&observation, explanation, dataset)?;
        Ok(window)
    }
}

fn declare(dataset: &mut Dataset) -> Result<()> {
    Window::declare(dataset)?;
    dataset.declare::<tables::Marker>()?;
    dataset.declare::<tables::Phase>()?;
    dataset.declare::<tables::Request>()?;
    dataset.declare::<tables::Step>()?;
    dataset.flush()?;
    Ok(())
}

fn of_sandbox(sandbox: String, kept: &[Result<WindowSummary, String>]) -> SandboxSummary {
    let mut ok: Vec<&WindowSummary> = kept.iter().filter_map(|window| window.as_ref().ok()).collect();
    ok.sort_by(|a, b| a.cost.ratio.total_cmp(&b.cost.ratio));
    let values = |of: fn(&WindowSummary) -> f64| ok.iter().map(|window| of(window)).collect::<Vec<_>>();
    SandboxSummary {
        sandbox,
        ok_count: ok.len(),
        failed_count: kept.len() - ok.len(),
        first_error: kept.iter().find_map(|window| window.as_ref().err().cloned()),
        cost_ratio: Interval::of(&values(|window| window.cost.ratio)),
        wakeups_per_s: Interval::of(&values(|window| window.wakeups_per_s)),
        typical: ok.get(ok.len() / 2).map(|&window| window.clone()),
    }
}
