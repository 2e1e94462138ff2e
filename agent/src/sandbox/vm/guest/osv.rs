//! OSv: one position-independent Linux program on a unikernel, in a read-only file system on a disk. Built with the project's own
//! tools: `docs/sandboxes.md`.

use super::{
    super::{
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready,
};

/// See above.
pub const OSV: Guest = Guest {
    name: "osv",
    about: "an OSv unikernel: one position-independent Linux program",
    kernel: Kernel::Image(Need::Required),
    initrd: Need::None,
    drive: Need::Required,
    data: Need::None,
    holds_workload: false,
    remedy: "build it with the project's tools (docs/sandboxes.md)",
    command_line: Some("--rootfs=rofs --ip=eth0,%ip,%netmask --defaultgw=%gateway --nameserver=%gateway /app %app"),
    memory_bytes: 256 << 20,
    least_memory_bytes: 128 << 20,
    initrd_copies: 0,
    network: true,
    addresses: None,
    ready: Ready::Workload,
    milestones: &[("guest_main", "Booted up in")],
    last_words: &["Assertion failed", "Aborted", "[backtrace]", "page fault outside application"],
    is_kernel: true,
    qemu: &[
        Board { model: Model::Pc, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel },
        Board { model: Model::Q35, options: "sata=off", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel },
    ],
    firecracker: firecracker::Board { takes_kept: true, words: "--nopci", silence: "", boot_timer: None },
};
