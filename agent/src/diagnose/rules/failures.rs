//! Instances that failed, and what most of them say.

use crate::{
    diagnose::{Case, Evidence, Finding, Group, Quantity, Rule, Weight},
    report::units::counted,
    results::Error,
};
use std::collections::BTreeMap;

/// Characters of an error that are shown: it may hold the end of a guest's console.
const SHOWN: usize = 400;

pub(super) struct Failures;

impl Rule for Failures {
    fn name(&self) -> &'static str {
        "failures"
    }

    fn about(&self) -> &'static str {
        "Instances that gave no good response, by their most common error."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        Ok(case.groups().iter().filter_map(of_group).collect())
    }
}

fn of_group(group: &Group) -> Option<Finding> {
    let mut errors: BTreeMap<String, (u64, &str)> = BTreeMap::new();
    for instance in group.instances.iter().filter(|instance| !instance.ok) {
        let error = instance.error.as_deref().unwrap_or("no reason was written down");
        errors.entry(without_numbers(error)).or_insert((0, error)).0 += 1;
    }
    let failed: u64 = errors.values().map(|(count, _)| count).sum();
    let &(most, error) = errors.values().max_by_key(|(count, _)| *count)?;
    let shown: String = error.chars().take(SHOWN).collect();
    let (all, kinds) = (counted(group.instances.len(), "instance"), errors.len());
    let text = match kinds {
        1 => format!("{failed} of {all} failed, all of them so: {shown}"),
        _ => format!("{failed} of {all} failed in {kinds} ways; most often ({most} times) so: {shown}"),
    };
    let evidence = errors.values().map(|&(count, error)| (error.chars().take(SHOWN).collect::<String>(), count)).map(
        |(error, count)| {
            let key = format!("sandbox={} ok=false error={error}", group.sandbox);
            Evidence::new("instances", key, Quantity::Count(count))
        },
    );
    Some(Finding {
        rule: Failures.name(),
        weight: Weight::Problem,
        subject: group.subject(),
        text,
        evidence: evidence.collect(),
        next_step: format!(
            "Start one alone and read what it says: sandscope run cold-start --sandbox {} --workload {} -n 1 --no-probes",
            group.sandbox, group.workload
        ),
    })
}

/// An error without the numbers in it, which only tell instances apart.
fn without_numbers(error: &str) -> String {
    let mut text = String::new();
    for letter in error.chars() {
        match letter {
            _ if !letter.is_ascii_digit() => text.push(letter),
            _ if !text.ends_with('#') => text.push('#'),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{Quantity, Weight, testing::Scene};

    #[test]
    fn errors_that_differ_by_a_number_are_one() {
        let mut scene = Scene::healthy();
        for (number, instance) in scene.instances_of("runc").take(5).enumerate() {
            instance.ok = false;
            instance.wall_ns = None;
            instance.error = Some(match number {
                4 => "the workload exited with status 3".to_owned(),
                _ => format!("no response within 30 s on port {}", 3000 + number),
            });
        }
        let finding = scene.only_finding("failures");
        assert_eq!((finding.weight, finding.subject.as_str()), (Weight::Problem, "runc, workload rust"));
        let said = "5 of 24 instances failed in 2 ways; most often (4 times) so: no response within 30 s on port 3000";
        assert_eq!(finding.text, said);
        let counts: Vec<_> = finding.evidence.iter().map(|evidence| evidence.value.clone()).collect();
        assert_eq!(counts, [Quantity::Count(4), Quantity::Count(1)]);
    }
}
