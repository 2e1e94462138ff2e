//! Timeline mode: each state change of what is in scope becomes a record, for cold starts, where the order matters.

mod block;
mod file;
mod kvm;
mod memory;
mod net;
mod pickup;
mod record;
mod ring;
mod sched;
mod scope;
mod syscall;
mod wakeup;

use super::{Definition, Error, Missing, interrupt, loader::Programs};
use anyhow::Context;
use aya::{
    include_bytes_aligned,
    maps::{PerCpuArray, RingBuf},
};
use ring::Collector;
use sandscope_ebpf::map::{Counters, Membership};

pub use block::{device_name, error_code};
pub use file::FileSums;
pub use net::{DeviceCounts, DeviceProbe};
pub use pickup::Pickups;
pub use record::Record;
pub use ring::Recording;
pub use syscall::name as syscall_name;

/// Built by `cargo xtask build-ebpf`; CI checks that it is what its source gives.
static OBJECT: &[u8] = include_bytes_aligned!("../../../bpf/timeline.o");

/// All probes, those first that others build on.
const PROBES: [&Definition; 10] = [
    &scope::PROBE,
    &sched::PROBE,
    &interrupt::PROBE,
    &wakeup::PROBE,
    &file::PROBE,
    &syscall::PROBE,
    &memory::PROBE,
    &kvm::PROBE,
    &block::PROBE,
    &net::PROBE,
];

/// Threads that can be in scope at once.
const MAX_THREADS: u16 = 16_384;

/// How to record.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Size of the ring buffer; a power of two, at least a page.
    pub ring_bytes: u32,
    /// Whether system calls are recorded (they split a thread's time into user and kernel).
    pub syscalls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_bytes: 16 << 20, syscalls: true }
    }
}

/// The probes, loaded into the kernel.
pub struct Probes {
    programs: Programs,
    collector: Collector,
    taken: Counters,
}

impl Probes {
    /// Loads every probe that this kernel supports, and tries each once.
    ///
    /// # Errors
    /// When nothing could be recorded: no privilege, no type information, no tracefs, or a required probe fails.
    pub fn load(options: Options) -> Result<Self, Error> {
        let failed = |error: anyhow::Error| Error::Load(format!("{error:#}"));
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            // What is read and written is seen in system calls.
            PROBES.into_iter().partition(|probe| {
                options.syscalls || ![syscall::PROBE.name, file::PROBE.name].contains(&probe.name)
            });
        let mut programs = Programs::load(OBJECT, &wanted, MAX_THREADS, |loader| {
            loader.map_max_entries("EVENTS", options.ring_bytes).map_max_entries("TASKS", u32::from(MAX_THREADS) + 1);
        })?;
        let turned_off = |probe: &Definition| Missing { probe: probe.name, program: None, reason: "turned off".into() };
        programs.missing.extend(unwanted.into_iter().map(turned_off));
        if let Err(error) = net::load(&mut programs.ebpf) {
            let reason = format!("{error:#}");
            programs.missing.push(Missing { probe: net::PROBE.name, program: Some("frame"), reason });
        }
        let ring = programs.ebpf.take_map("EVENTS").context("the BPF object has no map EVENTS").map_err(failed)?;
        let ring = RingBuf::try_from(ring).map_err(|error| failed(error.into()))?;
        let collector = Collector::start(ring).map_err(failed)?;
        Ok(Self { programs, collector, taken: Counters::default() })
    }

    /// What this kernel can't do.
    pub fn missing(&self) -> &[Missing] {
        &self.programs.missing
    }

    /// Each probe with what is missing of it.
    pub fn by_probe(&self) -> Vec<(&'static str, Vec<String>)> {
        self.programs.by_probe(&PROBES)
    }

    /// Makes the probes see everything in scope.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when the probes were loaded.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        self.programs.attach()
    }

    /// Takes the probes away: the kernel runs as if they did not exist.
    pub fn detach(&mut self) {
        self.programs.detach();
    }

    /// Says what a thread is from now on.
    pub fn mark(&self, tid: u32, membership: Membership) {
        self.programs.mark(tid, membership);
    }

    /// Bytes of records that wait to be taken, about.
    pub fn kept_bytes(&self) -> usize {
        self.collector.kept_bytes()
    }

    /// Everything recorded since the last call.
    ///
    /// # Errors
    /// When the kernel refuses to give the counters or the records make no sense.
    pub fn take(&mut self) -> anyhow::Result<Recording> {
        let now = self.counters()?;
        let mut since = now;
        for (value, before) in since.seen.iter_mut().zip(self.taken.seen) {
            *value -= before;
        }
        for (value, before) in since.lost.iter_mut().zip(self.taken.lost) {
            *value -= before;
        }
        self.taken = now;
        self.collector.take(since)
    }

    fn counters(&self) -> anyhow::Result<Counters> {
        let map = self.programs.ebpf.map("COUNTERS").context("the BPF object has no map COUNTERS")?;
        let per_cpu: PerCpuArray<_, Counters> = PerCpuArray::try_from(map)?;
        let mut total = Counters::default();
        for cpu in per_cpu.get(&0, 0)?.iter() {
            for (sum, value) in total.seen.iter_mut().zip(cpu.seen) {
                *sum += value;
            }
            for (sum, value) in total.lost.iter_mut().zip(cpu.lost) {
                *sum += value;
            }
        }
        Ok(total)
    }
}
