//! Time that nothing explains.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    report::units::{counted, percent},
    results::Error,
};

/// Part of an instance's time above which its account is not to be trusted.
const TOLERATED: f64 = 0.05;

pub(super) struct Unattributed;

impl Rule for Unattributed {
    fn name(&self) -> &'static str {
        "unattributed"
    }

    fn about(&self) -> &'static str {
        "Instances of whose time more than 5 % is in no category."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for group in case.groups() {
            let ratio = |instance: &crate::record::tables::Instance| {
                Some(instance.unattributed_ns? as f64 / instance.wall_ns.filter(|&ns| ns > 0)? as f64)
            };
            let mut above: Vec<_> = group
                .instances
                .iter()
                .filter_map(|instance| Some((ratio(instance)?, instance)))
                .filter(|&(ratio, _)| ratio > TOLERATED)
                .collect();
            above.sort_by(|one, other| other.0.total_cmp(&one.0));
            let Some(&(worst, _)) = above.first() else { continue };
            let mut evidence: Vec<_> = above
                .iter()
                .take(3)
                .map(|(ratio, instance)| {
                    let key = format!("instance_id={} unattributed_ns / wall_ns", instance.instance_id);
                    Evidence::new("instances", key, Quantity::Ratio(*ratio))
                })
                .collect();
            let missing = case.about().probes_missing.clone();
            evidence.extend(missing.clone().map(|text| Evidence::new("runs", "probes_missing", Quantity::Text(text))));
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Problem,
                subject: group.subject(),
                text: format!(
                    "Nothing explains more than {} of the time of {}, at worst {}",
                    percent(TOLERATED),
                    counted(above.len(), "instance"),
                    percent(worst)
                ),
                evidence,
                next_step: match missing {
                    Some(_) => "Probes were missing: `sandscope doctor` says why, and what to do.".to_owned(),
                    None => "See in the table `attribution` in which phases it is; lost records and threads that the \
                             sandbox has elsewhere are the usual reasons."
                        .to_owned(),
                },
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{Quantity, testing::Scene};

    #[test]
    fn one_instance_without_explanation_is_told_and_one_with_a_little_is_not() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        let instance = scene.instance(&id);
        instance.wall_ns = Some(2_000_000);
        instance.unattributed_ns = Some(400_000);
        let finding = scene.only_finding("unattributed");
        assert_eq!(finding.text, "Nothing explains more than 5.0 % of the time of 1 instance, at worst 20.0 %");
        assert_eq!(finding.evidence.first().map(|row| row.value.clone()), Some(Quantity::Ratio(0.2)));

        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.instance(&id).unattributed_ns = Some(1000);
        assert!(scene.diagnose().findings.is_empty());
    }
}
