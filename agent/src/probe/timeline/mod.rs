//! Timeline mode: each state change of what is in scope becomes a record, for cold starts, where the order matters.

mod block;
mod file;
mod kvm;
mod lock;
mod log;
mod memory;
mod net;
mod object;
mod pickup;
mod record;
mod ring;
mod sample;
mod sched;
mod scope;
mod syscall;
mod wakeup;

use super::{Definition, Error, Missing, interrupt, loader::Programs};
use anyhow::Context;
use aya::{
    include_bytes_aligned,
    maps::{PerCpuHashMap, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use log::Said;
use ring::Collector;
use sandscope_ebpf::{
    event::Kind,
    map::{LostKey, Membership},
};

pub use block::{device_name, error_code};
pub use file::FileSums;
pub use net::{DeviceCounts, DeviceProbe};
pub use object::text as object_text;
pub use pickup::Pickups;
pub use record::Record;
pub use ring::{Lost, Recording};
pub use sample::PERIOD_NS as SAMPLE_PERIOD_NS;
pub use syscall::name as syscall_name;

/// Built by `cargo xtask build-ebpf`; CI checks that it is what its source gives.
static OBJECT: &[u8] = include_bytes_aligned!("../../../bpf/timeline.o");

/// All probes, those first that others build on.
const PROBES: [&Definition; 13] = [
    &scope::PROBE,
    &sched::PROBE,
    &interrupt::PROBE,
    &wakeup::PROBE,
    &file::PROBE,
    &object::PROBE,
    &syscall::PROBE,
    &memory::PROBE,
    &kvm::PROBE,
    &lock::PROBE,
    &sample::PROBE,
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
    /// Of what stacks are recorded.
    pub stacks: Stacks,
}

/// Of what stacks are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Stacks {
    /// Of nothing
    Off,
    /// Where in the kernel a thread waits for longer than a moment
    Waits,
    /// That, and where in its own code it is each millisecond
    All,
}

impl Stacks {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waits => "waits",
            Self::All => "all",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_bytes: 16 << 20, syscalls: true, stacks: Stacks::Waits }
    }
}

/// The probes, loaded into the kernel.
pub struct Probes {
    programs: Programs,
    collector: Collector,
    taken: Lost,
    /// What the probe `memory` misses of a fault; not known before the probes were attached.
    untimed_fault_ns: Option<u64>,
}

impl Probes {
    /// Loads every probe that this kernel supports, and tries each once.
    ///
    /// # Errors
    /// When nothing could be recorded: no privilege, no type information, no tracefs, or a required probe fails.
    pub fn load(options: Options) -> Result<Self, Error> {
        let failed = |error: anyhow::Error| Error::Load(format!("{error:#}"));
        let is_wanted = |probe: &&Definition| match probe.name {
            // What is read and written is seen in system calls.
            name if [syscall::PROBE.name, file::PROBE.name, object::PROBE.name].contains(&name) => options.syscalls,
            name if name == lock::PROBE.name => options.stacks >= Stacks::Waits,
            name if name == sample::PROBE.name => options.stacks >= Stacks::All,
            _ => true,
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) = PROBES.into_iter().partition(is_wanted);
        let mut programs = Programs::load(OBJECT, &wanted, MAX_THREADS, |loader| {
            loader.map_max_entries("EVENTS", options.ring_bytes).map_max_entries("TASKS", u32::from(MAX_THREADS) + 1);
            if options.stacks == Stacks::Off {
                loader.override_global(wakeup::STACK_LEAST_NS.0, &0_u32, true);
            }
        })?;
        let turned_off = |probe: &Definition| Missing { probe: probe.name, program: None, reason: "turned off".into() };
        // Which stacks were asked for is a condition of the run, and nothing that it lacks.
        let is_of_stacks = |probe: &&Definition| [lock::PROBE.name, sample::PROBE.name].contains(&probe.name);
        programs.missing.extend(unwanted.into_iter().filter(|probe| !is_of_stacks(probe)).map(turned_off));
        if let Err(error) = net::load(&mut programs.ebpf) {
            let reason = format!("{error:#}");
            programs.missing.push(Missing { probe: net::PROBE.name, program: Some("frame"), reason });
        }
        let ring = programs.ebpf.take_map("EVENTS").context("the BPF object has no map EVENTS").map_err(failed)?;
        let ring = RingBuf::try_from(ring).map_err(|error| failed(error.into()))?;
        lose_to_nobody(&mut programs).map_err(failed)?;
        object::fill(&mut programs.ebpf).map_err(failed)?;
        let said = Said::of(&mut programs.ebpf);
        let collector = Collector::start(ring, said).map_err(failed)?;
        Ok(Self { programs, collector, taken: Lost::default(), untimed_fault_ns: None })
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
        self.programs.attach()?;
        if self.untimed_fault_ns.is_none() {
            self.untimed_fault_ns = Some(memory::untimed_ns(self)?);
        }
        Ok(())
    }

    /// Times some page faults from now on, as attached probes do at first, or only counts them: what times them makes every fault of the
    /// host dearer.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when the probes were loaded.
    pub fn time_faults(&mut self, timed: bool) -> anyhow::Result<()> {
        self.programs.set_attached(memory::TIMED.program, timed)
    }

    /// Whether they look where in its own code a thread is.
    pub fn takes_samples(&self) -> bool {
        self.programs.has(sample::PROGRAM)
    }

    /// Whether page faults are timed.
    pub fn times_faults(&self) -> bool {
        self.programs.is_attached(memory::TIMED.program)
    }

    /// Nanoseconds of a page fault that lie outside of what is timed of it; 0 before the probes were attached.
    pub fn untimed_fault_ns(&self) -> u64 {
        self.untimed_fault_ns.unwrap_or(0)
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
        let now = self.lost()?;
        let since = now.since(&self.taken);
        self.taken = now;
        self.collector.take(since)
    }

    /// What was lost since the programs were loaded.
    fn lost(&self) -> anyhow::Result<Lost> {
        let map = self.programs.ebpf.map("LOST").context("the BPF object has no map LOST")?;
        let per_cpu: PerCpuHashMap<_, LostKey, u64> = PerCpuHashMap::try_from(map)?;
        let mut lost = Lost { skipped_runs: self.programs.skipped_runs()?, ..Lost::default() };
        for entry in per_cpu.iter() {
            let (key, counts) = entry?;
            lost.records.insert((key.scope, key.kind), counts.iter().sum());
        }
        Ok(lost)
    }
}

/// Makes room for what is lost and finds no room in the map of what is lost.
fn lose_to_nobody(programs: &mut Programs) -> anyhow::Result<()> {
    let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("can't count the CPUs: {what}: {error}"))?;
    let map = programs.ebpf.map_mut("LOST").context("the BPF object has no map LOST")?;
    let mut lost: PerCpuHashMap<_, LostKey, u64> = PerCpuHashMap::try_from(map)?;
    for kind in Kind::ALL {
        let none = PerCpuValues::try_from(vec![0; cpus])?;
        lost.insert(LostKey { scope: 0, kind: kind as u16 }, none, 0)?;
    }
    Ok(())
}
