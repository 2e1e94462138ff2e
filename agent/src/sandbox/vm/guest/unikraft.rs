//! Unikraft: the application linked with a library of kernel parts into one multiboot image. Built with the project's own tools:
//! `docs/sandboxes.md`.

use super::{
    super::{
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready,
};

/// See above.
pub const UNIKRAFT: Guest = Guest {
    name: "unikraft",
    about: "a Unikraft unikernel: the application and parts of a kernel in one image",
    kernel: Kernel::Image(Need::Required),
    initrd: Need::Optional,
    drive: Need::None,
    data: Need::None,
    holds_workload: false,
    remedy: "build it with the project's tools (docs/sandboxes.md)",
    command_line: Some("netdev.ip=%ip/%prefix:%gateway -- %app"),
    memory_bytes: 128 << 20,
    least_memory_bytes: 32 << 20,
    initrd_copies: 2,
    network: true,
    addresses: None,
    ready: Ready::Workload,
    milestones: &[("guest_main", "Calling main(")],
    last_words: &["CRIT:", "Unikraft crash", "main returned"],
    is_kernel: true,
    // It is loaded by multiboot, for which the machine needs its firmware.
    qemu: &[Board { model: Model::Pc, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel }],
    firecracker: firecracker::Board { takes_kept: false, words: "", silence: "", boot_timer: None },
};
