//! Probes did not see everything: events had to be inferred, or programs of probes did not run.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    record::tables::EventCount,
    report::units::{counted, percent},
    results::Error,
};

/// Share of the records that may be inferred.
const TOLERATED: f64 = 0.02;

pub(super) struct MissingEvents;

impl Rule for MissingEvents {
    fn name(&self) -> &'static str {
        "missing_events"
    }

    fn about(&self) -> &'static str {
        "Instances of whose events more than 2 % were inferred from others, or of which programs of probes missed some."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "events"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let events = case.table::<EventCount>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            let (mut inferred, mut seen, mut skipped) = (0, 0, 0);
            for instance in group.instances.iter().filter(|instance| instance.probes) {
                inferred += instance.inferred_events_count.unwrap_or(0);
                skipped += instance.skipped_program_runs_count.unwrap_or(0);
                seen += events.of(&instance.instance_id).map(|row| row.seen_count).sum::<u64>();
            }
            let ratio = inferred as f64 / seen.max(1) as f64;
            if ratio <= TOLERATED && skipped == 0 {
                continue;
            }
            let mut text = Vec::new();
            let mut evidence = Vec::new();
            let key = |column: &str| format!("sandbox={} {column} of all instances", group.sandbox);
            if ratio > TOLERATED {
                text.push(format!(
                    "{} ({} of those seen) did not come and were inferred from what came before and after: times of these moments are \
                     bounds",
                    counted(inferred, "event"),
                    percent(ratio)
                ));
                evidence.push(Evidence::new("instances", key("inferred_events_count"), Quantity::Count(inferred)));
            }
            if skipped > 0 {
                text.push(format!(
                    "the kernel did not run programs of probes {}, because one of them was running on that CPU already",
                    counted(skipped, "time")
                ));
                evidence.push(Evidence::new("instances", key("skipped_program_runs_count"), Quantity::Count(skipped)));
            }
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Problem,
                subject: group.subject(),
                text: capitalised(&text.join("; ")),
                evidence,
                next_step: "`sandscope doctor` tells which events this kernel leaves out; other tracers that run at the same time are the \
                            usual reason for programs that do not run."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    #[test]
    fn many_inferred_events_and_programs_that_did_not_run_are_told_and_a_few_inferred_ones_are_not() {
        let scene = |inferred: u64, skipped: u64| {
            let mut scene = Scene::healthy();
            let id = scene.first_probed("runc");
            let instance = scene.instance(&id);
            (instance.inferred_events_count, instance.skipped_program_runs_count) = (Some(inferred), Some(skipped));
            scene
        };
        let finding = scene(1000, 0).only_finding("missing_events");
        assert!(finding.text.starts_with("1000 events (9.3 % of those seen) did not come"), "{}", finding.text);
        let finding = scene(3, 2).only_finding("missing_events");
        assert!(finding.text.starts_with("The kernel did not run programs of probes 2 times"), "{}", finding.text);
        assert!(scene(3, 0).diagnose().findings.is_empty());
    }
}
