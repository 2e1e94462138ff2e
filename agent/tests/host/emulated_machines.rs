//! Linux with each workload in a virtual machine without KVM, which every host can run.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::explained::{Expected, GUEST, can_run, explain};

/// Without KVM there is no VM to be created, and no vCPU to enter it.
const BY_EMULATION: Expected = Expected {
    kind: "qemu-tcg-linux",
    phases: &["spawn", "boot", "kernel", "init", "application", "callback", "response"],
    markers: &GUEST,
};

#[test]
fn emulated_machines_with_each_workload_are_explained_and_leave_nothing() {
    const TEST: &str = "emulated_machines_with_each_workload_are_explained_and_leave_nothing";
    if !can_run(TEST, BY_EMULATION.kind) {
        return;
    }
    for (workload, lives) in [("rust", 3), ("go", 3), ("node", 1), ("python", 1)] {
        explain(TEST, &[&BY_EMULATION], workload, lives, &[]);
    }
}
