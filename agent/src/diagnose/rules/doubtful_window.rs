//! Figures of a window that can't be, or that are lower bounds.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    record::tables::Window,
    report::units::counted,
    results::Error,
};

pub(super) struct DoubtfulWindow;

impl Rule for DoubtfulWindow {
    fn name(&self) -> &'static str {
        "doubtful_window"
    }

    fn about(&self) -> &'static str {
        "Windows whose figures can't be right, or are lower bounds because events found no room."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "windows"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let windows = case.table::<Window>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            for instance in &group.instances {
                for window in windows.of(&instance.instance_id) {
                    findings.extend(window.doubts.as_ref().map(|doubts| Finding {
                        rule: self.name(),
                        weight: Weight::Problem,
                        subject: group.subject(),
                        text: format!("The figures of {} can't be right: {doubts}", window.target),
                        evidence: vec![Evidence::new("windows", "doubts".to_owned(), Quantity::Text(doubts.clone()))],
                        next_step: "Take none of them for true, and tell the project: this is a fault of sandscope or of the kernel."
                            .to_owned(),
                    }));
                    let lost = window.unrecorded_count;
                    findings.extend((lost > 0).then(|| Finding {
                        rule: self.name(),
                        weight: Weight::Problem,
                        subject: group.subject(),
                        text: format!(
                            "{} of {} found no room: its times and counts are lower bounds",
                            counted(lost, "event"),
                            window.target
                        ),
                        evidence: vec![Evidence::new("windows", "unrecorded_count".to_owned(), Quantity::Count(lost))],
                        next_step: "Attach to fewer threads at a time, for example to one container.".to_owned(),
                    }));
                }
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    #[test]
    fn what_can_t_be_is_told() {
        let mut scene = Scene::healthy();
        scene.windows[0].1.doubts = Some("300 % of a CPU is more than the 2 CPUs of this host have".to_owned());
        let finding = scene.only_finding("doubtful_window");
        assert!(finding.text.contains("can't be right: 300 % of a CPU"), "{}", finding.text);
    }

    #[test]
    fn what_found_no_room_makes_lower_bounds() {
        let mut scene = Scene::healthy();
        scene.windows[0].1.unrecorded_count = 12;
        let finding = scene.only_finding("doubtful_window");
        assert!(finding.text.starts_with("12 events of kvm-floor found no room"), "{}", finding.text);
    }
}
