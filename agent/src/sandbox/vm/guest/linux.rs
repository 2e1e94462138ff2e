//! Linux: a distribution's kernel with an initial RAM disk that holds an init of our own and one workload. Both are made by
//! `cargo xtask images`.

use super::{
    super::{
        firecracker,
        qemu::{Board, Boot, Bus, Model},
    },
    Guest, Kernel, Need, Ready,
};

/// See above.
pub const LINUX: Guest = Guest {
    name: "linux",
    about: "a distribution's Linux kernel, an init of our own, and the workload in memory; the file it serves is on a disk",
    kernel: Kernel::Image(Need::Required),
    initrd: Need::Required,
    drive: Need::None,
    data: Need::Optional,
    holds_workload: true,
    remedy: "`cargo xtask images` builds it",
    // What init needs stands behind `--`, where the kernel leaves it alone. `quiet`: each byte of the console costs an exit.
    // A panic and the end of the workload reset the machine, which every VMM takes for its end. Without IPv6 the first frame
    // is the workload's.
    command_line: Some(
        "console=ttyS0 quiet panic=-1 ipv6.disable=1 tsc=reliable tsc_early_khz=%tsc random.trust_cpu=on \
         -- %ip/%prefix %gateway %app",
    ),
    memory_bytes: 512 << 20,
    least_memory_bytes: 96 << 20,
    // As it was loaded, and unpacked into a file system that takes half of the memory.
    initrd_copies: 3,
    network: true,
    addresses: None,
    ready: Ready::Workload,
    milestones: &[("guest_init", "sandscope init: up"), ("guest_app", "sandscope init: starts ")],
    last_words: &["Kernel panic - not syncing", "sandscope init: the workload ended", "sandscope init: gives up"],
    is_kernel: true,
    qemu: &[
        Board {
            model: Model::Microvm,
            options: "x-option-roms=off,isa-serial=on,rtc=on",
            arguments: &["-global", "virtio-mmio.force-legacy=false"],
            bus: Bus::Mmio,
            boot: Boot::Kernel,
        },
        Board { model: Model::Q35, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel },
        Board { model: Model::Pc, options: "", arguments: &[], bus: Bus::Pci, boot: Boot::Kernel },
    ],
    firecracker: firecracker::Board {
        takes_kept: true,
        words: "reboot=k",
        silence: "8250.nr_uarts=0",
        // Its init writes there.
        boot_timer: Some("boot_timer="),
    },
};
