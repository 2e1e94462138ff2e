//! Loads the BPF object into the running kernel, and attaches and detaches what it can.

use super::{
    Definition, Event, Hook, Kernel, PROBES,
    ring::{Collector, Recording},
    scope::{self, ScopeTable},
};
use crate::host::{btf::KernelTypes, tracefs};
use anyhow::Context;
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{PerCpuArray, RingBuf},
    programs::{
        PerfEvent, ProgramError, RawTracePoint, TracePoint,
        perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
        raw_trace_point::RawTracePointLink,
        trace_point::TracePointLink,
    },
    util::online_cpus,
};
use sandscope_ebpf::map::{Counters, Membership};
use std::fmt::{self, Display, Formatter};

/// Built by `cargo xtask build-ebpf`; CI checks that it is what its source gives.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/probes.o");

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

/// Why nothing can be recorded on this host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A probe without which the others mean nothing.
    #[error("the probe `{probe}` does not work on this host: {reason}")]
    Required {
        /// Its name.
        probe: &'static str,
        /// Why.
        reason: String,
    },
    /// The object as a whole, or the host.
    #[error("BPF programs can't be loaded: {0}")]
    Load(String),
}

/// Something that this kernel can't do, and the rest goes on without.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Probe that lacks it.
    pub probe: &'static str,
    /// Program that is not attached; `None`: the whole probe.
    pub program: Option<&'static str>,
    /// Why.
    pub reason: String,
}

impl Display for Missing {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self.program {
            Some(program) => write!(out, "{}/{program}", self.probe),
            None => write!(out, "{}", self.probe),
        }
    }
}

/// The probes, loaded into the kernel.
pub struct Probes {
    ebpf: Ebpf,
    scopes: ScopeTable,
    collector: Collector,
    hooks: Vec<(&'static Definition, &'static Hook)>,
    missing: Vec<Missing>,
    taken: Counters,
    links: Vec<Link>,
}

impl Probes {
    /// Loads every probe that this kernel supports, and tries each once.
    ///
    /// # Errors
    /// When nothing could be recorded: no privilege, no type information, no tracefs, or a required probe fails.
    pub fn load(options: Options) -> Result<Self, Error> {
        tracefs::with_tracefs(|tracefs| Self::load_with(options, tracefs))
            .map_err(|error| Error::Load(error.to_string()))?
    }

    fn load_with(options: Options, tracefs: &tracefs::Tracefs) -> Result<Self, Error> {
        let failed = |error: anyhow::Error| Error::Load(format!("{error:#}"));
        let types = KernelTypes::of_running_kernel().map_err(|error| Error::Load(error.to_string()))?;
        let kernel = Kernel { types: &types, tracefs };
        let mut missing = Vec::new();
        let mut globals = Vec::new();
        let mut hooks = Vec::new();
        for probe in PROBES {
            if probe.name == "syscall" && !options.syscalls {
                missing.push(Missing { probe: probe.name, program: None, reason: "turned off".to_owned() });
                continue;
            }
            match (probe.globals)(&kernel) {
                Ok(values) => {
                    globals.extend(values);
                    hooks.extend((probe.hooks)(&kernel).iter().map(|hook| (probe, hook)));
                }
                Err(error) if probe.required => {
                    return Err(Error::Required { probe: probe.name, reason: format!("{error:#}") });
                }
                Err(error) => {
                    missing.push(Missing { probe: probe.name, program: None, reason: format!("{error:#}") });
                }
            }
        }
        let chunks = scope::chunks().map_err(failed)?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("EVENTS", options.ring_bytes).map_max_entries("SCOPE_OF", chunks);
        for (name, value) in &globals {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| failed(error.into()))?;
        let scopes = scope_table(&ebpf, chunks).map_err(failed)?;
        let ring = ebpf.take_map("EVENTS").context("the BPF object has no map EVENTS").map_err(failed)?;
        let ring = RingBuf::try_from(ring).map_err(|error| failed(error.into()))?;
        let collector = Collector::start(ring).map_err(failed)?;
        super::net::load(&mut ebpf).map_err(failed)?;
        for &(_, hook) in &hooks {
            load_program(&mut ebpf, hook).map_err(failed)?;
        }
        let mut probes =
            Self { ebpf, scopes, collector, hooks, missing, taken: Counters::default(), links: Vec::new() };
        probes.try_each_hook()?;
        Ok(probes)
    }

