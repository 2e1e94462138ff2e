//! A diagnosis as people read it on a terminal.

use super::{Diagnosis, Finding, RunDiagnosis};
use crate::printable::printable;
use std::fmt::{self, Display, Formatter};

impl Display for Diagnosis {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.runs.iter().try_for_each(|run| write!(out, "{run}"))
    }
}

impl Display for RunDiagnosis {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "run {} ({})", self.run_id, printable(&self.experiment))?;
        for finding in &self.findings {
            write!(out, "\n{finding}")?;
        }
        let (examined, found) = (self.examined.len(), self.findings.len());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let found = match found {
            0 => "no finding".to_owned(),
            _ => format!("{found} finding{}", plural(found)),
        };
        writeln!(out, "\n{found} by {examined} rule{}", plural(examined))?;
        for lacking in &self.not_examined {
            writeln!(out, "the rule {} can't tell: {}", lacking.rule, printable(&lacking.reason))?;
        }
        writeln!(out)
    }
}

impl Display for Finding {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // What a guest wrote may be in any of these.
        writeln!(out, "{} [{} {}]", printable(&self.subject), self.weight.name(), self.rule)?;
        writeln!(out, "  {}.", printable(&self.text).trim_end_matches('.'))?;
        for row in &self.evidence {
            let value = row.value.to_string();
            writeln!(out, "    {:>12}  {}: {}", printable(&value), row.table, printable(&row.key))?;
        }
        writeln!(out, "  → {}", printable(&self.next_step))
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{Diagnosis, rules, testing::Scene};

    #[test]
    fn a_finding_has_its_evidence_and_its_next_step_and_nothing_that_steers_a_terminal() {
        let mut scene = Scene::healthy().without("sched");
        for instance in scene.instances_of("runc") {
            instance.ok = false;
            instance.wall_ns = None;
            instance.error = Some("console: \u{1b}]0;owned\u{7}\r\nno init".to_owned());
        }
        let text = Diagnosis { runs: vec![scene.diagnose()] }.to_string();
        assert!(text.contains("runc, workload rust [problem failures]\n  24 of 24 instances failed"), "{text}");
        assert!(text.contains("          24  instances: sandbox=runc ok=false error=console: "), "{text}");
        assert!(text.contains("  → Start one alone"), "{text}");
        // All but one, which lacks its table.
        let able = rules::all().len() - 1;
        assert!(text.contains(&format!("1 finding by {able} rules\nthe rule run_queue can't tell: ")), "{text}");
        assert!(text.lines().all(|line| line.chars().all(|letter| !letter.is_control())), "{text:?}");
    }
}
