//! Guests: what each needs to boot, how it is told its addresses, and what it says on its way. Data, one file each.

mod floor;
mod hermit;
mod linux;
mod nanos;
mod osv;
mod unikraft;

use super::{super::network::Addresses, firecracker, qemu};
use serde::{Deserialize as _, Deserializer, de::Error as _};

/// All guests.
pub const ALL: [&Guest; 6] =
    [&floor::FLOOR, &linux::LINUX, &nanos::NANOS, &osv::OSV, &unikraft::UNIKRAFT, &hermit::HERMIT];

/// Their names.
pub const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut number = 0;
    while number < ALL.len() {
        names[number] = ALL[number].name;
        number += 1;
    }
    names
};

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// Its name.
    pub name: &'static str,
    /// One line on what it is.
    pub about: &'static str,
    /// Where its kernel comes from.
    pub kernel: Kernel,
    /// Whether it needs an initial RAM disk, or what the boot protocol calls so.
    pub initrd: Need,
    /// Whether it needs a drive.
    pub drive: Need,
    /// Whether it takes a disk with the file that the workload serves.
    pub data: Need,
    /// Whether the images that are kept for it hold the workload as `cargo xtask workloads` built it.
    pub holds_workload: bool,
    /// What a person can do when an image is missing.
    pub remedy: &'static str,
    /// Words for its kernel, with the places that `command_line.rs` lists; `None`: it takes none.
    pub command_line: Option<&'static str>,
    /// Memory that it gets unless somebody decides.
    pub memory_bytes: u64,
    /// With less it does not get to its program; besides what its initial RAM disk takes.
    pub least_memory_bytes: u64,
    /// How often its memory must hold its initial RAM disk.
    pub initrd_copies: u64,
    /// Whether it has a network.
    pub network: bool,
    /// Addresses that are built into its image, since it has no other way to know them.
    pub addresses: Option<Addresses>,
    /// How it tells that it is ready.
    pub ready: Ready,
    /// Lines of its console that end a phase: marker, and text that the line contains.
    pub milestones: &'static [(&'static str, &'static str)],
    /// Texts of lines after which it does not go on.
    pub last_words: &'static [&'static str],
    /// Whether it runs ordinary kernel code in ring 0, which a KVM without hardware virtualisation interprets.
    pub is_kernel: bool,
    /// Machines of QEMU that it boots on, the best first.
    pub qemu: &'static [qemu::Board],
    /// What it needs in Firecracker.
    pub firecracker: firecracker::Board,
}

/// Where the kernel of a guest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The program of the floor writes it.
    OfFloor,
    /// An image.
    Image(Need),
}

/// Whether a guest needs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It can't do without.
    Required,
    /// It can boot with it or without.
    Optional,
    /// It has no use for it.
    None,
}

/// What a workload prints when its socket listens (workloads/README.md).
pub const WORKLOAD_LISTENS: &str = "listening on";

/// How a guest tells that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The workload in it calls back when it listens.
    Workload,
    /// Its image can't know whom to call back: a line of its console with this text says that the workload in it listens.
    Says(&'static str),
    /// Its first byte on the console is its response; the recording goes on until this milestone.
    Done(&'static str),
}

/// The guest of a name in a definition.
pub(super) fn by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Guest, D::Error> {
    let name = String::deserialize(deserializer)?;
    let found = ALL.into_iter().find(|guest| guest.name == name);
    found.ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
}
