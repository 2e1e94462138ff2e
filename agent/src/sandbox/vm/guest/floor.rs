//! The freestanding guest of `kvm-floor`, so that every VMM has a guest whose right answers are known: `docs/kvm-floor.md`.

use super::{
    super::{
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready,
};

/// Milestone of the console that follows everything the guest was told to do.
const DONE: &str = "guest_done";

/// See above.
pub const FLOOR: Guest = Guest {
    name: "floor",
    about: "the guest of kvm-floor, a few instructions: the floor for this VMM",
    kernel: Kernel::OfFloor,
    initrd: Need::None,
    drive: Need::None,
    data: Need::None,
    holds_workload: false,
    remedy: "`cargo build` makes it beside sandscope",
    command_line: Some("stay=1"),
    memory_bytes: 64 << 20,
    least_memory_bytes: 4 << 20,
    initrd_copies: 0,
    network: false,
    addresses: None,
    ready: Ready::Done(DONE),
    milestones: &[(DONE, "sandscope floor: done")],
    last_words: &[],
    is_kernel: false,
    // Nothing but memory, a vCPU with its LAPIC, and the serial line.
    qemu: &[Board {
        model: Model::Microvm,
        options: "x-option-roms=off,isa-serial=on,pit=off,pic=off,rtc=off",
        arguments: &[],
        bus: Bus::Mmio,
        boot: Boot::Kernel,
    }],
    firecracker: firecracker::Board { takes_kept: true, words: "", silence: "", boot_timer: None },
};
