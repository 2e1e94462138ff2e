//! Virtual machines on KVM: every VMM that this host has with every guest that it can run. In the lab this is where Linux runs on
//! hardware-style KVM.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::explained::{Expected, GUEST, can_run, explain};

const FLOOR_PHASES: &[&str] = &["spawn", "vmm", "vm_setup", "boot", "response"];
const LINUX_PHASES: &[&str] =
    &["spawn", "vmm", "vm_setup", "boot", "kernel", "init", "application", "callback", "response"];

/// Three lives of a kind of machine. Little memory, so that a snapshot of it is small.
fn is_explained_and_leaves_nothing(test: &str, machine: &Expected) {
    if can_run(test, machine.kind) {
        explain(test, &[machine], "rust", 3, &["--memory", "160M"]);
    }
}

#[test]
fn qemu_floor_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "qemu-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] };
    is_explained_and_leaves_nothing("qemu_floor_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_floor_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "firecracker-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] };
    is_explained_and_leaves_nothing("firecracker_floor_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn qemu_linux_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "qemu-linux", phases: LINUX_PHASES, markers: &GUEST };
    is_explained_and_leaves_nothing("qemu_linux_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_linux_is_explained_and_leaves_nothing() {
    // Only Firecracker's kernel sees a boot timer.
    let markers = &[GUEST[0], GUEST[1], ("boot_timer", "vmm"), GUEST[2], GUEST[3], GUEST[4]];
    let machine = Expected { kind: "firecracker-linux", phases: LINUX_PHASES, markers };
    is_explained_and_leaves_nothing("firecracker_linux_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_restore_linux_is_explained_and_leaves_nothing() {
    let machine = Expected {
        kind: "firecracker-restore-linux",
        phases: &["spawn", "vmm", "restore", "response"],
        markers: &[("restored", "vmm"), ("first_response", "client")],
    };
    is_explained_and_leaves_nothing("firecracker_restore_linux_is_explained_and_leaves_nothing", &machine);
}
