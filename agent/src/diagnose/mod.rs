//! Diagnosis: rules that turn tables into findings, in plain words, with the rows that show them and what to do next.
//!
//! A rule is one file in [`rules`] and its line in [`rules::all`]. It says which tables it needs; a run that lacks one of
//! them is not examined by that rule, and the diagnosis says so: silence must not look like health. A rule fires only on
//! what a person would act on, and each is tested on data in which its condition was made on purpose and on healthy data
//! (the module `testing`).

mod account;
mod advice;
mod case;
mod code;
mod differences;
mod finding;
mod pages;
mod path;
pub mod rules;
mod starts;
#[cfg(test)]
pub mod testing;
mod text;
mod vcpu;

pub use account::{Account, AccountLine};
pub use case::{Case, Group};
pub use differences::{Difference, DifferenceLine};
pub use finding::{Evidence, Finding, Quantity, Weight};
pub use path::{Part, Path, Share};

use crate::results::{Error, Results, Run};
use serde::Serialize;

/// Looks for one condition.
pub trait Rule: Sync {
    /// Its name, in `snake_case`.
    fn name(&self) -> &'static str;

    /// What it looks for, in one line.
    fn about(&self) -> &'static str;

    /// The category of the critical path that its findings explain, if they are about one.
    fn category(&self) -> Option<&'static str> {
        None
    }

    /// What a run must be about for the rule to look at it at all.
    fn topic(&self) -> Topic {
        Topic::Any
    }

    /// Tables without which it can't tell.
    fn needs(&self) -> &'static [&'static str];

    /// What it finds in a run; nothing where the condition does not hold.
    ///
    /// # Errors
    /// When a table can't be read.
    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error>;
}

/// What a rule is about. Of runs about something else it says nothing, and not that it can't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Every run.
    Any,
    /// Runs with starts that are there to be explained.
    Starts,
    /// Runs with windows of time, such as those of idle sandboxes.
    Idle,
    /// Runs that compare memory.
    Memory,
    /// Runs that looked at what is in pages, of instances or of what ran already.
    Pages,
}

impl Topic {
    fn is_of(self, case: &Case) -> Result<bool, Error> {
        match self {
            Self::Any => Ok(true),
            Self::Starts => Ok(case.is_about_starts()),
            Self::Idle => case.run().has("windows"),
            Self::Memory => case.run().has("memory_host"),
            Self::Pages => case.run().has("pages"),
        }
    }
}

/// What the rules say about results.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Run by run, the earliest first.
    pub runs: Vec<RunDiagnosis>,
}

/// What the rules say about a run.
#[derive(Debug, Serialize)]
pub struct RunDiagnosis {
    /// The run.
    pub run_id: String,
    /// What was run.
    pub experiment: String,
    /// What the starts of each kind of sandbox spend their time on.
    pub accounts: Vec<Account>,
    /// Why the starts of one sandbox take longer than those of another.
    pub differences: Vec<Difference>,
    /// What was found: problems first.
    pub findings: Vec<Finding>,
    /// Rules that could tell, whether they found something or not.
    pub examined: Vec<&'static str>,
    /// Rules that could not.
    pub not_examined: Vec<NotExamined>,
}

/// A rule that could not tell.
#[derive(Debug, Serialize)]
pub struct NotExamined {
    /// The rule.
    pub rule: &'static str,
    /// What it lacks.
    pub reason: String,
}

/// Examines all runs of some results by all rules.
///
/// # Errors
/// When a file can't be read.
pub fn diagnose(results: &Results) -> Result<Diagnosis, Error> {
    let runs = results.runs().iter().map(|run| diagnose_run(run, rules::all())).collect::<Result<_, _>>()?;
    Ok(Diagnosis { runs })
}

/// Examines one run by these rules.
///
/// # Errors
/// When a file can't be read.
pub fn diagnose_run(run: &Run, rules: &[&dyn Rule]) -> Result<RunDiagnosis, Error> {
    let case = Case::of(run)?;
    let mut diagnosis = RunDiagnosis {
        run_id: run.id().to_owned(),
        experiment: case.about().experiment.clone(),
        accounts: account::of(&case)?,
        differences: differences::of(&case)?,
        findings: Vec::new(),
        examined: Vec::new(),
        not_examined: Vec::new(),
    };
    for rule in rules {
        if !rule.topic().is_of(&case)? {
            continue;
        }
        match examine(*rule, &case) {
            Ok(findings) => {
                diagnosis.examined.push(rule.name());
                diagnosis.findings.extend(findings);
            }
            Err(error) if error.is_absence() => {
                diagnosis.not_examined.push(NotExamined { rule: rule.name(), reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    // Stable: within a weight the order of the rules stays.
    diagnosis.findings.sort_by_key(|finding| finding.weight);
    Ok(diagnosis)
}

fn examine(rule: &dyn Rule, case: &Case) -> Result<Vec<Finding>, Error> {
    if rule.topic() == Topic::Starts {
        case.check_path()?;
    }
    for table in rule.needs() {
        if !case.run().has(table)? {
            return Err(Error::NoTable { run: case.run().id().to_owned(), table });
        }
    }
    rule.examine(case)
}

#[cfg(test)]
mod tests {
    use super::{rules, testing::Scene};
    use crate::record::tables::tables;
    use std::collections::HashSet;

    #[test]
    fn no_rule_fires_on_a_healthy_run_and_all_of_them_could_tell() {
        let diagnosis = Scene::healthy().diagnose();
        assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
        assert!(diagnosis.not_examined.is_empty(), "{:#?}", diagnosis.not_examined);
        assert_eq!(diagnosis.examined.len(), rules::all().len());
    }

    #[test]
    fn a_rule_that_lacks_a_table_says_so_instead_of_nothing() {
        let diagnosis = Scene::healthy().without("attribution").diagnose();
        let lacking: Vec<_> = diagnosis.not_examined.iter().map(|rule| rule.rule).collect();
        assert!(lacking.contains(&"run_queue"), "{lacking:?}");
        let of_one = diagnosis.not_examined.iter().find(|rule| rule.rule == "run_queue");
        assert!(of_one.is_some_and(|rule| rule.reason.ends_with("did not observe the table `attribution`")));
        assert!(diagnosis.examined.contains(&"lost_events"));
    }

    #[test]
    fn results_of_the_first_version_have_no_path_and_say_so() {
        let mut scene = Scene::healthy();
        scene.version = 1;
        let diagnosis = scene.diagnose();
        assert!(diagnosis.accounts.is_empty() && diagnosis.differences.is_empty() && diagnosis.findings.is_empty());
        let rcu = diagnosis.not_examined.iter().find(|rule| rule.rule == "rcu_wait");
        assert!(rcu.is_some_and(|rule| rule.reason.contains("have no critical path (schema version 1)")), "{rcu:?}");
    }

    #[test]
    fn rules_have_names_of_their_own_and_need_tables_that_exist() {
        let mut seen = HashSet::new();
        for rule in rules::all() {
            assert!(seen.insert(rule.name()), "two rules are called {}", rule.name());
            assert!(rule.about().ends_with('.'), "{}", rule.name());
            for needed in rule.needs() {
                assert!(tables().any(|table| table.name == *needed), "{} needs {needed}", rule.name());
            }
        }
    }
}
