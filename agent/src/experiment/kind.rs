//! What an experiment is: variants, each with instances of its own, and the steps that are done on each instance.

use super::{
    alloc, burst, cold_start, cpu,
    idle::{self, Watching},
    memory::{self, Together},
    network,
    plan::Arms,
    read,
    step::Step,
    unzip, warm,
};
use crate::{measure::page_cache::CacheState, nearest::suggestion};
use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;

/// An experiment with its parameters.
pub trait Experiment: Send + Sync {
    /// What it needs of a sandbox.
    fn needs(&self) -> Needs;

    /// Whether its parameters make sense.
    ///
    /// # Errors
    /// Names the one that does not.
    fn check(&self) -> Result<(), Complaint>;

    /// Its variants, in the order in which they are shown.
    fn variants(&self) -> Vec<Variant>;
}

/// What an experiment needs of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Something inside that answers requests.
    pub server: bool,
    /// The workload's static file on the host's disk.
    pub file: bool,
    /// Addresses of its own, since there are several instances at a time.
    pub own_network: bool,
    /// Probes: without them there is nothing to be measured.
    pub probes: bool,
}

impl Needs {
    /// A start and no more.
    pub const START: Self = Self { server: false, file: false, own_network: false, probes: false };
    /// Something that answers.
    pub const SERVER: Self = Self { server: true, ..Self::START };
    /// The same, with a file.
    pub const FILE: Self = Self { file: true, ..Self::SERVER };
}

/// A parameter that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Its key.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Fails unless all values of a parameter are good.
pub(super) fn require(key: &'static str, good: bool, reason: impl Into<String>) -> Result<(), Complaint> {
    if good { Ok(()) } else { Err(Complaint { key, reason: reason.into() }) }
}

/// A part of an experiment that has instances of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name; empty when the experiment has only one.
    pub name: String,
    /// Condition of the page cache before the launch.
    pub cache: CacheState,
    /// Instances that are started at a time.
    pub instances: u32,
    /// What is done on each.
    pub method: Method,
}

/// What is done on instances.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// They are asked, one step after the other; none: their start is all.
    Ask(Vec<Step>),
    /// They are left alone and watched.
    Watch(Watching),
    /// They are started one after the other and go on, and their memory is measured.
    Gather(Together),
}

impl Method {
    /// With probes or not, for each instance, where these arms are asked for.
    pub fn arms(&self, asked: Arms) -> &'static [bool] {
        match self {
            Self::Ask(_) => asked.probes(),
            Self::Watch(_) => Arms::Probed.probes(),
            Self::Gather(_) => Arms::Bare.probes(),
        }
    }
}

impl Variant {
    /// The only variant of an experiment: one instance on a primed page cache, and these steps.
    pub fn only(steps: Vec<Step>) -> Self {
        Self { name: String::new(), cache: CacheState::Primed, instances: 1, method: Method::Ask(steps) }
    }

    /// The same for a sandbox without the file that workloads serve: without the steps that need it; `None` when nothing is left.
    pub fn without_file(self) -> Option<Self> {
        match self.method {
            Method::Ask(steps) if steps.iter().any(|step| step.file.is_some()) => {
                let steps: Vec<_> = steps.into_iter().filter(|step| step.file.is_none()).collect();
                (!steps.is_empty()).then_some(Self { method: Method::Ask(steps), ..self })
            }
            method => Some(Self { method, ..self }),
        }
    }
}

/// An experiment, for who gives it parameters.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// One line on what it measures.
    pub about: &'static str,
    /// Makes one of its parameters; those that are not given have their defaults.
    pub define: fn(ValueDeserializer<'_>) -> Result<Box<dyn Experiment>, toml::de::Error>,
    /// One with all defaults.
    pub default: fn() -> Box<dyn Experiment>,
}

/// All experiments.
pub const KINDS: [Kind; 10] = [
    kind::<cold_start::Parameters>("cold-start", "from launch to first response"),
    kind::<burst::Burst>("burst", "many cold starts at the same time"),
    kind::<idle::Parameters>("idle", "what it costs when nothing is asked, and who wakes it"),
    kind::<memory::Parameters>("memory", "what idle instances take of the memory"),
    kind::<warm::Warm>("warm", "the shortest exchange: what client and network path cost"),
    kind::<cpu::Cpu>("cpu", "computing: sums, a Fourier transform, a product of matrices"),
    kind::<alloc::Alloc>("alloc", "taking memory: first and second touch"),
    kind::<read::Read>("read", "reading a file: cold and warm in the guest and on the host"),
    kind::<unzip::Unzip>("unzip", "writing files"),
    kind::<network::Network>("network", "request rate against connections, throughput of a large file"),
];

const fn kind<E: Experiment + DeserializeOwned + Default + 'static>(name: &'static str, about: &'static str) -> Kind {
    Kind { name, about, define: |options| Ok(Box::new(E::deserialize(options)?)), default: || Box::new(E::default()) }
}

/// The experiment of this name.
///
/// # Errors
/// When there is none; names the nearest.
pub fn find(name: &str) -> Result<&'static Kind, String> {
    let names = || KINDS.iter().map(|kind| kind.name);
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let all = names().collect::<Vec<_>>().join(", ");
        format!("there is no experiment `{name}`{} The experiments are: {all}", suggestion(name, names()))
    })
}
