//! Starts of one kind take different times, and one element of the path makes the difference.

use crate::{
    diagnose::{Case, Evidence, Finding, Group, Quantity, Rule, Topic, Weight},
    record::tables::Attribution,
    report::units::{duration, percent},
    results::{Error, PathElement},
    statistics::quantile,
};
use std::collections::BTreeMap;

/// Fewer starts have no distribution.
const STARTS: usize = 10;
/// Distance of the 10th from the 90th percentile as a part of the median, from which on starts differ.
const SPREAD: f64 = 0.25;
/// Share of the variance that an element has to explain.
const EXPLAINED: f64 = 0.6;
/// Distance of two modes as a part of the median.
const GAP: f64 = 0.15;
/// Fewer starts are no mode.
const MODE: usize = 3;

pub(super) struct Spread;

impl Rule for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn about(&self) -> &'static str {
        "Starts whose times differ by a quarter or more because of one element of their critical path."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let table = case.table::<Attribution>()?;
        let mut findings = Vec::new();
        for group in case.groups().iter().filter(|group| group.is_about_starts()) {
            let walls = group.walls(true);
            let at = |q: f64| quantile(&walls, q).unwrap_or_default();
            let (low, median, high) = (at(0.1), at(0.5), at(0.9));
            if walls.len() < STARTS || high - low < SPREAD * median {
                continue;
            }
            let paths: Vec<_> = group.explained().into_iter().map(|id| elements(table.of(id))).collect();
            let Some((element, share)) = separator(&paths).filter(|(_, share)| *share >= EXPLAINED) else { continue };
            let key = format!("sandbox={} wall_ns, 10 % and 90 % lie below", group.sandbox);
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "One start in ten takes less than {}, one in ten more than {}{}. {} of the variance is one element: {}",
                    duration(low),
                    duration(high),
                    modes(group),
                    percent(share),
                    element.words()
                ),
                evidence: vec![
                    Evidence::new("instances", key, Quantity::Text(format!("{} to {}", duration(low), duration(high)))),
                    Evidence::new("attribution", element.key(), Quantity::Ratio(share)),
                ],
                next_step: "Look at a fast and a slow start side by side (`sandscope export perfetto`, with `--timeline all`); compare \
                            medians only where this element is alike."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

/// The elements of one start's path.
fn elements<'a>(rows: impl Iterator<Item = &'a Attribution>) -> BTreeMap<PathElement, f64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        // Which disk, timer or neighbour it was differs from start to start, and is not what separates them.
        *sums.entry(PathElement { detail: None, ..PathElement::of(row) }).or_default() += row.time_ns as f64;
    }
    sums
}

/// The element whose time varies most as the whole does, with its share of the whole's variance: as the whole is the sum of its
/// elements, the covariances of these with it add up to its variance.
fn separator(paths: &[BTreeMap<PathElement, f64>]) -> Option<(PathElement, f64)> {
    let walls: Vec<f64> = paths.iter().map(|path| path.values().sum()).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let wall = mean(&walls);
    let variance: f64 = walls.iter().map(|value| (value - wall).powi(2)).sum();
    let all: std::collections::BTreeSet<_> = paths.iter().flat_map(BTreeMap::keys).collect();
    let share = |element: &PathElement| {
        let times: Vec<f64> = paths.iter().map(|path| path.get(element).copied().unwrap_or(0.0)).collect();
        let own = mean(&times);
        times.iter().zip(&walls).map(|(time, whole)| (time - own) * (whole - wall)).sum::<f64>() / variance
    };
    // More than all of it is explained where another element is the shorter the longer this one takes.
    let shares = all.into_iter().map(|element| (element.clone(), share(element).min(1.0)));
    shares.filter(|(_, share)| share.is_finite()).max_by(|one, other| one.1.total_cmp(&other.1))
}

/// The two modes of the times, if there is a gap that tells them apart.
fn modes(group: &Group) -> String {
    let mut walls = group.walls(true);
    walls.sort_by(f64::total_cmp);
    let tenth = walls.len() / 10;
    // The outermost tenths are outliers, no modes.
    let inner = &walls[tenth..walls.len() - tenth];
    let gap = (1..inner.len())
        .max_by(|&one, &other| (inner[one] - inner[one - 1]).total_cmp(&(inner[other] - inner[other - 1])));
    let is_wide = |gap: usize| inner[gap] - inner[gap - 1] > GAP * inner[inner.len() / 2];
    let Some(gap) = gap.filter(|&gap| is_wide(gap) && gap.min(inner.len() - gap) >= MODE) else {
        return String::new();
    };
    let middle = |mode: &[f64]| duration(mode[mode.len() / 2]);
    let (fast, slow) = inner.split_at(gap);
    format!(", in two modes around {} ({} starts) and {} ({})", middle(fast), fast.len(), middle(slow), slow.len())
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn two_modes_are_told_with_the_element_that_separates_them() {
        let mut scene = Scene::healthy();
        for (number, id) in scene.probed("runc").into_iter().enumerate() {
            let share = if number % 2 == 0 { 0.01 } else { 0.09 };
            // The slow ones take longer by what they wait more.
            if number % 2 == 1 {
                scene.instance(&id).wall_ns = Some(40_000_000);
            }
            let waits = if number % 2 == 1 { 0.38 } else { share };
            scene.spend_one(&id, waits, Part::of("rcu", "runtime").within("write").about("/a/cgroup.procs"));
        }
        let found = scene.diagnose().findings;
        let finding = found.iter().find(|finding| finding.rule == "spread").unwrap();
        assert!(finding.text.contains("in two modes around 25."), "{}", finding.text);
        assert!(finding.text.contains("and 40.0 ms"), "{}", finding.text);
        assert!(finding.text.ends_with("waiting for an RCU grace period in write(…/cgroup.procs)"), "{}", finding.text);
    }
}
