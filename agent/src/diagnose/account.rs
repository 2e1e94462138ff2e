//! What the starts of a sandbox spend their time on, whether that is unusual or not: each category of the critical path that takes a
//! tenth of it or more, with its largest parts, its mechanism, what can be done, and what that would save.

use super::{Case, advice, starts};
use crate::results::{Error, category_words};
use serde::Serialize;

/// Share of a start from which a category is a line of its own.
const LEAST: f64 = 0.10;

/// The account of a kind of starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// Which starts, such as `runc, workload rust`.
    pub subject: String,
    /// How many are explained.
    pub starts_count: usize,
    /// Mean time from launch to the first good response, of the explained ones.
    pub mean_ns: f64,
    /// The categories that take a tenth or more, largest first.
    pub lines: Vec<AccountLine>,
    /// Mean time of all others.
    pub rest_ns: f64,
}

/// A category of the critical path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountLine {
    /// Category, as in `attribution`.
    pub category: String,
    /// The category in words.
    pub what: &'static str,
    /// Share of a start.
    pub share_ratio: f64,
    /// Mean per start.
    pub mean_ns: f64,
    /// By how much a start would be shorter without it, on average, predicted; null where that was not predicted.
    pub saves_ns: Option<f64>,
    /// Its largest parts, with their mean times.
    pub parts: String,
    /// Why it takes time.
    pub why: String,
    /// What can be done about that.
    pub next_step: String,
}

/// The accounts of a run's kinds of starts, the fastest first; none if it has no probes.
///
/// # Errors
/// When a table can't be read.
pub fn of(case: &Case<'_>) -> Result<Vec<Account>, Error> {
    let starts = match starts::of(case) {
        Err(error) if error.is_absence() => return Ok(Vec::new()),
        starts => starts?,
    };
    let accounts = starts.into_iter().map(|(group, path)| {
        let mut lines = Vec::new();
        for category in path.categories() {
            let share = path.category(category);
            if share.ratio < LEAST {
                continue;
            }
            let advices = advice::of(&share);
            lines.push(AccountLine {
                category: category.to_owned(),
                what: category_words(category),
                share_ratio: share.ratio,
                mean_ns: share.mean_ns,
                saves_ns: path.saves_without(category),
                parts: share.places(),
                why: advice::joined(&advices, |advice| advice.why),
                next_step: advice::joined(&advices, |advice| advice.next_step),
            });
        }
        lines.sort_by(|one, other| other.mean_ns.total_cmp(&one.mean_ns));
        let rest_ns = path.mean_ns - lines.iter().map(|line| line.mean_ns).sum::<f64>();
        Account { subject: group.subject(), starts_count: path.starts, mean_ns: path.mean_ns, lines, rest_ns }
    });
    let mut accounts: Vec<_> = accounts.collect();
    accounts.sort_by(|one, other| one.mean_ns.total_cmp(&other.mean_ns));
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn what_takes_a_tenth_is_told_with_what_it_would_save_and_the_rest_is_summed() {
        let mut scene = Scene::healthy();
        scene.spend("runc", 0.5, Part::of("rcu", "runtime").within("write").about("cgroup:/a/cgroup.procs"));
        let diagnosis = scene.diagnose();
        let account = diagnosis.accounts.iter().find(|account| account.subject.starts_with("runc")).unwrap();
        assert_eq!(account.starts_count, 12);
        let categories: Vec<_> = account.lines.iter().map(|line| line.category.as_str()).collect();
        assert_eq!(categories, ["rcu", "user", "kernel"]);
        let rcu = &account.lines[0];
        assert!((rcu.share_ratio - 0.5).abs() < 0.001, "{}", rcu.share_ratio);
        assert!(
            rcu.saves_ns.is_some_and(|saves_ns| (saves_ns / rcu.mean_ns - 0.8).abs() < 0.001),
            "{:?}",
            rcu.saves_ns
        );
        assert_eq!(rcu.parts, "runtime in write(…/cgroup.procs) 12.8 ms");
        let sum: f64 = account.lines.iter().map(|line| line.mean_ns).sum();
        assert!((sum + account.rest_ns - account.mean_ns).abs() < 1.0);
    }

    #[test]
    fn a_run_without_an_account_has_none() {
        assert!(Scene::healthy().without("attribution").diagnose().accounts.is_empty());
    }
}
