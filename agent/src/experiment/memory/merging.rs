//! KSM merges the instances that run: followed until nothing more is merged, and compared with what could be.

use super::content;
use crate::{
    measure::memory::ksm::{self, Counters, Merges},
    record::tables,
    sandbox::{Instance, setting::Settings},
    steady::{Content, nanoseconds},
};
use anyhow::Result;
use rustix::param::page_size;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often KSM is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks at all memory of the host without another merge after which there will be none: KSM needs two to merge what is equal.
const PLATEAU_SCANS: u64 = 3;
/// Pages that KSM looks at before it sleeps, and for how long it does: some seconds for some GiB.
const SETTINGS: [(&str, &str); 3] = [("pages_to_scan", "5000"), ("sleep_millisecs", "5"), ("run", "1")];

/// What KSM did.
pub(super) struct Merging {
    samples: Vec<Sample>,
    possible: u64,
    /// What is in the pages after it.
    pub(super) content: Content,
    summary: MergingSummary,
}

/// What KSM did, in a few figures of all instances together.
#[derive(Clone, Debug, Serialize)]
pub struct MergingSummary {
    /// What it could free.
    pub possible_bytes: u64,
    /// What it freed.
    pub freed_bytes: u64,
    /// Time until it merged no more; `None`: it still did when the time was over.
    pub plateau_ns: Option<u64>,
    /// Time that it took of a CPU.
    pub ksmd_cpu_ns: Option<u64>,
    /// Merges that the kernel told of.
    pub merges_count: Option<u64>,
}

/// One look.
struct Sample {
    after: Duration,
    counters: Counters,
    merged: Option<u64>,
    merges: Option<u64>,
    cpu_ns: Option<u64>,
}

/// Turns KSM on and follows it. `directory` is one of the run's own, for what the settings were; `before` is what was in the pages.
/// `None` when it was interrupted before the pages were looked at again.
pub(super) async fn follow(
    running: &[(&str, &dyn Instance)],
    directory: &Path,
    before: &Content,
    limit: Duration,
    hold: bool,
    interrupted: &CancellationToken,
) -> Result<Option<Merging>> {
    let settings: Vec<(PathBuf, String)> =
        SETTINGS.iter().map(|(name, value)| (ksm::path(name), (*value).to_owned())).collect();
    let mut merges = match Merges::count() {
        Ok(merges) => Some(merges),
        Err(error) => {
            tracing::warn!("merges are not counted: {error:#}");
            None
        }
    };
    let cpu_before = ksm::ksmd_cpu_ns();
    let settings = Settings::change(directory, &settings)?;
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut last_merge = (Counters::read()?.full_scans, 0_u64, Duration::ZERO);
    let plateau = loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = interrupted.cancelled() => break None,
        }
        let counters = Counters::read()?;
        let pids = before.pids();
        let merged: Vec<u64> = pids.iter().filter_map(|&pid| ksm::merged_pages(pid)).collect();
        let after = start.elapsed();
        samples.push(Sample {
            after,
            counters,
            merged: (!merged.is_empty()).then(|| merged.iter().sum()),
            merges: merges.as_mut().map(Merges::so_far).transpose()?,
            cpu_ns: ksm::ksmd_cpu_ns().zip(cpu_before).map(|(now, before)| now.saturating_sub(before)),
        });
        let now = counters.pages_shared + counters.pages_sharing;
        if now != last_merge.1 {
            last_merge = (counters.full_scans, now, after);
        }
        if counters.full_scans >= last_merge.0 + PLATEAU_SCANS {
            break Some(last_merge.2);
        }
        if after > limit {
            break None;
        }
    };
    let content = content::look_at(running, hold, interrupted).await;
    settings.restore()?;
    let Some(content) = content? else { return Ok(None) };
    let size = page_size() as u64;
    let summary = MergingSummary {
        possible_bytes: before.freeable_pages() * size,
        freed_bytes: content.freed_pages_since(before) * size,
        plateau_ns: plateau.map(nanoseconds),
        ksmd_cpu_ns: samples.last().and_then(|sample| sample.cpu_ns),
        merges_count: samples.last().and_then(|sample| sample.merges),
    };
    Ok(Some(Merging { samples, possible: before.freeable_pages(), content, summary }))
}

impl Merging {
    pub(super) fn rows(&self, sandbox: &str, instances_count: u32) -> Vec<tables::Ksm> {
        let row = |sample: &Sample| tables::Ksm {
            sandbox: sandbox.to_owned(),
            instances_count,
            after_ns: nanoseconds(sample.after),
            full_scans_count: sample.counters.full_scans,
            shared_pages_count: sample.counters.pages_shared,
            sharing_pages_count: sample.counters.pages_sharing,
            unshared_pages_count: sample.counters.pages_unshared,
            volatile_pages_count: sample.counters.pages_volatile,
            profit_bytes: sample.counters.general_profit_bytes,
            merged_pages_count: sample.merged,
            merges_count: sample.merges,
            ksmd_cpu_ns: sample.cpu_ns,
            possible_pages_count: self.possible,
        };
        self.samples.iter().map(row).collect()
    }

    pub(super) fn summary(&self) -> MergingSummary {
        self.summary.clone()
    }
}
