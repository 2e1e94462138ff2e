//! What is in the pages of sandboxes that run, as rows and in a few lines. Used for those that an experiment has started and for
//! those that ran before.

use crate::{
    measure::memory::pages::{
        self, Analysis, Hold, Subject,
        classify::{Bin, Count},
    },
    record::tables,
};
use anyhow::{Context as _, Result};
use rustix::param::page_size;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long an interruption waits for the look at the pages to end by itself. What is held goes on before that, or with the agent.
const FAREWELL: Duration = Duration::from_secs(2);

/// What was found in the pages of some instances.
pub struct Content {
    analysis: Analysis,
    /// The processes, by their places among the sources.
    subjects: Vec<Subject>,
}

/// What is in the pages, means over the instances.
#[derive(Clone, Debug, Serialize)]
pub struct ContentSummary {
    /// Per class, state and reason, the largest first.
    pub parts: Vec<ContentPart>,
    /// Sizes of what KSM would free if it merged all that it could, of all instances together.
    pub freeable_bytes: u64,
    /// Size of pages whose content is somewhere else but shifted, of all instances together, estimated from a sample.
    pub shifted_bytes: u64,
    /// Size of the page cache's pages that it also holds of another file, a copy, of all instances together.
    pub file_copies_bytes: u64,
    /// For how long the instances stood still; `None`: they went on.
    pub paused_ns: Option<u64>,
    /// Whether they were let go before all was looked at.
    pub cut_short: bool,
    /// Threads that went on although they were to stand still.
    pub running_threads_count: u64,
    /// Processes that went on since the agent can't do without them: it itself, and those that it descends from.
    pub spared_processes_count: u64,
    /// Pages that were found, each mapping counted.
    pub mapped_pages_count: u64,
    /// As many as the kernel counts.
    pub kernel_pages_count: u64,
    /// Pairs of equal pages that were compared byte by byte, and those of them that differed.
    pub verified_count: u64,
    /// See `verified_count`.
    pub differed_count: u64,
    /// Bytes per second that were copied and hashed.
    pub bytes_per_s: f64,
}

/// A part of the memory of an instance.
#[derive(Clone, Debug, Serialize)]
pub struct ContentPart {
    /// What else holds the same.
    pub class: &'static str,
    /// Whether it is shared.
    pub state: &'static str,
    /// Why it is not.
    pub reason: Option<&'static str>,
    /// Mean size per instance, in bytes.
    pub mean_bytes: f64,
}

