//! Nanos: one Linux program on a unikernel. Its image is a disk with a boot loader, the kernel, the program and a manifest; the
//! manifest alone decides addresses and arguments, so they are the same for all instances, and it can't know whom to call back.
//! Built with the project's own tools: `docs/sandboxes.md`.

use super::{
    super::{
        super::network::Addresses,
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready, WORKLOAD_LISTENS,
};
use std::net::Ipv4Addr;

/// See above.
pub const NANOS: Guest = Guest {
    name: "nanos",
    about: "a Nanos unikernel: one Linux program, its addresses in its image",
    kernel: Kernel::Image(Need::Optional),
    initrd: Need::None,
    drive: Need::Required,
    data: Need::None,
    holds_workload: false,
    remedy: "build it with the project's tools (docs/sandboxes.md)",
    command_line: None,
    memory_bytes: 128 << 20,
    least_memory_bytes: 64 << 20,
    initrd_copies: 0,
    network: true,
    addresses: Some(Addresses {
        host: Ipv4Addr::new(10, 214, 0, 1),
        sandbox: Ipv4Addr::new(10, 214, 0, 2),
        prefix_length: 30,
    }),
    ready: Ready::Says(WORKLOAD_LISTENS),
    milestones: &[("guest_main", "en1: assigned")],
    last_words: &["assertion", "*** fatal", "frame trace:"],
    is_kernel: true,
    qemu: &[
        Board { model: Model::Q35, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Drive },
        Board {
            model: Model::Microvm,
            options: "x-option-roms=off,isa-serial=on,rtc=on,ioapic2=off",
            arguments: &["-global", "virtio-mmio.force-legacy=false"],
            bus: Bus::Mmio,
            boot: Boot::Kernel,
        },
    ],
    firecracker: firecracker::Board { takes_kept: true, words: "", silence: "", boot_timer: None },
};
