//! The sandbox is ready to run and has no CPU.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    record::tables::Sched,
    report::units::{duration, percent},
    results::Error,
};
use std::collections::BTreeMap;

/// Part of the wall time in which nothing of the sandbox ran although something could.
const TOLERATED: f64 = 0.30;

pub(super) struct RunQueue;

impl Rule for RunQueue {
    fn name(&self) -> &'static str {
        "run_queue"
    }

    fn about(&self) -> &'static str {
        "Starts that spend 30 % of their time or more waiting for a CPU."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "sched"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let sched = case.table::<Sched>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            let Some(share) = case.share(group, |who| who.category == "runnable")? else { continue };
            if share.ratio < TOLERATED {
                continue;
            }
            let explained = group.explained();
            let mut preempted: BTreeMap<&str, u64> = BTreeMap::new();
            for row in sched.rows.iter().filter(|row| explained.contains(row.instance_id.as_str())) {
                *preempted.entry(&row.role).or_default() += row.preemptions_count;
            }
            let total: u64 = preempted.values().sum();
            let most = preempted.into_iter().max_by_key(|&(_, count)| count).filter(|&(_, count)| count > 0);
            let mut evidence = share.evidence();
            evidence.extend(most.map(|(role, count)| {
                let key = format!("sandbox={} role={role} preemptions_count", group.sandbox);
                Evidence::new("sched", key, Quantity::Count(count))
            }));
            let cpus = case.about().cpus_count.map_or_else(String::new, |cpus| format!(" of {cpus} CPUs"));
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "For {} of a start ({}) the sandbox could run and had no CPU; its threads were preempted {:.0} times \
                     per start, on a host{cpus}",
                    percent(share.ratio),
                    duration(share.mean_ns),
                    total as f64 / explained.len() as f64
                ),
                evidence,
                next_step: "Look for other load on the host (top), give the sandbox more CPUs (--cpus, --vcpus), or fewer \
                            threads that compete for them (GOMAXPROCS for runc and gVisor)."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_sandbox_that_waits_for_a_cpu_half_the_time_is_told() {
        let mut scene = Scene::healthy();
        scene.spend("gvisor", 0.5, Part::of("runnable", "sentry"));
        let finding = scene.only_finding("run_queue");
        assert!(finding.text.starts_with("For 54.0 % of a start"), "{}", finding.text);
        assert_eq!(finding.evidence[0].key, "category=runnable role=sentry");
        assert_eq!(finding.evidence.last().map(|row| row.table), Some("sched"));
    }
}
