//! An idle sandbox uses much more CPU than others of the same run.

use crate::{
    diagnose::{Case, Evidence, Finding, Group, Quantity, Rule, Topic, Weight},
    record::tables::{Thread, Window},
    report::units::percent,
    results::{Error, Kind, Rows},
    statistics::median,
};
use std::collections::BTreeMap;

/// Share of a CPU that is worth asking about.
const LEAST: f64 = 0.005;
/// So many times what the cheapest uses.
const TIMES: f64 = 3.0;
/// Roles that are named.
const ROLES: usize = 4;

pub(super) struct IdleCost;

impl Rule for IdleCost {
    fn name(&self) -> &'static str {
        "idle_cost"
    }

    fn about(&self) -> &'static str {
        "Idle sandboxes that use 0.5 % of a CPU or more, and three times what another one of the run uses."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "windows", "threads"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let (windows, threads) = (case.table::<Window>()?, case.table::<Thread>()?);
        let cost = |group: &Group| {
            let ratios: Vec<f64> = windows_of(group, &windows).map(|window| window.cost_ratio).collect();
            median(&ratios)
        };
        let groups: Vec<_> = case.groups().iter().filter_map(|group| Some((group, cost(group)?))).collect();
        let mut findings = Vec::new();
        for (group, ratio) in &groups {
            let alike = |other: &Group| Kind { sandbox: group.sandbox.clone(), ..other.kind.clone() } == group.kind;
            let others = groups.iter().filter(|(other, _)| alike(other));
            let Some((cheapest, least)) = others.min_by(|one, other| one.1.total_cmp(&other.1)) else { continue };
            if *ratio < LEAST || *ratio < TIMES * least || cheapest.kind == group.kind {
                continue;
            }
            let key = |sandbox: &str| format!("sandbox={sandbox} cost_ratio, median");
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "With nothing to do it uses {} of a CPU, and {} {}: {}",
                    percent(*ratio),
                    cheapest.sandbox,
                    percent(*least),
                    roles(group, &windows, &threads).join(", ")
                ),
                evidence: vec![
                    Evidence::new("windows", key(&group.sandbox), Quantity::Ratio(*ratio)),
                    Evidence::new("windows", key(&cheapest.sandbox), Quantity::Ratio(*least)),
                ],
                next_step: "The findings about its threads and vCPUs say what wakes them; `--timeline all` and the table `wakeups` have \
                            each cause."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

fn windows_of<'a>(group: &'a Group, windows: &'a Rows<Window>) -> impl Iterator<Item = &'a Window> {
    let all = group.instances.iter().flat_map(|instance| windows.of(&instance.instance_id));
    all.filter(|window| window.span_ns > 0)
}

/// Who uses the CPU: roles with their shares of one, largest first.
fn roles(group: &Group, windows: &Rows<Window>, threads: &Rows<Thread>) -> Vec<String> {
    let span_ns: u64 = windows_of(group, windows).map(|window| window.span_ns).sum();
    let mut roles: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for thread in group.instances.iter().flat_map(|instance| threads.of(&instance.instance_id)) {
        let sum = roles.entry(&thread.role).or_default();
        *sum = (sum.0 + thread.on_cpu_ns, sum.1 + thread.wakeups_count);
    }
    let mut roles: Vec<_> = roles.into_iter().filter(|(_, (on_cpu_ns, _))| *on_cpu_ns > 0).collect();
    roles.sort_by_key(|&(_, (on_cpu_ns, _))| std::cmp::Reverse(on_cpu_ns));
    let tell = |(role, (on_cpu_ns, wakeups)): (&str, (u64, u64))| {
        let per_s = wakeups as f64 * 1e9 / span_ns as f64;
        format!("{role} {} ({per_s:.0} wake-ups per second)", percent(on_cpu_ns as f64 / span_ns as f64))
    };
    roles.into_iter().take(ROLES).map(tell).collect()
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, window};

    #[test]
    fn an_idle_sandbox_that_costs_ten_times_another_is_told_with_who_uses_the_cpu() {
        let mut scene = Scene::healthy();
        for id in scene.probed("runc") {
            scene.windows.push((id, window("runc")));
        }
        for id in scene.probed("gvisor") {
            let dear = crate::record::tables::Window { cost_ratio: 0.05, ..window("gvisor") };
            scene.windows.push((id.clone(), dear));
            let thread = crate::record::tables::Thread {
                role: "sentry".to_owned(),
                on_cpu_ns: 500_000_000,
                wakeups_count: 4000,
                ..crate::diagnose::testing::vcpu()
            };
            scene.threads.push((id, thread));
        }
        let finding = scene.only_finding("idle_cost");
        // In ten seconds.
        let expected =
            "With nothing to do it uses 5.0 % of a CPU, and kvm-floor 0.01 %: sentry 5.0 % (400 wake-ups per second)";
        assert_eq!(finding.text, expected);
    }
}
