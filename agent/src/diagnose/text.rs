//! A diagnosis as people read it on a terminal.

use super::{Account, AccountLine, Diagnosis, Difference, Finding, RunDiagnosis, rules};
use crate::{
    printable::printable,
    report::units::{counted, duration, percent},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
};

impl Display for Diagnosis {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.runs.iter().try_for_each(|run| write!(out, "{run}"))
    }
}

impl Display for RunDiagnosis {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "run {} ({})", self.run_id, printable(&self.experiment))?;
        let mut said = BTreeSet::new();
        for account in &self.accounts {
            write!(out, "\n{account}")?;
            for line in &account.lines {
                write!(out, "{line}")?;
                // Its finding says the same, and more closely; and once is enough.
                if !self.explains(&account.subject, &line.category) && said.insert(&line.why) {
                    wrapped(out, 22, "", &line.why)?;
                    wrapped(out, 22, "→ ", &line.next_step)?;
                }
            }
            let (share, time) = (percent(account.rest_ns / account.mean_ns), duration(account.rest_ns));
            writeln!(out, "  {share:>6}  {time:>10}  all else")?;
        }
        for difference in &self.differences {
            write!(out, "\n{difference}")?;
        }
        for finding in &self.findings {
            write!(out, "\n{finding}")?;
        }
        let checks = counted(self.examined.len(), "check");
        match self.findings.len() {
            0 => writeln!(out, "\nNothing unusual found ({checks})")?,
            found => writeln!(out, "\n{} ({checks})", counted(found, "finding"))?,
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for lacking in &self.not_examined {
            reasons.entry(&lacking.reason).or_default().push(lacking.rule);
        }
        for (reason, rules) in reasons {
            wrapped(out, 0, "not checked: ", &format!("{}, because {reason}", rules.join(", ")))?;
        }
        writeln!(out)
    }
}

impl RunDiagnosis {
    /// Whether a finding is about this category of this kind of starts.
    fn explains(&self, subject: &str, category: &str) -> bool {
        let mut about = rules::all().iter().filter(|rule| rule.category() == Some(category)).map(|rule| rule.name());
        about.any(|rule| self.findings.iter().any(|finding| finding.rule == rule && finding.subject == subject))
    }
}

impl Display for Account {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let starts = counted(self.starts_count, "explained start");
        writeln!(
            out,
            "{}: {} to the first response (mean of {starts})",
            printable(&self.subject),
            duration(self.mean_ns)
        )
    }
}

impl Display for AccountLine {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let saves = self.saves_ns.map_or_else(String::new, |ns| format!(" (without it {} less)", duration(ns)));
        let (share, time) = (percent(self.share_ratio), duration(self.mean_ns));
        writeln!(out, "  {share:>6}  {time:>10}  {}{saves}", self.what)?;
        wrapped(out, 22, "", &self.parts)
    }
}

impl Display for Difference {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let more = duration(self.difference_ns);
        writeln!(out, "{} takes {more} longer than {}:", printable(&self.subject), printable(&self.than))?;
        let signed = |ns: f64| format!("{}{}", if ns < 0.0 { "−" } else { "+" }, duration(ns.abs()));
        for line in &self.lines {
            let role = line.role.as_deref().map_or_else(String::new, |role| format!("{}: ", printable(role)));
            writeln!(out, "  {:>12}  {role}{}", signed(line.difference_ns), line.what)?;
        }
        writeln!(out, "  {:>12}  all else", signed(self.rest_ns))?;
        if !self.phases.is_empty() {
            let phase = |(name, ns): &(String, f64)| format!("{} {}", printable(name), signed(*ns));
            writeln!(out, "  by phase: {}", self.phases.iter().map(phase).collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

impl Display for Finding {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // What a guest wrote may be in any of these.
        writeln!(out, "{} [{} {}]", printable(&self.subject), self.weight.name(), self.rule)?;
        wrapped(out, 2, "", &format!("{}.", self.text.trim_end_matches('.')))?;
        for row in &self.evidence {
            let value = row.value.to_string();
            writeln!(out, "    {:>12}  {}: {}", printable(&value), row.table, printable(&row.key))?;
        }
        wrapped(out, 2, "→ ", &self.next_step)
    }
}

/// Columns of a line, as wide as text is easily read. Evidence is not wrapped: it is for the eye that looks for a row, and for search.
const COLUMNS: usize = 110;

/// Text in lines of this indentation, the first of which begins with a mark. What a guest wrote may be in it.
fn wrapped(out: &mut Formatter<'_>, indent: usize, mark: &str, text: &str) -> fmt::Result {
    let first = format!("{:indent$}{mark}", "");
    let next = " ".repeat(first.chars().count());
    let options = textwrap::Options::new(COLUMNS).initial_indent(&first).subsequent_indent(&next).break_words(false);
    writeln!(out, "{}", textwrap::fill(&printable(text).to_string(), options))
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
        assert!(text.contains(&format!("1 finding ({able} checks)\nnot checked: run_queue, because ")), "{text}");
        assert!(text.lines().all(|line| line.chars().all(|letter| !letter.is_control())), "{text:?}");
    }
}
