//! A start waits for somebody outside of the sandbox.

use crate::diagnose::starts::CategoryRule;

pub(super) const OUTSIDE_WAIT: CategoryRule = CategoryRule {
    name: "outside_wait",
    about: "Starts that wait for processes or kernel threads outside of the sandbox for 10 % of their time or more.",
    category: "outside",
    least: 0.10,
    does: "waits for others",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn who_is_waited_for_is_named() {
        let mut scene = Scene::healthy();
        scene.spend("process", 0.7, Part::of("outside", "workload").within("recvfrom").by("postgres"));
        let finding = scene.only_finding("outside_wait");
        assert!(finding.text.contains("workload in recvfrom (postgres)"), "{}", finding.text);
    }
}
