//! A CPU limit throttles a start.

use crate::diagnose::starts::CategoryRule;

pub(super) const CPU_LIMIT: CategoryRule = CategoryRule {
    name: "cpu_limit",
    about: "Starts that their CPU limit throttles for 5 % of their time or more.",
    category: "throttled",
    least: 0.05,
    does: "is throttled by its CPU limit",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_start_whose_limit_is_used_up_is_told_and_no_neighbour_is_blamed() {
        let mut scene = Scene::healthy();
        scene.spend("runc", 0.4, Part::of("throttled", "workload"));
        let finding = scene.only_finding("cpu_limit");
        assert!(finding.text.contains("it is throttled by its CPU limit: workload "), "{}", finding.text);
    }
}
