//! Firecracker whose guest does not do well, and what is particular about its machines. That its guests live is shown in
//! `machines.rs`.
//!
//! Needs root and a Firecracker; without one it is skipped aloud.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::bench::{Bench, await_ready, fails, floor_that_begins_with, kind, virtual_machine};
use sandscope::{
    host::virtualization,
    sandbox::{
        Sandbox as _,
        vm::{
            Vm,
            firecracker::{Firecracker, Mode},
        },
    },
    testing::skip,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How long evidence may go unreported, beyond what a start takes on a busy host.
const LIMIT: Duration = Duration::from_secs(3);

/// Firecracker with the floor, or a reported skip.
fn floor(test: &str) -> Option<Vm<Firecracker>> {
    match kind("firecracker-floor") {
        Ok(_) => Some(virtual_machine(Firecracker::by(Mode::Boot), "floor", "rust")),
        Err(reason) => {
            skip(test, "firecracker-floor", reason);
            None
        }
    }
}

#[test]
fn a_triple_fault_is_an_end_that_is_named() {
    const TEST: &str = "a_triple_fault_is_an_end_that_is_named";
    let Some(machine) = floor(TEST) else { return };
    let bench = Bench::new();
    // ud2, without a table of interrupts.
    let machine = floor_that_begins_with(&bench, &machine, &[0x0f, 0x0b]);
    let began = Instant::now();
    let (failure, _) = fails(&bench, "triple", &machine, None);
    println!("told after {:?}: {failure}", began.elapsed());
    assert!(failure.contains("firecracker ended with exit status") && failure.contains("Its VMM says"), "{failure}");
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn a_guest_that_kvm_can_not_go_on_with_is_named_at_once() {
    const TEST: &str = "a_guest_that_kvm_can_not_go_on_with_is_named_at_once";
    if virtualization::hardware().is_ok() {
        return skip(TEST, "kvm-interpreter", "this KVM runs every instruction on the CPU");
    }
    let Some(machine) = floor(TEST) else { return };
    let bench = Bench::new();
    // fld1, which a KVM that interprets kernels does not know.
    let machine = floor_that_begins_with(&bench, &machine, &[0xd9, 0xe8]);
    let began = Instant::now();
    let (failure, _) = fails(&bench, "internal", &machine, None);
    println!("told after {:?}: {failure}", began.elapsed());
    assert!(failure.contains("Its VMM says") && failure.contains("KVM_EXIT_INTERNAL_ERROR"), "{failure}");
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn a_firecracker_that_can_not_start_is_quoted() {
    const TEST: &str = "a_firecracker_that_can_not_start_is_quoted";
    let Some(mut machine) = floor(TEST) else { return };
    let bench = Bench::new();
    machine.vmm.arguments = vec!["--no-such-option".into()];
    let (failure, _) = fails(&bench, "option", &machine, None);
    assert!(failure.contains("exit status: 153") && failure.contains("no-such-option"), "{failure}");
}

#[test]
fn the_conditions_say_how_the_guest_came_to_life() {
    const TEST: &str = "the_conditions_say_how_the_guest_came_to_life";
    let Some(machine) = floor(TEST) else { return };
    let bench = Bench::new();
    let mut specification = bench.specification("two", Path::new("/unused"));
    specification.resources.memory_bytes = Some(80 << 20);
    specification.resources.vcpus = Some(2);
    let mut instance = machine.prepare(&specification).unwrap();
    let conditions = instance.conditions();
    for (name, value) in [("start", "boot"), ("memory", "80M"), ("vcpus", "2"), ("accelerator", "kvm")] {
        assert_eq!(conditions[name], value, "{conditions:?}");
    }
    instance.launch().unwrap();
    await_ready(&bench.callback, "two", &mut *instance);
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("two"), [""; 0]);
}

#[test]
fn a_guest_that_does_not_get_ready_has_no_snapshot_and_leaves_nothing() {
    const TEST: &str = "a_guest_that_does_not_get_ready_has_no_snapshot_and_leaves_nothing";
    if let Err(reason) = kind("firecracker-restore-linux") {
        return skip(TEST, "firecracker-restore-linux", reason);
    }
    let bench = Bench::new();
    let machine = virtual_machine(Firecracker::by(Mode::Restore), "linux", "rust");
    let pattern = machine.guest.command_line.unwrap();
    let machine = Vm { command_line: Some(format!("rdinit=/nowhere root=/dev/none {pattern}")), ..machine };
    let error = machine.prepare(&bench.specification("panics", Path::new("/unused"))).err().unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("does not get ready") && error.contains("Kernel panic"), "{error}");
    assert_eq!(bench.leftovers("panics"), [""; 0]);
}
