//! A start waits for locks of the kernel that somebody outside of the sandbox holds, such as another sandbox that starts.

use crate::diagnose::starts::CategoryRule;

pub(super) const LOCK_WAIT: CategoryRule = CategoryRule {
    name: "lock_wait",
    about: "Starts that wait for locks of the kernel that others hold for 10 % of their time or more.",
    category: "lock",
    least: 0.10,
    does: "waits for locks of the kernel that others hold",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn the_function_that_takes_the_lock_and_who_held_it_are_named() {
        let mut scene = Scene::healthy();
        let stack = "__x64_sys_unshare;ksys_unshare;create_new_namespaces;copy_net_ns";
        scene.spend("runc", 0.4, Part::of("lock", "runtime").within("unshare").by("runc").through(stack));
        let finding = scene.only_finding("lock_wait");
        assert!(finding.text.contains("runtime in unshare, by copy_net_ns (held by runc)"), "{}", finding.text);
        assert!(finding.evidence[0].key.contains("function=copy_net_ns"), "{}", finding.evidence[0].key);
    }
}
