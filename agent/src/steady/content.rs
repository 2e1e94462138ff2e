//! What is in the pages of sandboxes that run, as rows and in a few lines. Used for those that an experiment has started and for
//! those that ran before.

use crate::{
    measure::memory::pages::{
        self, Analysis, Subject,
        classify::{Bin, Count},
    },
    record::tables,
};
use anyhow::Result;
use rustix::param::page_size;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

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
    /// For how long the instances stood still; `None`: they went on.
    pub paused_ns: Option<u64>,
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
    /// Looks at all pages of these processes, beside those of these files. With `hold`, the processes stand still meanwhile.
    ///
    /// # Errors
    /// When a process may not be looked at, or a file can't be read.
    pub fn look_at(subjects: Vec<Subject>, mut files: Vec<PathBuf>, hold: bool) -> Result<Self> {
        files.sort();
        files.dedup();
        let analysis = pages::analyse(&subjects, &files, hold)?;
        if let Some((tid, reason)) = analysis.not_paused.first() {
            let count = analysis.not_paused.len();
            tracing::warn!("{count} threads went on while the memory was looked at, such as {tid}: {reason}");
        }
        Ok(Self { analysis, subjects })
    }

    /// Numbers of the processes.
    pub fn pids(&self) -> Vec<i32> {
        self.subjects.iter().map(|subject| subject.pid).collect()
    }

    /// Frames that KSM would free if it merged all that it could.
    pub fn freeable_pages(&self) -> u64 {
        self.analysis.freeable_pages()
    }

    /// Frames that KSM has freed: the mappings of merged frames beyond the first of each.
    pub fn freed_pages(&self) -> u64 {
        self.analysis.ksm_pages().saturating_sub(self.analysis.ksm_frames)
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
        let Analysis { scanned_bytes, scan_time, paused, verified, differed, .. } = &self.analysis;
        ContentSummary {
            parts,
            freeable_bytes: self.analysis.freeable_pages() * page_size() as u64,
            shifted_bytes: self.analysis.shifted.estimate() * page_size() as u64,
            paused_ns: paused.map(nanoseconds),
            verified_count: *verified,
            differed_count: *differed,
            bytes_per_s: *scanned_bytes as f64 / scan_time.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }
}

/// The same as a number, for tables.
pub(crate) fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
