//! Measuring changes what is measured: instances with probes take much longer than those without.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    experiment::statistics::{median, relative_difference},
    report::units::{duration, percent},
    results::Error,
};

/// Part of the time by which probes lengthen a start, at least, as the lower end of the interval says, before it matters.
const TOLERATED: f64 = 0.10;

pub(super) struct ObserverEffect;

impl Rule for ObserverEffect {
    fn name(&self) -> &'static str {
        "observer_effect"
    }

    fn about(&self) -> &'static str {
        "Starts that probes lengthen by more than 10 %, as sure as the interval is."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for group in case.groups() {
            let (probed, bare) = (group.walls(true), group.walls(false));
            let Some(effect) = relative_difference(&probed, &bare, case.about().seed) else { continue };
            let (Some(with), Some(without)) = (median(&probed), median(&bare)) else { continue };
            if effect.low_ratio <= TOLERATED {
                continue;
            }
            let key = |probes: bool| format!("sandbox={} probes={probes} median of wall_ns", group.sandbox);
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Problem,
                subject: group.subject(),
                text: format!(
                    "A start takes {} with probes and {} without: {} longer (95 % interval {} to {}). The shares of the \
                     account hold for the longer one",
                    duration(with),
                    duration(without),
                    percent(effect.difference_ratio),
                    percent(effect.low_ratio),
                    percent(effect.high_ratio)
                ),
                evidence: vec![
                    Evidence::new("instances", key(true), Quantity::Ns(with)),
                    Evidence::new("instances", key(false), Quantity::Ns(without)),
                ],
                next_step: "Quote times of instances without probes (probes = false). --no-syscalls costs least; on a \
                            host with few CPUs leave one free of the sandbox (--cpus)."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    #[test]
    fn probes_that_double_a_start_are_told() {
        let mut scene = Scene::healthy();
        for instance in scene.instances_of("runc").filter(|instance| instance.probes) {
            instance.wall_ns = instance.wall_ns.map(|ns| ns * 2);
        }
        let finding = scene.only_finding("observer_effect");
        assert!(finding.text.contains("100.0 % longer"), "{}", finding.text);
        assert_eq!(finding.evidence.len(), 2);
    }
}
