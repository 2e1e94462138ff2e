//! A start builds filters of system calls for its processes, from rules that are the same each time.

use crate::diagnose::code::{CodeRule, package};

pub(super) const SECCOMP_FILTERS: CodeRule = CodeRule {
    name: "seccomp_filters",
    about: "Starts in which programs build filters of system calls for 10 % of the time or more.",
    does: "builds filters of system calls",
    part: filtered,
    why: "Rules become a program of the kernel's (BPF), which is optimised, on each start anew.",
    next_step: "Filters that were compiled when the program was built (gVisor: precompiled filters), fewer rules, or fewer processes that \
                install their own.",
};

/// The outermost package of a stack that is about seccomp.
fn filtered(stack: &str) -> Option<String> {
    let mut packages = stack.split(';').map(package);
    packages.find(|package| package.contains("seccomp")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::Scene;

    #[test]
    fn starts_that_build_filters_for_long_are_told_with_the_package() {
        let mut scene = Scene::healthy();
        // A start by gVisor takes 150 ms.
        let stack = "runtime.main;main.main;gvisor.dev/gvisor/runsc/boot/filter.Install;gvisor.dev/gvisor/pkg/seccomp.BuildProgram";
        scene.look("gvisor", "sentry", stack, 30);
        let finding = scene.only_finding("seccomp_filters");
        assert!(finding.text.contains("sentry in gvisor.dev/gvisor/pkg/seccomp 30.0 ms"), "{}", finding.text);
    }
}
