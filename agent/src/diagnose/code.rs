//! Rules about what programs of a start do in their own code: which functions it was in whenever it was looked at.

use super::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight, starts};
use crate::{
    probe::SAMPLE_PERIOD_NS,
    record::tables::Sample,
    report::units::{duration, percent},
    results::Error,
};
use std::collections::BTreeMap;

/// Share of a start that is worth doing something about.
const LEAST: f64 = 0.10;
/// Parts that are named; the others are counted.
const NAMED: usize = 4;

/// A rule that looks whether starts spend too much of their time in some functions.
pub struct CodeRule {
    /// Its name.
    pub name: &'static str,
    /// What it looks for, in one line.
    pub about: &'static str,
    /// What the sandbox does in these functions, such as `initialises packages`.
    pub does: &'static str,
    /// What a stack belongs to, such as a package; `None`: not to what is looked for.
    pub part: fn(&str) -> Option<String>,
    /// Why that is, as a sentence.
    pub why: &'static str,
    /// What to do next.
    pub next_step: &'static str,
}

impl Rule for CodeRule {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "samples"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let table = case.table::<Sample>()?;
        let mut findings = Vec::new();
        for (group, path) in starts::of(case)? {
            let mut parts: BTreeMap<(String, String), u64> = BTreeMap::new();
            for instance in group.explained() {
                for sample in table.of(instance).filter(|sample| sample.on_path) {
                    if let Some(part) = (self.part)(&sample.stack) {
                        *parts.entry((sample.role.clone(), part)).or_default() += u64::from(sample.count);
                    }
                }
            }
            let per_start = |count: u64| (count * SAMPLE_PERIOD_NS) as f64 / path.starts as f64;
            let count = parts.values().sum::<u64>();
            let mean_ns = per_start(count);
            if mean_ns < LEAST * path.mean_ns {
                continue;
            }
            let mut parts: Vec<_> = parts.into_iter().collect();
            parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let named: Vec<String> = parts
                .iter()
                .take(NAMED)
                .map(|((role, part), count)| format!("{role} in {part} {}", duration(per_start(*count))))
                .collect();
            let others = match parts.len().saturating_sub(NAMED) {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            findings.push(Finding {
                rule: self.name,
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "For {} of a start ({}, by {count} looks at {} starts) it {}: {}{others}. {}",
                    percent(mean_ns / path.mean_ns),
                    duration(mean_ns),
                    path.starts,
                    self.does,
                    named.join(", "),
                    self.why
                ),
                evidence: parts
                    .iter()
                    .take(NAMED)
                    .map(|((role, part), count)| {
                        let key = format!("on_path=true role={role}, {part} in its stack, count × 1 ms per start");
                        Evidence::new("samples", key, Quantity::Ns(per_start(*count)))
                    })
                    .collect(),
                next_step: self.next_step.to_owned(),
            });
        }
        Ok(findings)
    }
}

/// The package of a function of Go: `gvisor.dev/gvisor/pkg/seccomp` of `gvisor.dev/gvisor/pkg/seccomp.(*program).build`.
pub fn package(function: &str) -> &str {
    let name = function.rfind('/').map_or(0, |slash| slash + 1);
    let end = function[name..].find('.').map_or(function.len(), |dot| name + dot);
    &function[..end]
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn a_package_is_what_stands_before_the_first_dot_of_the_last_part() {
        assert_eq!(package("gvisor.dev/gvisor/pkg/seccomp.(*program).build"), "gvisor.dev/gvisor/pkg/seccomp");
        assert_eq!(package("main.main"), "main");
        assert_eq!(package("[runc]"), "[runc]");
    }
}
