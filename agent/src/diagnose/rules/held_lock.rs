//! Threads of a sandbox wait for one another with locks of the kernel while it starts.

use crate::{
    diagnose::{Case, Finding, Part, Rule, Share, Topic, Weight, starts},
    record::tables,
    report::units::{duration, percent},
    results::{Error, PathElement},
};
use std::collections::BTreeMap;

/// Part of a start that is worth doing something about.
const LEAST: f64 = 0.10;

pub(super) struct HeldLock;

impl Rule for HeldLock {
    fn name(&self) -> &'static str {
        "held_lock"
    }

    fn about(&self) -> &'static str {
        "Starts in which threads of the sandbox wait for locks of the kernel that others of its threads hold for 10 % of their time or more."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "held_locks"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let table = case.table::<tables::HeldLock>()?;
        let mut findings = Vec::new();
        for (group, path) in starts::of(case)? {
            let mut sums: BTreeMap<PathElement, u64> = BTreeMap::new();
            let explained = group.explained();
            for row in explained.iter().flat_map(|instance| table.of(instance)) {
                *sums.entry(PathElement::of_held_lock(row)).or_default() += row.time_ns;
            }
            let mean = |time_ns: u64| time_ns as f64 / explained.len() as f64;
            let part = |(element, time_ns)| {
                let mean_ns = mean(time_ns);
                Part { element, mean_ns, ratio: mean_ns / path.mean_ns, saves_ns: None }
            };
            let mut parts: Vec<Part> = sums.into_iter().map(part).collect();
            parts.sort_by(|one, other| other.mean_ns.total_cmp(&one.mean_ns));
            let share = Share {
                ratio: parts.iter().map(|part| part.ratio).sum(),
                mean_ns: parts.iter().map(|part| part.mean_ns).sum(),
                parts: parts.iter().collect(),
            };
            if share.ratio < LEAST {
                continue;
            }
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "For {} of a start ({}) it waits for locks of the kernel that its own threads hold: {}. What the holders did \
                     meanwhile is on the critical path in place of the wait",
                    percent(share.ratio),
                    duration(share.mean_ns),
                    share.places()
                ),
                evidence: share.evidence("held_locks"),
                next_step: "Threads of one process share an address space and its lock: fewer and larger mappings, no populating or freeing of \
                            large ones while others start, or work in processes of their own. Of other locks, the function says whose."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::{diagnose::testing::Scene, record::tables};

    fn lock() -> tables::HeldLock {
        tables::HeldLock {
            role: "runtime".to_owned(),
            syscall: Some("mmap".to_owned()),
            object: None,
            stack: "__x64_sys_mmap;vm_mmap_pgoff".to_owned(),
            held_by: "workload".to_owned(),
            count: 3,
            time_ns: 0,
        }
    }

    #[test]
    fn who_waited_for_whom_is_named() {
        let mut scene = Scene::healthy();
        for id in scene.probed("runc") {
            scene.wait_for_own(&id, 0.3, lock());
        }
        let finding = scene.only_finding("held_lock");
        assert!(finding.text.starts_with("For 30.0 % of a start"), "{}", finding.text);
        assert!(finding.text.contains("runtime in mmap, by vm_mmap_pgoff (held by workload)"), "{}", finding.text);
    }

    #[test]
    fn a_little_is_nothing() {
        let mut scene = Scene::healthy();
        for id in scene.probed("runc") {
            scene.wait_for_own(&id, 0.05, lock());
        }
        assert_eq!(scene.diagnose().findings.len(), 0);
    }
}
