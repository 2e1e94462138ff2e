//! A CPU limit keeps a sandbox from running while it is watched.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight},
    record::tables::Window,
    report::units::{duration, percent},
    results::Error,
};

/// Part of the time in which the limit kept somebody from running.
const LEAST: f64 = 0.02;

pub(super) struct ThrottledWindow;

impl Rule for ThrottledWindow {
    fn name(&self) -> &'static str {
        "throttled_window"
    }

    fn about(&self) -> &'static str {
        "Sandboxes that their CPU limit keeps from running for 2 % of the time or more while they are watched."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "windows"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let windows = case.table::<Window>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            let all = group.instances.iter().filter_map(|instance| windows.of(&instance.instance_id).next());
            let (throttled, span, runnable, cpu) = all.fold((0, 0, 0, 0), |sums, window| {
                let throttled = window.throttled_ns.unwrap_or(0);
                (sums.0 + throttled, sums.1 + window.span_ns, sums.2 + window.runnable_ns, sums.3 + window.cpu_ns)
            });
            if span == 0 || (throttled as f64) < LEAST * span as f64 {
                continue;
            }
            let key = |column: &str| format!("sandbox={} {column}", group.sandbox);
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "It is throttled by its CPU limit for {} of {}, in which it uses {} of a CPU: its threads wait for the next \
                     period, not for others",
                    duration(throttled as f64),
                    duration(span as f64),
                    percent(cpu as f64 / span as f64)
                ),
                evidence: vec![
                    Evidence::new("windows", key("throttled_ns"), Quantity::Ns(throttled as f64)),
                    Evidence::new("windows", key("runnable_ns"), Quantity::Ns(runnable as f64)),
                ],
                next_step: "Raise the limit (cpu.max, cpu.cfs_quota_us, --cpus, limits.cpu), or find out who uses it up: table `threads`."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    fn throttled(ns: u64) -> Scene {
        let mut scene = Scene::healthy();
        for (_, window) in &mut scene.windows {
            (window.throttled_ns, window.cpu_ns) = (Some(ns), 2_000_000_000);
        }
        scene
    }

    #[test]
    fn a_window_whose_limit_is_used_up_is_told_with_its_time() {
        let finding = throttled(6_000_000_000).only_finding("throttled_window");
        assert!(finding.text.starts_with("It is throttled by its CPU limit for "), "{}", finding.text);
        assert!(finding.text.contains("20.0 % of a CPU"), "{}", finding.text);
    }

    #[test]
    fn a_limit_that_is_hardly_ever_reached_is_none() {
        assert!(throttled(50_000_000).diagnose().findings.is_empty());
    }
}
