//! Programs of a start initialise their runtime and packages, which each execution of them pays again.

use crate::diagnose::code::{CodeRule, package};

/// Functions of Go's runtime that run the initialisation of packages (`runtime/proc.go`; the second from Go 1.21 on).
const PACKAGES: [&str; 2] = ["runtime.doInit", "runtime.doInit1"];
/// Those that set the runtime itself up.
const RUNTIME: [&str; 3] = ["runtime.schedinit", "runtime.rt0_go", "runtime.rt0_go.abi0"];

pub(super) const INITIALISATION: CodeRule = CodeRule {
    name: "initialisation",
    about: "Starts in which programs initialise their runtime and packages for 10 % of the time or more.",
    does: "initialises runtimes and packages",
    part: initialised,
    why: "A program does so before its first own line, and again each time that it is executed.",
    next_step: "Packages that prepare what they need when it is first needed, fewer executions per start, or a program without these \
                packages. The table `samples` has the functions.",
};

/// The package that a stack initialises.
fn initialised(stack: &str) -> Option<String> {
    let mut functions = stack.split(';');
    let found = functions.find(|function| PACKAGES.contains(function) || RUNTIME.contains(function))?;
    if RUNTIME.contains(&found) {
        return Some("the Go runtime".to_owned());
    }
    let own = functions.find(|function| !PACKAGES.contains(function)).unwrap_or(found);
    // Some programs do their work there (`runc init`).
    Some(package(own)).filter(|package| *package != "main").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::initialised;
    use crate::diagnose::testing::Scene;

    #[test]
    fn the_package_is_that_of_the_function_that_is_called_to_initialise() {
        let stack = "runtime.goexit;runtime.main;runtime.doInit1;regexp/syntax.init;regexp/syntax.map.init.0";
        assert_eq!(initialised(stack).as_deref(), Some("regexp/syntax"));
        assert_eq!(
            initialised("runtime.rt0_go;runtime.schedinit;runtime.mallocinit").as_deref(),
            Some("the Go runtime")
        );
        assert_eq!(initialised("runtime.goexit;runtime.main;main.main;main.initialise"), None);
        assert_eq!(initialised("runtime.main;runtime.doInit;main.init.0;libcontainer.StartInitialization"), None);
    }

    #[test]
    fn starts_that_initialise_for_long_are_told_with_the_packages() {
        let mut scene = Scene::healthy();
        // A start by runc takes 25 ms.
        scene.look("runc", "runtime", "runtime.main;runtime.doInit1;regexp/syntax.init", 4);
        scene.look("runc", "runtime", "runtime.main;main.main;main.run", 9);
        let finding = scene.only_finding("initialisation");
        assert!(
            finding.text.starts_with("For 15.6 % of a start (4.00 ms, by 48 looks at 12 starts) it"),
            "{}",
            finding.text
        );
        assert!(finding.text.contains("runtime in regexp/syntax 4.00 ms"), "{}", finding.text);
    }
}
