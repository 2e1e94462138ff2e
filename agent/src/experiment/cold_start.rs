//! The cold start: from the launch of a sandbox to its first good response, again and again, with and without probes.

use super::{
    kind::{Complaint, Experiment, Needs, Variant, require},
    observation::{Observation, Part},
    plan::{Arms, plan},
    rows::{self, declare},
    stage::{Place, Stage, Subject},
    summary::{Gathered, Summary},
    timelines::Timelines,
    trial::Trial,
};
use crate::{
    explain::declare_single_events,
    host::clock::unix_ns,
    measure::{host_load, page_cache::CacheState},
    probe::Probes,
    record::{Dataset, Manifest, Outcome, tables},
    sandbox::{Sandbox, run_dir::RunDirectory},
    workload::Workload,
};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The cold start as a part of a suite.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Parameters {
    /// Conditions of the page cache, each a variant.
    cache: Vec<CacheState>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { cache: vec![CacheState::Primed] }
    }
}

impl Experiment for Parameters {
    fn needs(&self) -> Needs {
        Needs::START
    }

    fn check(&self) -> Result<(), Complaint> {
        let distinct = self.cache.iter().map(|cache| cache.name()).collect::<BTreeSet<_>>().len();
        let once = distinct == self.cache.len() && distinct > 0;
        require("cache", once, "give each condition once: `primed`, `evicted`, `asis`")
    }

    fn variants(&self) -> Vec<Variant> {
        let variant =
            |&cache: &CacheState| Variant { name: cache.name().to_owned(), cache, ..Variant::only(Vec::new()) };
        self.cache.iter().map(variant).collect()
    }
}

/// What is to be run.
pub struct ColdStart {
    /// Kinds of sandboxes.
    pub sandboxes: Vec<Arc<dyn Sandbox>>,
    /// What runs inside.
    pub workload: Workload,
    /// Condition of the page cache.
    pub cache: CacheState,
    /// Instances of each kind, per arm.
    pub instances: u32,
    /// Whether instances with probes are compared to instances without.
    pub arms: Arms,
    /// Decides the order.
    pub seed: u64,
    /// Instances whose single events are written down.
    pub timelines: Timelines,
}

/// Told about the progress of a run.
pub trait Progress {
    /// An instance is about to be started.
    fn starts(&mut self, sandbox: &str, probes: bool);
    /// An instance is over.
    fn ended(&mut self, observation: &Observation);
}

/// Nobody is told.
impl Progress for () {
    fn starts(&mut self, _sandbox: &str, _probes: bool) {}
    fn ended(&mut self, _observation: &Observation) {}
}

impl ColdStart {
    /// How many instances the run has.
    pub fn total(&self) -> usize {
        plan(self.sandboxes.len(), self.instances, self.arms, self.seed).len()
    }

    /// Runs it and fills the dataset. An instance that fails is a row with its error, and the run goes on; an interruption ends the run after the
    /// instance at hand. What was measured until then is in the dataset in any case.
    ///
    /// # Errors
    /// When the dataset can't be written.
    pub async fn run(
        &self,
        stage: &mut Stage,
        run_directory: &RunDirectory,
        mut dataset: Dataset,
        manifest: &Manifest,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        declare(&mut dataset)?;
        if stage.probes.as_ref().is_some_and(Probes::takes_samples) {
            dataset.declare::<tables::Sample>()?;
        }
        if self.timelines != Timelines::None {
            declare_single_events(&mut dataset)?;
            dataset.flush()?;
        }
        // Kinds of which the single events of a good start are written already.
        let mut shown = vec![false; self.sandboxes.len()];
        let mut gathered = Gathered::of(self.sandboxes.iter().map(|sandbox| sandbox.name().to_owned()));
        let mut repetitions = BTreeMap::new();
        for (position, cell) in (0..).zip(plan(self.sandboxes.len(), self.instances, self.arms, self.seed)) {
            if stage.interrupted.is_cancelled() {
                break;
            }
            let sandbox = &self.sandboxes[cell.sandbox];
            progress.starts(sandbox.name(), cell.probes);
            let timeline = cell.probes
                && match self.timelines {
                    Timelines::First => !shown[cell.sandbox],
                    Timelines::All => true,
                    Timelines::None => false,
                };
            let started = repetitions.entry(cell).or_insert(0);
            let part = Part { experiment: "cold-start".to_owned(), variant: String::new(), repetition: *started };
            *started += 1;
            let subject = Subject {
                part,
                sandbox: Arc::clone(sandbox),
                workload: self.workload.clone(),
                cache: self.cache,
                probes: cell.probes,
                found: host_load::look().await?.conditions().into(),
            };
            let place = Place::new(dataset.run_id(), run_directory, position)?;
            let launcher = Arc::clone(&stage.launcher);
            let mut trial = Trial::prepare(stage, &launcher, &subject, place).await;
            if timeline {
                trial.keep_timeline();
            }
            trial.start(stage).await;
            let ended = trial.finish(stage).await;
            if stage.interrupted.is_cancelled() && ended.observation.outcome.is_err() {
                // What was cut short is neither a failure nor a result.
                break;
            }
            progress.ended(&ended.observation);
            let (observation, explanation) = ended.explain(stage);
            shown[cell.sandbox] |= observation.timeline && observation.outcome.is_ok();
            gathered.add(cell.sandbox, &observation, &explanation);
            rows::append(&observation, explanation, &mut dataset)?;
            dataset.flush().context("the results so far are kept; what comes next can't be written")?;
        }
        let (instances_count, failed_count) = gathered.counts();
        let outcome = Outcome {
            finished_at_unix_ns: (!stage.interrupted.is_cancelled()).then(unix_ns),
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
