//! Why the starts of one sandbox take longer than those of another: the difference of their mean critical paths, element by element,
//! to the sandbox of the same run and workload that starts fastest.

use super::{Case, Group, Path, starts};
use crate::{
    record::tables::Phase,
    results::{Error, PathElement, category_words},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Share of a difference from which an element is a line of its own.
const LEAST: f64 = 0.05;
/// Part of the faster starts' time by which others have to be slower for a comparison.
const SLOWER: f64 = 0.10;

/// Why a kind of starts takes longer than the fastest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Which starts, such as `runc, workload rust`.
    pub subject: String,
    /// Those that take the least time.
    pub than: String,
    /// By how much they take longer: difference of the means of explained starts.
    pub difference_ns: f64,
    /// Elements that make the difference, largest first. They and the rest add up to it.
    pub lines: Vec<DifferenceLine>,
    /// What all others make of it.
    pub rest_ns: f64,
    /// What the phases make of it, largest first.
    pub phases: Vec<(String, f64)>,
}

/// An element of a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DifferenceLine {
    /// Category, as in `attribution`.
    pub category: String,
    /// The category in words.
    pub what: &'static str,
    /// Role of the threads.
    pub role: Option<String>,
    /// How much more of it, on average; negative if there is less.
    pub difference_ns: f64,
}

/// The differences between a run's kinds of starts.
///
/// # Errors
/// When a table can't be read.
pub fn of(case: &Case<'_>) -> Result<Vec<Difference>, Error> {
    let starts = match starts::of(case) {
        Err(error) if error.is_absence() => return Ok(Vec::new()),
        starts => starts?,
    };
    let mut differences = Vec::new();
    for (group, path) in &starts {
        let alike = starts.iter().filter(|(other, _)| is_alike(group, other));
        let Some((fastest, its_path)) = alike.min_by(|one, other| one.1.mean_ns.total_cmp(&other.1.mean_ns)) else {
            continue;
        };
        if path.mean_ns - its_path.mean_ns > SLOWER * its_path.mean_ns {
            differences.push(difference(case, (group, path), (fastest, its_path))?);
        }
    }
    differences.sort_by(|one, other| one.difference_ns.total_cmp(&other.difference_ns));
    Ok(differences)
}

/// Whether two kinds of starts differ in nothing but the sandbox.
fn is_alike(one: &Group, other: &Group) -> bool {
    crate::results::Kind { sandbox: one.sandbox.clone(), ..other.kind.clone() } == one.kind
}

fn difference(
    case: &Case<'_>,
    (group, path): (&Group, &Path),
    (fastest, its): (&Group, &Path),
) -> Result<Difference, Error> {
    let difference_ns = path.mean_ns - its.mean_ns;
    let mut sums: BTreeMap<(&str, Option<&str>), f64> = BTreeMap::new();
    fn key(element: &PathElement) -> (&str, Option<&str>) {
        (element.category.as_str(), element.role.as_deref())
    }
    for part in &path.parts {
        *sums.entry(key(&part.element)).or_default() += part.mean_ns;
    }
    for part in &its.parts {
        *sums.entry(key(&part.element)).or_default() -= part.mean_ns;
    }
    let line = |((category, role), difference_ns): ((&str, Option<&str>), f64)| DifferenceLine {
        category: category.to_owned(),
        what: category_words(category),
        role: role.map(str::to_owned),
        difference_ns,
    };
    let mut lines: Vec<_> =
        sums.into_iter().map(line).filter(|line| line.difference_ns.abs() >= LEAST * difference_ns).collect();
    lines.sort_by(|one, other| other.difference_ns.abs().total_cmp(&one.difference_ns.abs()));
    let rest_ns = difference_ns - lines.iter().map(|line| line.difference_ns).sum::<f64>();

    let mut phases = phases(case, group)?;
    for (name, mean_ns) in self::phases(case, fastest)? {
        *phases.entry(name).or_default() -= mean_ns;
    }
    let mut phases: Vec<_> = phases.into_iter().filter(|(_, ns)| ns.abs() >= LEAST * difference_ns).collect();
    phases.sort_by(|one, other| other.1.abs().total_cmp(&one.1.abs()));
    Ok(Difference { subject: group.subject(), than: fastest.subject(), difference_ns, lines, rest_ns, phases })
}

/// Mean lengths of the phases of a group's explained starts.
fn phases(case: &Case<'_>, group: &Group) -> Result<BTreeMap<String, f64>, Error> {
    let explained = group.explained();
    let mut phases = BTreeMap::new();
    let table = case.run().observed::<Phase>()?;
    for row in table.iter().flat_map(|table| &table.rows).filter(|row| explained.contains(row.instance_id.as_str())) {
        *phases.entry(row.phase.clone()).or_default() += (row.end_ns - row.start_ns) as f64 / explained.len() as f64;
    }
    Ok(phases)
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn the_elements_of_a_difference_add_up_to_it() {
        let mut scene = Scene::healthy();
        scene.spend("gvisor", 0.5, Part::of("user", "sentry"));
        let diagnosis = scene.diagnose();
        let names: Vec<_> =
            diagnosis.differences.iter().map(|difference| difference.subject.split(',').next()).collect();
        assert_eq!(
            names,
            [Some("kvm-floor"), Some("runc"), Some("docker-runc"), Some("gvisor")],
            "by how much they differ"
        );
        let gvisor = diagnosis.differences.last().unwrap();
        assert!(gvisor.than.starts_with("process"), "{}", gvisor.than);
        let largest = &gvisor.lines[0];
        assert_eq!((largest.category.as_str(), largest.role.as_deref()), ("user", Some("sentry")));
        let sum: f64 = gvisor.lines.iter().map(|line| line.difference_ns).sum();
        assert!((sum + gvisor.rest_ns - gvisor.difference_ns).abs() < 1.0);
    }
}
