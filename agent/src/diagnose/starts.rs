//! Rules about a part of the critical path of starts: what they have in common, and those that ask only whether a category is too
//! large.

use super::{Case, Evidence, Finding, Group, Path, Rule, Share, Topic, Weight, advice};
use crate::{
    report::units::{duration, percent},
    results::{Error, PathElement},
};

/// The kinds of starts of a run that are explained, with their paths.
///
/// # Errors
/// When a table can't be read.
pub fn of<'a>(case: &'a Case<'_>) -> Result<Vec<(&'a Group, Path)>, Error> {
    let mut starts = Vec::new();
    for group in case.groups().iter().filter(|group| group.is_about_starts()) {
        starts.extend(case.path(group)?.map(|path| (group, path)));
    }
    Ok(starts)
}

/// What a rule says of a share of a group's path.
pub struct Told {
    /// What was found, after `For 40.0 % of a start (4.00 ms) it `.
    pub text: String,
    /// Rows beside those of the path.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub next_step: String,
}

/// A finding on each kind of start of which `least`, as a share, or more is of what is wanted.
///
/// # Errors
/// When a table can't be read.
pub fn above(
    rule: &dyn Rule,
    case: &Case<'_>,
    least: f64,
    wanted: impl Fn(&PathElement) -> bool,
    tell: impl Fn(&Group, &Path, &Share<'_>) -> Result<Option<Told>, Error>,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (group, path) in of(case)? {
        let share = path.share(&wanted);
        if share.ratio < least {
            continue;
        }
        let Some(told) = tell(group, &path, &share)? else { continue };
        findings.push(Finding {
            rule: rule.name(),
            weight: Weight::Insight,
            subject: group.subject(),
            text: format!("For {} of a start ({}) it {}", percent(share.ratio), duration(share.mean_ns), told.text),
            evidence: share.evidence("attribution").into_iter().chain(told.evidence).collect(),
            next_step: told.next_step,
        });
    }
    Ok(findings)
}

/// A rule that looks whether starts spend too much of their time on a category.
pub struct CategoryRule {
    /// Its name.
    pub name: &'static str,
    /// What it looks for, in one line.
    pub about: &'static str,
    /// The category.
    pub category: &'static str,
    /// Share of a start that is worth doing something about.
    pub least: f64,
    /// What the sandbox does meanwhile, such as `waits for RCU grace periods`.
    pub does: &'static str,
}

impl Rule for CategoryRule {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn category(&self) -> Option<&'static str> {
        Some(self.category)
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        above(
            self,
            case,
            self.least,
            |element| element.category == self.category,
            |_, path, share| {
                let advices = advice::of(share);
                Ok(Some(Told {
                    text: format!(
                        "{}: {}{}. {}",
                        self.does,
                        share.places(),
                        path.without(self.category),
                        advice::joined(&advices, |advice| advice.why)
                    ),
                    evidence: Vec::new(),
                    next_step: advice::joined(&advices, |advice| advice.next_step),
                }))
            },
        )
    }
}
