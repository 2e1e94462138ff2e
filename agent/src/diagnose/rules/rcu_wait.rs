//! A start waits for RCU grace periods.

use crate::diagnose::starts::CategoryRule;

pub(super) const RCU_WAIT: CategoryRule = CategoryRule {
    name: "rcu_wait",
    about: "Starts that wait for RCU grace periods for 10 % of their time or more.",
    category: "rcu",
    least: 0.10,
    does: "waits for RCU grace periods",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_runtime_that_moves_processes_between_cgroups_is_told_with_call_file_and_remedy() {
        let mut scene = Scene::healthy();
        let wait = Part::of("rcu", "runtime").within("write").about("cgroup:/a/cgroup.procs").by("rcu_preempt");
        scene.spend("runc", 0.5, wait);
        let finding = scene.only_finding("rcu_wait");
        assert!(
            finding.text.starts_with("For 50.0 % of a start (12.8 ms) it waits for RCU grace periods"),
            "{}",
            finding.text
        );
        assert!(finding.text.contains("runtime in write(…/cgroup.procs) 12.8 ms"), "{}", finding.text);
        assert!(finding.next_step.contains("favordynmods"), "{}", finding.next_step);
    }
}