impl Content {
    /// Looks at all pages of these processes, beside those of these files, while those stand still that are to be held. `None` when
    /// it was interrupted: then they go on at once.
    ///
    /// # Errors
    /// When a process may not be looked at, or a file can't be read.
    pub async fn look_at(
        subjects: Vec<Subject>,
        mut files: Vec<PathBuf>,
        hold: Hold,
        interrupted: &CancellationToken,
    ) -> Result<Option<Self>> {
        files.sort();
        files.dedup();
        // In a thread of its own: this one has to hear of an interruption meanwhile.
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (token, looked_at) = (interrupted.clone(), subjects.clone());
        let look = move || {
            let analysis = pages::analyse_until(&looked_at, &files, hold, &|| token.is_cancelled());
            // Who asked may be gone.
            let _ = answer.send(analysis);
        };
        thread::Builder::new().name("pages".to_owned()).spawn(look).context("can't make a thread to look at pages")?;
        let given_up = async {
            interrupted.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let analysis = tokio::select! {
            answer = answered => answer.context("the thread that looks at pages failed; its message is above")??,
            () = given_up => None,
        };
        analysis.as_ref().inspect(|analysis| warn_about(analysis));
        Ok(analysis.map(|analysis| Self { analysis, subjects }))
    }

    /// Numbers of the processes.
    pub fn pids(&self) -> Vec<i32> {
        self.subjects.iter().map(|subject| subject.pid).collect()
    }

    /// Frames that KSM would free if it merged all that it could.
    pub fn freeable_pages(&self) -> u64 {
        self.analysis.freeable_pages()
    }

    /// Frames that KSM has freed since that look at the same processes: those that are no more. Mappings of merged frames would be
    /// more than that, where several had a frame together before it was merged.
    pub fn freed_pages_since(&self, before: &Self) -> u64 {
        before.analysis.for_ksm_frames.saturating_sub(self.analysis.for_ksm_frames)
    }

    /// The rows of the instance with this number; `merged`: after KSM was let loose on it.
    pub fn page_rows(&self, instance: usize, instances_count: u32, merged: bool) -> Vec<tables::Page> {
        // Processes with the same role are one.
        let mut sums: BTreeMap<(&str, Bin), Count> = BTreeMap::new();
        for (bin, count) in self.analysis.counts.iter().filter(|(bin, _)| bin.instance == instance) {
            let role = self.subjects.get(bin.source).map_or("unknown", |subject| &subject.role);
            let sum = sums.entry((role, Bin { source: 0, ..*bin })).or_default();
            sum.pages += count.pages;
            sum.distinct += count.distinct;
            sum.ksm += count.ksm;
            sum.freeable += count.freeable;
        }
        let row = |((role, bin), count): ((&str, Bin), Count)| tables::Page {
            instances_count,
            merged,
            role: role.to_owned(),
            region: bin.region.name().to_owned(),
            class: bin.class.name().to_owned(),
            state: bin.state.name().to_owned(),
            reason: bin.reason.map(|reason| reason.name().to_owned()),
            inferred: bin.is_inferred,
            pages_count: count.pages,
            distinct_pages_count: count.distinct,
            size_bytes: count.pages * page_size() as u64,
            ksm_pages_count: count.ksm,
            freeable_pages_count: count.freeable,
        };
        sums.into_iter().map(row).collect()
    }

    /// The row about the analysis itself.
    pub fn scan_row(&self, sandbox: &str, instances_count: u32, merged: bool) -> tables::PageScan {
        let Analysis { scanned_bytes, scan_time, paused, not_paused, verified, differed, shifted, table_bytes, .. } =
            &self.analysis;
        let Analysis { spared, was_cut_short, balance, file_copies, .. } = &self.analysis;
        tables::PageScan {
            sandbox: sandbox.to_owned(),
            instances_count,
            merged,
            scanned_bytes: *scanned_bytes,
            scan_ns: nanoseconds(*scan_time),
            paused_ns: paused.map(nanoseconds),
            running_threads_count: not_paused.len() as u64,
            verified_count: *verified,
            differed_count: *differed,
            sampled_pages_count: shifted.sampled,
            shifted_pages_count: shifted.shifted,
            shifted_estimated_bytes: shifted.estimate() * page_size() as u64,
            table_bytes: *table_bytes,
            spared_processes_count: Some(spared.len() as u64),
            cut_short: Some(*was_cut_short),
            mapped_pages_count: Some(balance.found),
            kernel_pages_count: Some(balance.counted_by_kernel),
            file_copies_bytes: Some(file_copies * page_size() as u64),
        }
    }

    /// The content in a few lines; `instances` is how many were looked at.
    pub fn summary(&self, instances: usize) -> ContentSummary {
        let mut sums = BTreeMap::new();
        for (bin, count) in &self.analysis.counts {
            *sums.entry((bin.class, bin.state, bin.reason)).or_default() += count.pages;
        }
        let mean = |pages: u64| pages as f64 * page_size() as f64 / instances.max(1) as f64;
        let mut parts: Vec<_> = sums
            .into_iter()
            .map(|((class, state, reason), pages)| ContentPart {
                class: class.name(),
                state: state.name(),
                reason: reason.map(|reason| reason.name()),
                mean_bytes: mean(pages),
            })
            .collect();
        parts.sort_by(|one, other| other.mean_bytes.total_cmp(&one.mean_bytes));
        let Analysis { scanned_bytes, scan_time, paused, not_paused, verified, differed, .. } = &self.analysis;
        let Analysis { spared, was_cut_short, balance, file_copies, .. } = &self.analysis;
        ContentSummary {
            parts,
            freeable_bytes: self.analysis.freeable_pages() * page_size() as u64,
            shifted_bytes: self.analysis.shifted.estimate() * page_size() as u64,
            file_copies_bytes: file_copies * page_size() as u64,
            paused_ns: paused.map(nanoseconds),
            cut_short: *was_cut_short,
            running_threads_count: not_paused.len() as u64,
            spared_processes_count: spared.len() as u64,
            mapped_pages_count: balance.found,
            kernel_pages_count: balance.counted_by_kernel,
            verified_count: *verified,
            differed_count: *differed,
            bytes_per_s: *scanned_bytes as f64 / scan_time.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }
}

/// Says what makes the figures less sure.
fn warn_about(analysis: &Analysis) {
    if let Some((tid, reason)) = analysis.not_paused.first() {
        let count = analysis.not_paused.len();
        tracing::warn!("{count} threads went on while the memory was looked at, such as {tid}: {reason}");
    }
    if analysis.was_cut_short {
        let limit = pages::pause::LONGEST.as_secs();
        tracing::warn!("looking at the memory took longer than {limit} s: who was held went on after that");
    }
    if !analysis.balance.holds() {
        let pages::balance::Balance { found, counted_by_kernel } = analysis.balance;
        tracing::warn!(
            "{found} pages were found where the kernel counts {counted_by_kernel}: the classes are not the whole"
        );
    }
}

/// The same as a number, for tables.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