    /// Attaches each program once, to learn which events this kernel really has.
    fn try_each_hook(&mut self) -> Result<(), Error> {
        for (probe, hook) in std::mem::take(&mut self.hooks) {
            match attach(&mut self.ebpf, hook) {
                Ok(_dropped) => self.hooks.push((probe, hook)),
                Err(error) if probe.required => {
                    return Err(Error::Required { probe: probe.name, reason: format!("{error:#}") });
                }
                Err(error) => self.missing.push(Missing {
                    probe: probe.name,
                    program: Some(hook.program),
                    reason: format!("{error:#}"),
                }),
            }
        }
        Ok(())
    }

    /// What this kernel can't do.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Each probe with what is missing of it.
    pub fn by_probe(&self) -> Vec<(&'static str, Vec<String>)> {
        let of = |name| self.missing.iter().filter(move |missing| missing.probe == name);
        let describe = |missing: &Missing| match missing.program {
            Some(program) => format!("{program}: {}", missing.reason),
            None => missing.reason.clone(),
        };
        PROBES.iter().map(|probe| (probe.name, of(probe.name).map(describe).collect())).collect()
    }

    /// Makes the probes see everything in scope.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when the probes were loaded.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        super::wakeup::forget_interrupts(&mut self.ebpf)?;
        let (ebpf, hooks) = (&mut self.ebpf, &self.hooks);
        self.links = tracefs::with_tracefs(|_| {
            hooks.iter().map(|(_, hook)| attach(ebpf, hook)).collect::<anyhow::Result<_>>()
        })??;
        Ok(())
    }

    /// Takes the probes away: the kernel runs as if they did not exist.
    pub fn detach(&mut self) {
        // The last attached first: see the probe `wakeup` for why the order matters.
        while self.links.pop().is_some() {}
    }

    /// Says what a thread is from now on.
    pub fn mark(&self, tid: u32, membership: Membership) {
        self.scopes.set(tid, membership);
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
        let map = self.ebpf.map("COUNTERS").context("the BPF object has no map COUNTERS")?;
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

    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn scope_table(ebpf: &Ebpf, chunks: u32) -> anyhow::Result<ScopeTable> {
    match ebpf.map("SCOPE_OF") {
        Some(aya::maps::Map::Array(map)) => ScopeTable::map(map, chunks),
        _ => anyhow::bail!("the BPF object has no array map SCOPE_OF"),
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, hook: &Hook) -> anyhow::Result<P>
where
    P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program =
        ebpf.program_mut(hook.program).with_context(|| format!("the BPF object has no program {}", hook.program))?;
    Ok(P::try_from(program)?)
}

fn load_program(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
    let loaded = match hook.event {
        Event::Raw(_) => program::<&mut RawTracePoint>(ebpf, hook)?.load(),
        Event::Classic(..) => program::<&mut TracePoint>(ebpf, hook)?.load(),
        Event::PageFaults => program::<&mut PerfEvent>(ebpf, hook)?.load(),
    };
    loaded.with_context(|| format!("the kernel refuses the program {}", hook.program))
}

/// A program at its event. Dropping it takes the program away from there.
#[expect(dead_code, reason = "links are held for their drop")]
enum Link {
    Raw(RawTracePointLink),
    Classic(TracePointLink),
    Perf(Vec<PerfEventLink>),
}

fn attach(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<Link> {
    Ok(match hook.event {
        Event::Raw(name) => {
            let program = program::<&mut RawTracePoint>(ebpf, hook)?;
            let link = program.attach(name).with_context(|| format!("raw tracepoint {name}"))?;
            Link::Raw(program.take_link(link)?)
        }
        Event::Classic(category, name) => {
            let program = program::<&mut TracePoint>(ebpf, hook)?;
            let link = program.attach(category, name).with_context(|| format!("tracepoint {category}:{name}"))?;
            Link::Classic(program.take_link(link)?)
        }
        Event::PageFaults => {
            let program = program::<&mut PerfEvent>(ebpf, hook)?;
            let event = PerfEventConfig::Software(SoftwareEvent::PageFaults);
            let mut links = Vec::new();
            for cpu in online_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))? {
                let scope = PerfEventScope::AllProcessesOneCpu { cpu };
                let link = program.attach(event, scope, SamplePolicy::Period(1), false).context("event page-faults")?;
                links.push(program.take_link(link)?);
            }
            Link::Perf(links)
        }
    })
}
