//! The sandbox is ready to run and has no CPU.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Share, Topic, advice,
        starts::{self, Told},
    },
    record::tables::Sched,
    report::units::duration,
    results::Error,
};
use std::collections::BTreeMap;

/// Part of the wall time in which nothing of the sandbox ran although something could.
const TOLERATED: f64 = 0.30;

/// Who had the CPU: those that are named.
const HOLDERS: usize = 3;

pub(super) struct RunQueue;

impl Rule for RunQueue {
    fn name(&self) -> &'static str {
        "run_queue"
    }

    fn about(&self) -> &'static str {
        "Starts that spend 30 % of their time or more waiting for a CPU."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn category(&self) -> Option<&'static str> {
        Some("runnable")
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "sched"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let sched = case.table::<Sched>()?;
        starts::above(
            self,
            case,
            TOLERATED,
            |element| element.category == "runnable",
            |group, path, share| {
                let explained = group.explained();
                let mut preempted: BTreeMap<&str, u64> = BTreeMap::new();
                for row in sched.rows.iter().filter(|row| explained.contains(row.instance_id.as_str())) {
                    *preempted.entry(&row.role).or_default() += row.preemptions_count;
                }
                let total: u64 = preempted.values().sum();
                let most = preempted.into_iter().max_by_key(|&(_, count)| count).filter(|&(_, count)| count > 0);
                let most = most.map(|(role, count)| {
                    let key = format!("sandbox={} role={role} preemptions_count", group.sandbox);
                    Evidence::new("sched", key, Quantity::Count(count))
                });
                let cpus = case.about().cpus_count.map_or_else(String::new, |cpus| format!(" of {cpus} CPUs"));
                let advices = advice::of(share);
                Ok(Some(Told {
                    text: format!(
                        "could run and had no CPU: {}{}. {} All its threads were preempted {:.0} times per start, on a host{cpus}",
                        holders(share),
                        path.without("runnable"),
                        advice::joined(&advices, |advice| advice.why),
                        total as f64 / explained.len() as f64
                    ),
                    evidence: most.into_iter().collect(),
                    next_step: advice::joined(&advices, |advice| advice.next_step),
                }))
            },
        )
    }
}

/// Who had the CPU, and for how long, whoever waited for it.
fn holders(share: &Share<'_>) -> String {
    let mut holders: BTreeMap<&str, f64> = BTreeMap::new();
    for part in &share.parts {
        *holders.entry(part.element.detail.as_deref().unwrap_or("somebody who was not seen")).or_default() +=
            part.mean_ns;
    }
    let mut holders: Vec<_> = holders.into_iter().collect();
    holders.sort_by(|one, other| other.1.total_cmp(&one.1));
    let told = |(who, mean_ns): (&str, f64)| match who {
        "idle CPU" => format!("an idle CPU had to wake up for {}", duration(mean_ns)),
        who => format!("{who} had it for {}", duration(mean_ns)),
    };
    holders.into_iter().take(HOLDERS).map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_sandbox_that_waits_for_a_cpu_half_the_time_is_told() {
        let mut scene = Scene::healthy();
        scene.spend("gvisor", 0.5, Part::of("runnable", "sentry").by("stress-ng"));
        let finding = scene.only_finding("run_queue");
        assert!(finding.text.starts_with("For 54.0 % of a start"), "{}", finding.text);
        assert!(finding.text.contains("it could run and had no CPU: stress-ng had it for "), "{}", finding.text);
        assert_eq!(finding.evidence[0].key, "category=runnable role=sentry detail=stress-ng");
        assert_eq!(finding.evidence.last().map(|row| row.table), Some("sched"));
    }
}
