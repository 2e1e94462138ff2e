//! Comparing two sets of results: what became better or worse, by how much, and how sure that is.
//!
//! Instances are the samples. Per metric, sandbox and workload: medians, their relative difference with a bootstrap interval, the
//! rank test of Mann and Whitney, Cliff's delta as effect size, and the noise floor, a difference that chance alone makes.
//! P-values are corrected for the number of comparisons (Benjamini and Hochberg): once over the primary metrics, which say
//! whether something changed, and once over the details, which say where; so that many details do not hide a change.

mod conditions;
mod metrics;
mod path;
mod text;
mod verdict;

pub use conditions::Changed;
pub use metrics::{Metric, Unit};
pub use path::{ElementDifference, PathDifference};
pub use verdict::{LEAST, SIGNIFICANT, Verdict};

use crate::results::{Error, Results};
use metrics::{Cell, Side};
use serde::Serialize;
use verdict::Judged;

/// What two sets of results say about each other. `a` is the baseline.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Runs of the baseline.
    pub a_runs: Vec<String>,
    /// Runs that are compared with it.
    pub b_runs: Vec<String>,
    /// Conditions that are not the same on both sides.
    pub changed_conditions: Vec<Changed>,
    /// One per metric, sandbox and workload that both sides have: primary ones first.
    pub rows: Vec<Row>,
    /// Which elements of the critical path make the differences of starts.
    pub paths: Vec<PathDifference>,
    /// Sandboxes and workloads that only one side has.
    pub unpaired: Vec<String>,
}

/// One metric of one sandbox and workload on both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Sandbox.
    pub sandbox: String,
    /// Workload.
    pub workload: String,
    /// Experiment.
    pub experiment: String,
    /// Variant of the experiment; empty where there is only one.
    pub variant: String,
    /// Group of the metric: `start`, `step`, `failed`, `phase`, `time` or `work`.
    pub group: &'static str,
    /// The metric within its group, such as `runtime`.
    pub metric: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Whether the instances had probes; null where the metric needs them.
    pub probes: Option<bool>,
    /// Whether it says that something changed; others say where.
    pub primary: bool,
    /// Values on each side.
    pub a_count: usize,
    /// See `a_count`.
    pub b_count: usize,
    /// Medians; means where the unit is a ratio.
    pub a_center: f64,
    /// See `a_center`.
    pub b_center: f64,
    /// Everything that needs enough values; null if there are too few.
    #[serde(flatten)]
    pub judged: Option<Judged>,
    /// What all of it means.
    pub verdict: Verdict,
}

impl Comparison {
    /// Whether something besides what is compared may have made the differences.
    pub fn conditions_differ(&self) -> bool {
        !self.changed_conditions.is_empty()
    }

    /// Whether a primary metric became worse, by more than this.
    pub fn has_regression(&self, tolerated_ratio: f64) -> bool {
        let above = |row: &&Row| {
            let difference = row.judged.as_ref().and_then(|judged| judged.difference_ratio);
            // What can't be told in per cent, such as failures where there were none, is never tolerated.
            difference.is_none_or(|difference| difference.abs() > tolerated_ratio)
        };
        self.rows.iter().filter(|row| row.primary && row.verdict == Verdict::Worse).any(|row| above(&row))
    }
}

/// Compares `b` with the baseline `a`.
///
/// # Errors
/// When a file can't be read.
pub fn compare(a: &Results, b: &Results) -> Result<Comparison, Error> {
    let (side_a, side_b) = (Side::of(a)?, Side::of(b)?);
    let cells: Vec<Cell> = side_a.cells().filter(|cell| side_b.has_kind(cell)).cloned().collect();
    let mut cells: Vec<Cell> = side_b.cells().filter(|cell| side_a.has_kind(cell)).cloned().chain(cells).collect();
    cells.sort();
    cells.dedup();
    let mut rows = Vec::new();
    for cell in cells {
        let (Some(before), Some(after)) = (side_a.values(&cell), side_b.values(&cell)) else { continue };
        let primary = cell.metric.is_primary(|other| {
            let other = Cell { metric: other, ..cell.clone() };
            side_a.has(&other) && side_b.has(&other)
        });
        rows.push(verdict::row(cell, primary, &before, &after));
    }
    verdict::judge(&mut rows);
    rows.sort_by(|one, other| {
        let key = |row: &Row| (!row.primary, row.sandbox.clone(), row.workload.clone(), row.experiment.clone());
        key(one).cmp(&key(other))
    });
    Ok(Comparison {
        a_runs: a.runs().iter().map(|run| run.id().to_owned()).collect(),
        b_runs: b.runs().iter().map(|run| run.id().to_owned()).collect(),
        changed_conditions: conditions::changed(a, b)?,
        rows,
        paths: path::differences(a, b)?,
        unpaired: side_a.kinds_not_in(&side_b, "A").chain(side_b.kinds_not_in(&side_a, "B")).collect(),
    })
}
