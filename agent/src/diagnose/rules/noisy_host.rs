//! Others used the host while starts were measured.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    report::units::percent,
    results::Error,
    statistics::median,
};

/// Share of all CPUs that others may use right before an instance.
const TOLERATED: f64 = 0.25;
/// Share of the instances that may begin on a busy host.
const FEW: f64 = 0.25;

pub(super) struct NoisyHost;

impl Rule for NoisyHost {
    fn name(&self) -> &'static str {
        "noisy_host"
    }

    fn about(&self) -> &'static str {
        "Runs of whose instances more than a quarter began while others used more than a quarter of the host's CPUs."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let all: Vec<f64> = case
            .groups()
            .iter()
            .flat_map(|group| &group.instances)
            .filter_map(|instance| instance.host_busy_ratio())
            .collect();
        let busy = all.iter().filter(|ratio| **ratio > TOLERATED).count();
        let Some(typical) = median(&all).filter(|_| busy as f64 > FEW * all.len() as f64) else {
            return Ok(Vec::new());
        };
        Ok(vec![Finding {
            rule: self.name(),
            weight: Weight::Problem,
            subject: "the host".to_owned(),
            text: format!(
                "Before {busy} of {} instances others used more than {} of its CPUs, in the median {}: times are longer than on a \
                 quiet host, and differ by what these others did",
                all.len(),
                percent(TOLERATED),
                percent(typical)
            ),
            evidence: vec![Evidence::new("instances", "conditions_json host_busy_ratio, median", Quantity::Ratio(typical))],
            next_step: "Stop what else runs (top), or compare only sandboxes that took turns within this run. A suite can wait for a \
                        quiet host (`host-busy-ratio` in its file)."
                .to_owned(),
        }])
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    #[test]
    fn a_host_that_others_use_most_of_the_time_is_told_and_one_busy_moment_is_not() {
        let busy = |every: usize| {
            let mut scene = Scene::healthy();
            for (number, instance) in scene.instances_of("runc").enumerate() {
                let ratio = if number % every == 0 { "0.700" } else { "0.010" };
                instance.conditions_json = format!(r#"{{"host_busy_ratio":"{ratio}"}}"#);
            }
            scene
        };
        let finding = busy(1).only_finding("noisy_host");
        assert!(finding.text.starts_with("Before 24 of 24 instances others used more than 25.0 %"), "{}", finding.text);
        assert!(busy(8).diagnose().findings.is_empty());
    }
}
