//! User-space halves of the probes: a folder per mode and in it one file per probe, named like its BPF half in `agent-ebpf/src`.
//!
//! A probe is a `Definition`: which programs go where, and which facts of the running kernel they need. [`Probes`] loads
//! all that this kernel supports, once, and attaches and detaches them as the experiment asks. What the kernel lacks is a
//! [`Missing`] with its reason; only the probes that nothing works without are required.

mod aggregate;
mod distribution;
mod exits;
mod interrupt;
mod loader;
mod mapped;
mod scope;
mod timeline;

use crate::host::{btf::KernelTypes, tracefs::Tracefs};
use aya::programs::perf_event::SoftwareEvent;

pub use aggregate::{Aggregate, Ended, Followed, Limits, Snapshot, add_thread};
pub use distribution::Distribution;
pub use exits::{ExitReasons, userspace_exit_name};
pub use loader::{Error, Missing};
pub use timeline::{
    DeviceCounts, DeviceProbe, FileSums, Lost, Options, Pickups, Probes, Record, Recording, SAMPLE_PERIOD_NS, Stacks,
    device_name, error_code, object_text, syscall_name,
};

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
#[derive(Clone, Copy)]
struct Hook {
    program: &'static str,
    event: Event,
}

/// What makes a program run.
#[derive(Clone, Copy)]
enum Event {
    /// A raw tracepoint, by name.
    Raw(&'static str),
    /// A raw tracepoint whose arguments the program reads as the structures that they are, by name; and the program for the raw
    /// tracepoint that takes its place where the kernel refuses that.
    Typed(&'static str, &'static str),
    /// A classic tracepoint, by category and name.
    Classic(&'static str, &'static str),
    /// A software event of the kernel, each time it has happened so often on a CPU.
    Software(SoftwareEvent, u64),
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
