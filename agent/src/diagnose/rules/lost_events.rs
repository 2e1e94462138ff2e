//! Records that found no room: the accounts of these instances have gaps.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    record::tables::EventCount,
    report::units::{counted, percent},
    results::Error,
};
use std::collections::BTreeMap;

pub(super) struct LostEvents;

impl Rule for LostEvents {
    fn name(&self) -> &'static str {
        "lost_events"
    }

    fn about(&self) -> &'static str {
        "Records of the probes for which the buffer had no room."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "events"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let events = case.table::<EventCount>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            let concerned: Vec<_> = group.instances.iter().filter(|instance| instance.lost_events_count > 0).collect();
            let lost: u64 = concerned.iter().map(|instance| instance.lost_events_count).sum();
            if lost == 0 {
                continue;
            }
            let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
            let mut seen = 0;
            for instance in &concerned {
                for row in events.of(&instance.instance_id) {
                    seen += row.seen_count;
                    *kinds.entry(&row.kind).or_default() += row.lost_count;
                }
            }
            let kinds = kinds.into_iter().filter(|&(_, lost)| lost > 0);
            let of_kind = |(kind, lost)| {
                let key = format!("sandbox={} kind={kind} lost_count", group.sandbox);
                Evidence::new("events", key, Quantity::Count(lost))
            };
            let share = if seen > 0 { format!(" ({})", percent(lost as f64 / seen as f64)) } else { String::new() };
            let size = case.condition("ring_buffer_bytes");
            let was = size.map_or_else(String::new, |bytes| format!("; it was {bytes}"));
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Problem,
                subject: group.subject(),
                text: format!(
                    "{}{share} of {} found no room in the buffer: what their threads did then is \
                     charged to the state before, and counts are too low",
                    counted(lost, "record"),
                    counted(concerned.len(), "instance")
                ),
                evidence: kinds.map(of_kind).collect(),
                next_step: format!(
                    "Run again with a larger buffer (--ring-buffer-bytes{was}), or record less (--no-syscalls)."
                ),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{Evidence, Quantity, testing::Scene};

    #[test]
    fn each_kind_that_lost_records_is_evidence() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("runc");
        scene.instance(&id).lost_events_count = 25;
        scene.events.push((id, crate::diagnose::testing::event("switch", 100, 25)));
        let finding = scene.only_finding("lost_events");
        assert!(finding.text.starts_with("25 records (2.5 %) of 1 instance found"), "{}", finding.text);
        let expected = Evidence::new("events", "sandbox=runc kind=switch lost_count", Quantity::Count(25));
        assert_eq!(finding.evidence, [expected]);
        assert!(finding.next_step.contains("--ring-buffer-bytes; it was 16777216"), "{}", finding.next_step);
    }
}
