//! How much memory idle instances take: one after the other is started and goes on, and after each the host's books are read,
//! and at 1, 2, 4 … instances those of all that run.

mod content;
mod footprints;
mod merging;
mod parameters;
mod series;
mod summary;

use super::{
    cold_start::Progress,
    observation::Part,
    rows,
    stage::{Stage, Subject},
};
pub use crate::steady::{ContentPart, ContentSummary};
use crate::{
    host::clock::unix_ns,
    measure::{host_load, memory::fault, page_cache::CacheState},
    record::{Dataset, Manifest, Outcome, tables},
    sandbox::{Sandbox, run_dir::RunDirectory},
    workload::Workload,
};
use anyhow::Result;
pub use merging::MergingSummary;
pub use parameters::Parameters;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
pub(super) use series::Series;
use std::{sync::Arc, time::Duration};
pub use summary::{GuestSummary, Lost, MemorySummary, RoleSummary, SandboxMemory};

/// What is to be run.
pub struct Memory {
    /// Kinds of sandboxes.
    pub sandboxes: Vec<Arc<dyn Sandbox>>,
    /// What runs inside.
    pub workload: Workload,
    /// Condition of the page cache before each launch.
    pub cache: CacheState,
    /// What is done with those of each sandbox.
    pub together: Together,
    /// Decides the order of the sandboxes.
    pub seed: u64,
}

/// What is done with the instances of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// Instances that run at the same time in the end.
    pub instances: u32,
    /// How long they are left alone before they are measured.
    pub settle: Duration,
    /// Whether, and how, the content of the pages is looked at in the end.
    pub pages: Option<Pages>,
}

/// How the content of pages is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Whether the instances stand still meanwhile.
    pub hold: bool,
    /// Whether KSM then merges the instances, and for how long it is followed at most.
    pub merge: Option<Duration>,
}

impl Memory {
    /// How many instances the run has.
    pub fn total(&self) -> usize {
        self.sandboxes.len() * self.together.instances as usize
    }

    /// Runs it and fills the dataset. An instance that fails is a row with its error, and the run goes on; an interruption ends the
    /// run after the instance at hand. What was measured until then is in the dataset in any case.
    ///
    /// # Errors
    /// When the dataset can't be written or the host's books can't be read.
    pub async fn run(
        &self,
        stage: &mut Stage,
        run_directory: &RunDirectory,
        mut dataset: Dataset,
        manifest: &Manifest,
        progress: &mut dyn Progress,
    ) -> Result<MemorySummary> {
        declare(&mut dataset)?;
        let mut order: Vec<usize> = (0..self.sandboxes.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(self.seed));
        let mut summaries = Vec::new();
        let (mut position, mut failed) = (0, 0);
        let fault_ns = fault::minor_fault_ns()?;
        for index in order {
            let subject = Subject {
                part: Part { experiment: "memory".to_owned(), variant: String::new(), repetition: 0 },
                sandbox: Arc::clone(&self.sandboxes[index]),
                workload: self.workload.clone(),
                cache: self.cache,
                probes: false,
                found: host_load::look().await?.conditions().into(),
            };
            let series = Series::new(self.together, subject, stage, run_directory, &mut dataset, progress, fault_ns);
            let (ended, gathered) = series.run(&mut position).await?;
            for ended in ended {
                let (observation, explanation) = ended.explain(stage);
                rows::append(&observation, explanation, &mut dataset)?;
            }
            dataset.flush()?;
            let sandbox = self.sandboxes[index].name().to_owned();
            let summary = gathered.summary(sandbox, self.seed);
            failed += summary.failed_count;
            summaries.push((index, summary));
        }
        let outcome = Outcome {
            finished_at_unix_ns: Some(unix_ns()),
            lost_events_count: 0,
            instances_count: position,
            failed_count: u32::try_from(failed).unwrap_or(u32::MAX),
        };
        dataset.describe(manifest, &outcome)?;
        summaries.sort_by_key(|(index, _)| *index);
        let sandboxes = summaries.into_iter().map(|(_, summary)| summary).collect();
        Ok(MemorySummary { run_id: dataset.run_id().to_owned(), minor_fault_ns: fault_ns, sandboxes })
    }
}

/// Every table exists, also when there is nothing to say in it.
pub(super) fn declare(dataset: &mut Dataset) -> Result<()> {
    dataset.declare::<tables::Instance>()?;
    dataset.declare::<tables::Marker>()?;
    dataset.declare::<tables::Phase>()?;
    dataset.declare::<tables::Request>()?;
    dataset.declare::<tables::Step>()?;
    dataset.declare::<tables::Memory>()?;
    dataset.declare::<tables::GuestMemory>()?;
    dataset.declare::<tables::KernelMemory>()?;
    dataset.declare::<tables::MemoryHost>()?;
    dataset.declare::<tables::Page>()?;
    dataset.declare::<tables::PageScan>()?;
    dataset.declare::<tables::Ksm>()?;
    dataset.flush()?;
    Ok(())
}
