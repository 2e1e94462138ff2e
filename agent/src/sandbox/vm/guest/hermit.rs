//! Hermit: a program in Rust linked with its kernel, started by a loader that takes it for an initial RAM disk. Built with the
//! project's own tools: `docs/sandboxes.md`.

use super::{
    super::{
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready,
};

/// See above.
pub const HERMIT: Guest = Guest {
    name: "hermit",
    about: "a Hermit unikernel: a program in Rust and its kernel, by the project's loader",
    kernel: Kernel::Image(Need::Required),
    initrd: Need::Required,
    drive: Need::None,
    data: Need::None,
    holds_workload: false,
    remedy: "build it with the project's tools (docs/sandboxes.md)",
    command_line: Some("-ip %ip -mask %netmask -gateway %gateway -- %app"),
    memory_bytes: 256 << 20,
    least_memory_bytes: 64 << 20,
    initrd_copies: 2,
    network: true,
    addresses: None,
    ready: Ready::Workload,
    milestones: &[("guest_main", "Jumping into application")],
    last_words: &["[PANIC]", "panicked at"],
    is_kernel: true,
    qemu: &[Board { model: Model::Q35, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel }],
    firecracker: firecracker::Board { takes_kept: false, words: "", silence: "", boot_timer: None },
};
