//! Virtual machines on KVM: every VMM that this host has with every guest that it can run. In the lab this is where Linux runs on
//! hardware-style KVM.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::explained::{Expected, GUEST, can_run, explain};

const FLOOR_PHASES: &[&str] = &["spawn", "vmm", "vm_setup", "boot", "response"];
/// Those with KVM. Only Firecracker's kernel sees a boot timer.
const BY_KVM: [Expected; 5] = [
    Expected { kind: "qemu-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] },
    Expected { kind: "firecracker-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] },
    Expected { kind: "qemu-linux", phases: LINUX_PHASES, markers: &GUEST },
    Expected {
        kind: "firecracker-linux",
        phases: LINUX_PHASES,
        markers: &[GUEST[0], GUEST[1], ("boot_timer", "vmm"), GUEST[2], GUEST[3], GUEST[4]],
    },
    Expected {
        kind: "firecracker-restore-linux",
        phases: &["spawn", "vmm", "restore", "response"],
        markers: &[("restored", "vmm"), ("first_response", "client")],
    },
];
const LINUX_PHASES: &[&str] =
    &["spawn", "vmm", "vm_setup", "boot", "kernel", "init", "application", "callback", "response"];

#[test]
fn machines_on_kvm_are_explained_and_leave_nothing() {
    const TEST: &str = "machines_on_kvm_are_explained_and_leave_nothing";
    let machines: Vec<_> = BY_KVM.iter().filter(|machine| can_run(TEST, machine.kind)).collect();
    // Little, so that a snapshot of it is small.
    explain(TEST, &machines, "rust", 3, &["--memory", "160M"]);
}
