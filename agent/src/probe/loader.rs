//! Loads a BPF object into the running kernel, and attaches and detaches what it can.

use super::{
    Definition, Event, Hook, Kernel,
    scope::{self, ScopeTable},
};
use crate::host::{btf::KernelTypes, pid_namespace, tracefs};
use anyhow::Context;
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{MapData, MapError, Stack},
    programs::{
        BtfTracePoint, PerfEvent, ProgramError, RawTracePoint, TracePoint,
        perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy},
        raw_trace_point::RawTracePointLink,
        tp_btf::BtfTracePointLink,
        trace_point::TracePointLink,
    },
    util::online_cpus,
};
use sandscope_ebpf::map::{Entry, Membership};
use std::{
    fmt::{self, Display, Formatter},
    fs,
    os::fd::{AsFd, AsRawFd},
    thread::sleep,
    time::Duration,
};

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

/// The programs of one object, loaded into the kernel.
pub(super) struct Programs {
    /// Maps and programs.
    pub(super) ebpf: Ebpf,
    /// What this kernel can't do.
    pub(super) missing: Vec<Missing>,
    scopes: ScopeTable,
    hooks: Vec<(&'static Definition, Hook)>,
    /// Of each program that is attached.
    links: Vec<(&'static str, Link)>,
}

impl Programs {
    /// Loads the programs of every probe that this kernel supports, and tries each once. `slots` is
    /// how many threads can be in scope at once; `configure` sets the sizes of maps.
    ///
    /// # Errors
    /// When nothing could be recorded: no privilege, no type information, no tracefs, or a required probe fails.
    pub(super) fn load(
        object: &[u8],
        probes: &[&'static Definition],
        slots: u16,
        configure: impl FnOnce(&mut EbpfLoader<'_>) + Send,
    ) -> Result<Self, Error> {
        pid_namespace::check().map_err(|reason| Error::Load(format!("{reason}; {}", pid_namespace::REMEDY)))?;
        tracefs::with_tracefs(|tracefs| Self::load_with(object, probes, slots, configure, tracefs))
            .map_err(|error| Error::Load(error.to_string()))?
    }

    fn load_with(
        object: &[u8],
        probes: &[&'static Definition],
        slots: u16,
        configure: impl FnOnce(&mut EbpfLoader<'_>),
        tracefs: &tracefs::Tracefs,
    ) -> Result<Self, Error> {
        let failed = |error: anyhow::Error| Error::Load(format!("{error:#}"));
        let types = KernelTypes::of_running_kernel().map_err(|error| Error::Load(error.to_string()))?;
        let kernel = Kernel { types: &types, tracefs };
        let mut missing = Vec::new();
        let mut globals = Vec::new();
        let mut hooks = Vec::new();
        for &probe in probes {
            match (probe.globals)(&kernel) {
                Ok(values) => {
                    globals.extend(values);
                    hooks.extend((probe.hooks)(&kernel).iter().map(|hook| (probe, *hook)));
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
        // Read once, here, for the object and for the programs that name types.
        let types = Btf::from_sys_fs().map_err(|error| failed(error.into()))?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&types));
        loader.map_max_entries("SCOPE_OF", chunks).map_max_entries("FREE_SLOTS", slots.into());
        for (name, value) in &globals {
            loader.override_global(name, value, true);
        }
        // Last: how somebody wants to record comes before what probes say of themselves.
        configure(&mut loader);
        let mut ebpf = loader.load(object).map_err(|error| failed(error.into()))?;
        fill(&mut ebpf, "FREE_SLOTS", slots).map_err(failed)?;
        let scopes = scope_table(&ebpf, chunks).map_err(failed)?;
        let mut programs = Self { ebpf, missing, scopes, hooks, links: Vec::new() };
        programs.try_each_hook(&types)?;
        Ok(programs)
    }

    /// Loads and attaches each program once, to learn which of them this kernel accepts and which events it really has.
    fn try_each_hook(&mut self, types: &Btf) -> Result<(), Error> {
        for (probe, hook) in std::mem::take(&mut self.hooks) {
            match try_hook(&mut self.ebpf, hook, types) {
                Ok(hook) => self.hooks.push((probe, hook)),
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

    /// How often a program did not run because another one, or itself, was at work on the same CPU, all programs together since they
    /// were loaded. The kernel counts it from 5.12 on.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn skipped_runs(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for (_, hook) in &self.hooks {
            let program = self.ebpf.program(hook.program).context("a program was lost")?;
            let descriptor = program.fd()?.as_fd().as_raw_fd();
            let path = format!("/proc/self/fdinfo/{descriptor}");
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
            let count = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
            sum += count.map_or(Ok(0), |count| count.trim().parse::<u64>())?;
        }
        Ok(sum)
    }

    /// Whether this kernel took a program.
    pub(super) fn has(&self, program: &str) -> bool {
        self.hooks.iter().any(|(_, hook)| hook.program == program)
    }

    /// Each of these probes with what is missing of it.
    pub(super) fn by_probe(&self, probes: &[&'static Definition]) -> Vec<(&'static str, Vec<String>)> {
        let of = |name| self.missing.iter().filter(move |missing| missing.probe == name);
        let describe = |missing: &Missing| match missing.program {
            Some(program) => format!("{program}: {}", missing.reason),
            None => missing.reason.clone(),
        };
        probes.iter().map(|probe| (probe.name, of(probe.name).map(describe).collect())).collect()
    }

    /// Makes the programs see everything in scope.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when they were loaded.
    pub(super) fn attach(&mut self) -> anyhow::Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        super::interrupt::forget(&mut self.ebpf)?;
        let (ebpf, hooks) = (&mut self.ebpf, &self.hooks);
        self.links = tracefs::with_tracefs(|_| {
            hooks.iter().map(|(_, hook)| Ok((hook.program, attach(ebpf, hook)?))).collect::<anyhow::Result<_>>()
        })??;
        Ok(())
    }

    /// Whether a program is attached.
    pub(super) fn is_attached(&self, program: &str) -> bool {
        self.links.iter().any(|(attached, _)| *attached == program)
    }

    /// Attaches one program, or takes it away, while the others stay as they are. One that this kernel did not take stays away.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when it was loaded.
    pub(super) fn set_attached(&mut self, program: &str, attached: bool) -> anyhow::Result<()> {
        if !attached {
            self.links.retain(|(name, _)| *name != program);
        } else if !self.is_attached(program)
            && let Some((_, hook)) = self.hooks.iter().find(|(_, hook)| hook.program == program)
        {
            let link = tracefs::with_tracefs(|_| attach(&mut self.ebpf, hook))??;
            self.links.push((hook.program, link));
        }
        Ok(())
    }

    /// Takes the programs away: the kernel runs as if they did not exist.
    pub(super) fn detach(&mut self) {
        // The last attached first: see the probe `interrupt` for why the order matters.
        while self.links.pop().is_some() {}
    }

    /// Says what a thread is from now on.
    pub(super) fn mark(&self, tid: u32, membership: Membership) {
        self.scopes.set(tid, membership);
    }

    /// What a thread is.
    pub(super) fn membership(&self, tid: u32) -> Membership {
        self.scopes.membership(tid)
    }

    /// Says what a thread is from now on and which slot it has.
    pub(super) fn seed(&self, tid: u32, entry: Entry) {
        self.scopes.write(tid, entry);
    }

    /// Forgets what a thread is and which slot it has. To be called while no program runs.
    pub(super) fn clear(&self, tid: u32) {
        self.scopes.write(tid, Entry::NONE);
    }
}

/// Fills a stack with the numbers from 1 to `count`, so that the smallest is taken first.
pub(super) fn fill(ebpf: &mut Ebpf, name: &str, count: u16) -> anyhow::Result<()> {
    let mut stack = stack(ebpf, name)?;
    (1..=count).rev().try_for_each(|number| stack.push(number, 0))?;
    Ok(())
}

/// Takes a number from a stack, if there is one left.
pub(super) fn pop(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Option<u16>> {
    match stack(ebpf, name)?.pop(0) {
        Ok(number) => Ok(Some(number)),
        Err(MapError::ElementNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a number back to a stack.
pub(super) fn push(ebpf: &mut Ebpf, name: &str, number: u16) -> anyhow::Result<()> {
    Ok(stack(ebpf, name)?.push(number, 0)?)
}

fn stack<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<Stack<&'a mut MapData, u16>> {
    let map = ebpf.map_mut(name).with_context(|| format!("the BPF object has no map {name}"))?;
    Ok(Stack::try_from(map)?)
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

/// Loads and attaches a program, or the one that takes its place where the kernel refuses it; returns which of the two.
fn try_hook(ebpf: &mut Ebpf, hook: Hook, types: &Btf) -> anyhow::Result<Hook> {
    let tried = load_program(ebpf, &hook, types).and_then(|()| attach(ebpf, &hook));
    match (tried, hook.event) {
        (Ok(_dropped), _) => Ok(hook),
        (Err(error), Event::Typed(name, otherwise)) => {
            tracing::debug!("{error:#}");
            try_hook(ebpf, Hook { program: otherwise, event: Event::Raw(name) }, types)
        }
        (Err(error), _) => Err(error),
    }
}

fn load_program(ebpf: &mut Ebpf, hook: &Hook, types: &Btf) -> anyhow::Result<()> {
    let loaded = match hook.event {
        Event::Typed(name, _) => program::<&mut BtfTracePoint>(ebpf, hook)?.load(name, types),
        Event::Raw(_) => program::<&mut RawTracePoint>(ebpf, hook)?.load(),
        Event::Classic(..) => program::<&mut TracePoint>(ebpf, hook)?.load(),
        Event::Software(..) => program::<&mut PerfEvent>(ebpf, hook)?.load(),
    };
    loaded.with_context(|| format!("the kernel refuses the program {}", hook.program))
}

/// A program at its event. Dropping it takes the program away from there.
#[expect(dead_code, reason = "links are held for their drop")]
enum Link {
    Raw(RawTracePointLink),
    Typed(BtfTracePointLink),
    Classic(TracePointLink),
    Perf(Vec<PerfEventLink>),
}

/// Adds an element to a map that takes the memory for it then. The kernel keeps a few elements ready and makes more in the
/// background (`kernel/bpf/memalloc.c`, since 6.1), so that there may be none for a moment.
pub(super) fn insert_patiently(mut insert: impl FnMut() -> Result<(), MapError>) -> Result<(), MapError> {
    const ATTEMPTS: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(2);
    for _ in 1..ATTEMPTS {
        match insert() {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOMEM) => sleep(PAUSE),
            other => return other,
        }
    }
    insert()
}

fn attach(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<Link> {
    Ok(match hook.event {
        Event::Raw(name) => {
            let program = program::<&mut RawTracePoint>(ebpf, hook)?;
            let link = program.attach(name).with_context(|| format!("raw tracepoint {name}"))?;
            Link::Raw(program.take_link(link)?)
        }
        Event::Typed(name, _) => {
            let program = program::<&mut BtfTracePoint>(ebpf, hook)?;
            let link = program.attach().with_context(|| format!("tracepoint {name}"))?;
            Link::Typed(program.take_link(link)?)
        }
        Event::Classic(category, name) => {
            let program = program::<&mut TracePoint>(ebpf, hook)?;
            let link = program.attach(category, name).with_context(|| format!("tracepoint {category}:{name}"))?;
            Link::Classic(program.take_link(link)?)
        }
        Event::Software(event, times) => {
            let program = program::<&mut PerfEvent>(ebpf, hook)?;
            let config = PerfEventConfig::Software(event);
            let mut links = Vec::new();
            for cpu in online_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))? {
                let scope = PerfEventScope::AllProcessesOneCpu { cpu };
                let link = program.attach(config, scope, SamplePolicy::Period(times), false);
                let link = link.with_context(|| format!("software event {event:?}"))?;
                links.push(program.take_link(link)?);
            }
            Link::Perf(links)
        }
    })
}
