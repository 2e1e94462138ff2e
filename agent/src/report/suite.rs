//! A suite on the terminal: per experiment, sandbox and workload the median of each step.

use super::units::{counted, ms, size};
use crate::experiment::suite::{CellSummary, SuiteSummary};
use std::fmt::{self, Display, Formatter};

/// The summary, laid out for a terminal.
pub struct SuiteReport<'a>(pub &'a SuiteSummary);

impl Display for SuiteReport<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let SuiteSummary { cells, .. } = self.0;
        let mut before = None;
        // The cells with probes are beside those without.
        let shown = cells.iter().filter(|cell| !cell.probes || twin(cells, cell, false).is_none());
        for cell in shown {
            let group = (&cell.experiment, &cell.variant, &cell.sandbox, &cell.workload);
            if before != Some(group) {
                let variant = if cell.variant.is_empty() { String::new() } else { format!("/{}", cell.variant) };
                writeln!(out, "{}{variant}  {}  {}", cell.experiment, cell.sandbox, cell.workload)?;
                before = Some(group);
            }
            write_step(out, cell, twin(cells, cell, true).filter(|_| !cell.probes))?;
        }
        let SuiteSummary { instances_count, failed_count, lost_events_count, finished, .. } = self.0;
        // A step may well fail on an instance that does not: at the limit of connections, say.
        let steps: u32 = cells.iter().filter(|cell| cell.step != "start").map(|cell| cell.failed_count).sum();
        let steps = if steps > 0 { format!("; {} failed", counted(steps, "step")) } else { String::new() };
        writeln!(out, "{instances_count} instances, {failed_count} failed{steps}")?;
        if *lost_events_count > 0 {
            writeln!(
                out,
                "{lost_events_count} records were lost because the ring buffer was full (ring-buffer-bytes)"
            )?;
        }
        if !finished {
            writeln!(out, "Not finished: the same command with --resume goes on")?;
        }
        Ok(())
    }
}

/// The same step with or without probes.
fn twin<'a>(cells: &'a [CellSummary], of: &CellSummary, probes: bool) -> Option<&'a CellSummary> {
    let key = |cell: &CellSummary| {
        [&cell.experiment, &cell.variant, &cell.sandbox, &cell.workload, &cell.step].map(Clone::clone)
    };
    cells.iter().find(|cell| cell.probes == probes && key(cell) == key(of))
}

/// A median, and the ends of its interval if it has one.
fn with_interval(figures: [Option<String>; 3]) -> String {
    match figures {
        [Some(median), Some(low), Some(high)] => format!("{median:>12} [{low} to {high}]"),
        [median, ..] => format!("{:>12}", median.unwrap_or_default()),
    }
}

fn write_step(out: &mut Formatter<'_>, cell: &CellSummary, probed: Option<&CellSummary>) -> fmt::Result {
    write!(out, "  {:24}", cell.step)?;
    let time = |ns: u64| format!("{} ms", ms(ns as f64));
    let text = match (cell.median_ns, cell.median_bytes) {
        (Some(_), _) => with_interval([cell.median_ns, cell.low_ns, cell.high_ns].map(|ns| ns.map(time))),
        (None, Some(_)) => with_interval(
            [cell.median_bytes, cell.low_bytes, cell.high_bytes].map(|bytes| bytes.map(|bytes| size(bytes as f64))),
        ),
        (None, None) => "no good answer".to_owned(),
    };
    write!(out, " {text}")?;
    write!(out, "  n={}", cell.instances_count)?;
    if cell.outliers_count > 0 {
        write!(out, ", {} outliers", cell.outliers_count)?;
    }
    let both = |of: fn(&CellSummary) -> u64| of(cell) + probed.map_or(0, of);
    let (failed, bad) = (both(|cell| cell.failed_count.into()), both(|cell| cell.bad_count));
    if failed > 0 {
        write!(out, ", {failed} FAILED")?;
    }
    if bad > 0 {
        write!(out, " ({bad} of {} bad)", counted(bad + both(|cell| cell.good_count), "answer"))?;
    }
    if let (Some(with), Some(without)) = (probed.and_then(|probed| probed.median_ns), cell.median_ns)
        && without > 0
    {
        write!(out, ", with probes {:+.0} %", (with as f64 / without as f64 - 1.0) * 100.0)?;
    }
    writeln!(out)
}
