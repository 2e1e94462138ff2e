//! A start spends its time on page faults of its programs. Every program touches memory, and that takes up to a fifth of a start.

use crate::diagnose::starts::CategoryRule;

pub(super) const PAGE_FAULTS: CategoryRule = CategoryRule {
    name: "page_faults",
    about: "Starts that spend 30 % of their time or more on page faults of their own code.",
    category: "fault",
    least: 0.30,
    does: "handles page faults",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_program_that_touches_much_memory_is_told() {
        let mut scene = Scene::healthy();
        scene.spend("process", 0.5, Part::of("fault", "workload"));
        let finding = scene.only_finding("page_faults");
        assert!(finding.text.contains("it handles page faults: workload "), "{}", finding.text);
    }
}
