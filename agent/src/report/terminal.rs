//! A run on the terminal: per sandbox the time to the first response, a bar of its phases, and what the time went to.

use super::units::ms;
use crate::experiment::{SandboxSummary, Summary};
use std::fmt::{self, Display, Formatter};

/// Characters of a phase bar.
const BAR: usize = 60;

/// The summary, laid out for a terminal.
pub struct Report<'a>(pub &'a Summary);

impl Display for Report<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for sandbox in &self.0.sandboxes {
            write_sandbox(out, sandbox)?;
        }
        if let Some(reason) = &self.0.probes_missing {
            writeln!(out, "No probes, so no explanation of the time: {reason}")?;
        }
        match self.0.lost_events_count {
            0 => Ok(()),
            lost => writeln!(
                out,
                "{lost} records were lost because the ring buffer was full: the accounts of the instances concerned have \
                 gaps. Use a larger one (--ring-buffer-bytes)."
            ),
        }
    }
}

fn write_sandbox(out: &mut Formatter<'_>, sandbox: &SandboxSummary) -> fmt::Result {
    write!(out, "{}", sandbox.sandbox)?;
    match (sandbox.wall_median_ns, sandbox.wall_p5_ns, sandbox.wall_p95_ns) {
        (Some(median), Some(p5), Some(p95)) => {
            let arm = if sandbox.wall_without_probes { "without probes" } else { "with probes" };
            write!(out, "  {} ms [{} to {}] {arm}", ms(median), ms(p5), ms(p95))?;
        }
        _ => write!(out, "  no good response")?,
    }
    writeln!(out, ", {} ok, {} failed", sandbox.ok_count, sandbox.failed_count)?;
    if let Some(error) = &sandbox.first_error {
        writeln!(out, "  first failure: {error}")?;
    }
    if let Some(effect) = &sandbox.observer_effect {
        writeln!(
            out,
            "  observer effect {:+.1} % (95 % interval {:+.1} to {:+.1} %)",
            effect.difference_ratio * 100.0,
            effect.low_ratio * 100.0,
            effect.high_ratio * 100.0
        )?;
    }
    if !sandbox.phases.is_empty() {
        writeln!(out, "  {}", phase_bar(&sandbox.phases))?;
        let phases: Vec<_> =
            sandbox.phases.iter().map(|(name, time_ns)| format!("{name} {} ms", ms(*time_ns))).collect();
        writeln!(out, "  {}", phases.join(" · "))?;
    }
    for share in &sandbox.top {
        writeln!(out, "  {:>5.1} %  {:>9} ms  {}", share.share_ratio * 100.0, ms(share.mean_ns), share.words)?;
    }
    if let Some(worst) = sandbox.worst_unattributed_ratio {
        writeln!(out, "  unexplained: at most {:.2} % of an instance", worst * 100.0)?;
    }
    writeln!(out)
}

/// A bar in which each phase has its share, filled with the first letter of its name.
fn phase_bar(phases: &[(impl AsRef<str>, f64)]) -> String {
    let total: f64 = phases.iter().map(|(_, time_ns)| time_ns).sum();
    let mut bar = String::from("[");
    let (mut passed, mut drawn) = (0.0, 0);
    for (name, time_ns) in phases {
        passed += time_ns;
        let until = (passed / total * BAR as f64).round() as usize;
        let letter = name.as_ref().chars().next().unwrap_or('?');
        bar.extend(std::iter::repeat_n(letter, until - drawn));
        drawn = until;
    }
    bar.push(']');
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_and_in_proportion() {
        let bar = phase_bar(&[("spawn", 10.0), ("runtime", 40.0), ("application", 10.0)]);
        assert_eq!(bar.len(), BAR + 2);
        assert_eq!(bar.matches('s').count(), 10);
        assert_eq!(bar.matches('r').count(), 40);
        assert_eq!(bar.matches('a').count(), 10);
    }
}
