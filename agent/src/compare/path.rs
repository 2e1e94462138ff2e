//! Where the difference of two medians comes from: the elements of the critical paths, weighted as the median weights its values, so
//! that their differences add up to that of the medians.

use crate::{
    record::tables::{Attribution, Instance},
    results::{Error, Kind, PathElement, Results},
    statistics::median_weights,
};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Share of a difference from which an element is a line of its own.
const LEAST: f64 = 0.05;
/// Lines at most.
const LINES: usize = 8;

/// The difference of the medians of one kind of starts, element by element.
#[derive(Debug, Clone, Serialize)]
pub struct PathDifference {
    /// The kind, such as `runc, workload rust`.
    pub subject: String,
    /// Median time of explained starts (Harrell and Davis 1982) in the baseline.
    pub a_median_ns: f64,
    /// The same in what is compared.
    pub b_median_ns: f64,
    /// What makes the difference, largest first.
    pub elements: Vec<ElementDifference>,
    /// What all other elements make of it: with these they are the whole difference.
    pub rest_ns: f64,
}

/// What one element makes of a difference.
#[derive(Debug, Clone, Serialize)]
pub struct ElementDifference {
    /// In words, such as `runtime: waiting for an RCU grace period in write(…/cgroup.procs)`.
    pub element: String,
    /// Its weighted time in the baseline.
    pub a_ns: f64,
    /// The same in what is compared.
    pub b_ns: f64,
}

impl ElementDifference {
    /// How much more it is.
    pub fn difference_ns(&self) -> f64 {
        self.b_ns - self.a_ns
    }
}

/// The elements of a start.
type Path = BTreeMap<PathElement, f64>;

/// The differences of those kinds of starts that both sides have explained.
pub(super) fn differences(a: &Results, b: &Results) -> Result<Vec<PathDifference>, Error> {
    let (a, b) = (medians(a)?, medians(b)?);
    let both = a.iter().filter_map(|(kind, before)| Some((kind, before, b.get(kind)?)));
    Ok(both.map(|(kind, before, after)| difference(kind, before, after)).collect())
}

fn difference(kind: &Kind, before: &Path, after: &Path) -> PathDifference {
    let (a_median_ns, b_median_ns) = (before.values().sum::<f64>(), after.values().sum::<f64>());
    let all: std::collections::BTreeSet<&PathElement> = before.keys().chain(after.keys()).collect();
    let of = |path: &Path, element: &PathElement| path.get(element).copied().unwrap_or(0.0);
    let line = |element: &PathElement| ElementDifference {
        element: element.words(),
        a_ns: of(before, element),
        b_ns: of(after, element),
    };
    let mut elements: Vec<_> = all.into_iter().map(line).collect();
    elements.sort_by(|one, other| other.difference_ns().abs().total_cmp(&one.difference_ns().abs()));
    let whole_ns = b_median_ns - a_median_ns;
    elements.truncate(LINES);
    elements.retain(|element| element.difference_ns().abs() >= (LEAST * whole_ns.abs()).max(1.0));
    let rest_ns = whole_ns - elements.iter().map(ElementDifference::difference_ns).sum::<f64>();
    PathDifference { subject: kind.to_string(), a_median_ns, b_median_ns, elements, rest_ns }
}

/// The elements of the median start of each kind.
fn medians(results: &Results) -> Result<BTreeMap<Kind, Path>, Error> {
    let mut starts: BTreeMap<Kind, Vec<Path>> = BTreeMap::new();
    for run in results.runs() {
        if !run.has_critical_path()? {
            continue;
        }
        let (Some(instances), Some(rows)) = (run.observed::<Instance>()?, run.observed::<Attribution>()?) else {
            continue;
        };
        let mut paths: HashMap<&str, Path> = HashMap::new();
        for row in rows.rows.iter().filter(|row| row.time_ns > 0) {
            // Which disk or neighbour it was differs from host to host.
            let element = PathElement { detail: None, ..PathElement::of(row) };
            *paths.entry(&row.instance_id).or_default().entry(element).or_default() += row.time_ns as f64;
        }
        for instance in instances.rows.iter().filter(|instance| instance.ok) {
            let path = paths.remove(instance.instance_id.as_str());
            starts.entry(Kind::of(instance)).or_default().extend(path);
        }
    }
    starts.retain(|_, paths| !paths.is_empty());
    Ok(starts.into_iter().map(|(kind, paths)| (kind, median(paths))).collect())
}

/// Each element's mean, weighted by the place of its start in the order of their times.
fn median(mut paths: Vec<Path>) -> Path {
    let wall = |path: &Path| path.values().sum::<f64>();
    paths.sort_by(|one, other| wall(one).total_cmp(&wall(other)));
    let mut sums = Path::new();
    for (weight, path) in median_weights(paths.len()).into_iter().zip(paths) {
        for (element, time_ns) in path {
            *sums.entry(element).or_default() += weight * time_ns;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::testing::{Part, Scene};

    fn compared(change: impl Fn(&mut Scene)) -> Vec<PathDifference> {
        let mut after = Scene::healthy();
        change(&mut after);
        let [one, other] = [Scene::healthy(), after].map(|scene| {
            let out = tempfile::tempdir().unwrap();
            scene.write(out.path());
            (Results::open(out.path()).unwrap(), out)
        });
        differences(&one.0, &other.0).unwrap()
    }

    #[test]
    fn what_takes_longer_is_named_and_everything_adds_up() {
        let all = compared(|scene| {
            for id in scene.probed("runc") {
                let instance = scene.instance(&id);
                // Ten milliseconds more, all of which are a third of what it then takes.
                instance.wall_ns = instance.wall_ns.map(|wall_ns| wall_ns * 3 / 2);
                scene.spend_one(&id, 1.0 / 3.0, Part::of("rcu", "runtime").within("write").about("/a/cgroup.procs"));
            }
        });
        let runc = all.iter().find(|difference| difference.subject.starts_with("runc")).unwrap();
        let [rcu] = runc.elements.as_slice() else { panic!("{runc:#?}") };
        assert_eq!(rcu.element, "runtime: waiting for an RCU grace period in write(…/cgroup.procs)");
        let whole = runc.b_median_ns - runc.a_median_ns;
        assert!((whole - 12.8e6).abs() < 0.2e6, "{whole}");
        assert!((rcu.difference_ns() / whole - 1.0).abs() < 0.001, "{runc:#?}");
        assert!((rcu.difference_ns() + runc.rest_ns - whole).abs() < 1.0);
    }

    #[test]
    fn equal_results_have_no_element_that_differs() {
        for difference in compared(|_| ()) {
            assert!(difference.elements.is_empty() && difference.rest_ns.abs() < 1.0, "{difference:#?}");
        }
    }
}
