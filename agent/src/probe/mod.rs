//! User-space halves of the probes: one file per probe, named like its BPF half in `agent-ebpf/src`.
//!
//! A probe is a [`Definition`]: which programs go where, and which facts of the running kernel they need. [`Probes`] loads
//! all that this kernel supports, once, and attaches and detaches them as the experiment asks. What the kernel lacks is a
//! [`Missing`] with its reason; only the probes that nothing works without are required.

mod block;
mod kvm;
mod loader;
mod memory;
mod net;
mod record;
mod ring;
mod sched;
mod scope;
mod syscall;
mod wakeup;

use crate::host::{btf::KernelTypes, tracefs::Tracefs};

pub use block::device_name;
pub use kvm::ExitReasons;
pub use kvm::userspace_exit_name;
pub use loader::{Error, Missing, Options, Probes};
pub use net::{DeviceCounts, DeviceProbe};
pub use record::Record;
pub use ring::Recording;
pub use syscall::name as syscall_name;

/// All probes, those first that others build on.
const PROBES: [&Definition; 8] = [
    &scope::PROBE,
    &sched::PROBE,
    &wakeup::PROBE,
    &syscall::PROBE,
    &memory::PROBE,
    &kvm::PROBE,
    &block::PROBE,
    &net::PROBE,
];

/// One probe.
struct Definition {
    /// Name of the module, here and in the BPF crate.
    name: &'static str,
    /// Whether recording is pointless without it.
    required: bool,
    /// Where its programs go.
    hooks: fn(&Kernel<'_>) -> &'static [Hook],
    /// Values of its `Global`s on this kernel.
    globals: fn(&Kernel<'_>) -> anyhow::Result<Vec<Global>>,
}

/// A program and the event that it belongs to.
struct Hook {
    program: &'static str,
    event: Event,
}

/// What makes a program run.
#[derive(Clone, Copy)]
enum Event {
    /// A raw tracepoint, by name.
    Raw(&'static str),
    /// A classic tracepoint, by category and name.
    Classic(&'static str, &'static str),
    /// The software event of every page fault.
    PageFaults,
}

/// Name and value of a `Global` of the BPF programs.
type Global = (&'static str, u32);

/// What the running kernel tells about itself.
struct Kernel<'a> {
    types: &'a KernelTypes,
    tracefs: &'a Tracefs,
}

impl Kernel<'_> {
    /// Offsets of fields in a tracepoint's record, each with the name of the `Global` that takes it.
    fn fields(&self, category: &str, name: &str, fields: &[(&'static str, &str)]) -> anyhow::Result<Vec<Global>> {
        let format = self.tracefs.format(category, name)?;
        fields.iter().map(|&(global, field)| Ok((global, format.offset(field)?))).collect()
    }
}
