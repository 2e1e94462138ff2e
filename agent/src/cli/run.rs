//! `sandscope run`: what is to be measured, under which conditions, and where the results go.

mod bar;
mod idle;
mod memory;
mod suite;

use super::{BadRequest, Interrupted, clean, output::Output, print, privilege, sandboxes::known};
use crate::{
    correlate::Names,
    experiment::{Arms, FaultTimes, Stage, Timelines, cold_start::ColdStart},
    measure::page_cache::CacheState,
    probe::{self, Probes},
    record::{Artifact, Dataset, Manifest},
    report::terminal::Report,
    sandbox::{
        self, Resources, Sandbox, Support,
        launcher::Launcher,
        network,
        resources::{Bytes, CpuList, FileSharing},
        run_dir::{self, RunDirectory},
    },
    workload::Workload,
};
use anyhow::{Context, Result};
use bar::Bar;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// What is to be run: an experiment by its name, or all that a file says.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sandscope run experiments/quick.toml                every experiment, in a few minutes
  sandscope run experiments/paper.toml --resume       go on with the newest run of this file that was interrupted
  sandscope run cpu --sandbox runc,gvisor --workload go,node -n 10
  sandscope run network --sandbox process --set 'connections=[1, 64]' --set window-s=1")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    experiment: Option<Experiment>,
    #[command(flatten)]
    file: suite::FileArguments,
}

/// The experiments.
#[derive(Subcommand)]
enum Experiment {
    /// From launch to first response: where every nanosecond of a cold start goes.
    #[command(after_help = "\
Examples:
  sandscope run cold-start --sandbox runc,gvisor -n 20 --out results
  sandscope run cold-start --sandbox available --cache evicted --json > summary.json")]
    ColdStart(ColdStartArguments),
    /// Many cold starts at the same time, again and again.
    Burst(suite::NamedArguments),
    /// The shortest exchange with a running sandbox: what client and network path cost.
    Warm(suite::NamedArguments),
    /// Computing: sums, a Fourier transform, a product of matrices.
    Cpu(suite::NamedArguments),
    /// Taking memory: first and second touch.
    Alloc(suite::NamedArguments),
    /// Reading a file: cold and warm in the guest and on the host.
    Read(suite::NamedArguments),
    /// Writing files.
    Unzip(suite::NamedArguments),
    /// Request rate against connections, latency at a constant rate, throughput of a large file.
    Network(suite::NamedArguments),
    /// What idle instances take of the memory: 1, 2, 4 … of each sandbox, who has it, and what one more costs.
    #[command(after_help = "\
Examples:
  sandscope run memory --sandbox process,runc,gvisor -n 10
  sandscope run memory --sandbox kvm-floor -n 4 --pages
  sandscope run memory --sandbox available -n 10 --settle 3 --json > summary.json")]
    Memory(memory::MemoryArguments),
    /// What sandboxes cost when nothing is asked of them, and who wakes them.
    #[command(after_help = "\
Examples:
  sandscope run idle --sandbox gvisor,kvm-floor --window 30
  sandscope run idle --sandbox available -n 5 --json > idle.json")]
    Idle(idle::IdleArguments),
}

/// What is run, under which conditions, and where the results go: the same for all experiments.
#[derive(Args)]
pub(crate) struct Common {
    /// Kinds of sandboxes, separated by commas, or `available`: all that this host can run.
    #[arg(long, value_delimiter = ',', required = true)]
    sandbox: Vec<String>,
    /// File with definitions of further sandboxes (see experiments/sandboxes.toml).
    #[arg(long)]
    config: Option<PathBuf>,
    /// What runs inside: `rust`, `go`, `node`, `python`, or the path of an executable that keeps the same contract.
    #[arg(long, default_value = "rust")]
    workload: String,
    #[command(flatten)]
    output: Output,
    /// Page cache before each launch, for the files that the start reads; checked page by page.
    #[arg(long, value_enum, default_value_t = CacheState::Primed)]
    cache: CacheState,
    /// `private`: each instance has a network namespace and a device pair; `host`: it uses the host's network.
    #[arg(long, value_enum, default_value_t = network::Mode::Private)]
    network: network::Mode,
    /// Memory of an instance, such as 256M: a limit for a container, the size of a VM.
    #[arg(long)]
    memory: Option<Bytes>,
    /// CPUs of an instance: a limit for a container, the vCPUs of a VM.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    vcpus: Option<u32>,
    /// CPUs that instances may run on, such as 0-2,5; all without it.
    #[arg(long)]
    cpus: Option<CpuList>,
    /// Whether instances have a console; in a VM each byte printed costs an exit.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    console: bool,
    /// How instances get their files.
    #[arg(long, value_enum, default_value_t = FileSharing::Shared)]
    files: FileSharing,
    /// Port of the host on which workloads report that they are ready.
    #[arg(long, default_value_t = 3999, value_parser = clap::value_parser!(u16).range(1..))]
    callback_port: u16,
    /// Seconds from launch to response after which an instance has failed.
    #[arg(long, default_value_t = 30.0, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    /// Seed of the order of the instances; a random one is taken and recorded without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the summary for machines.
    #[arg(long)]
    json: bool,
}

/// Conditions of a cold start.
#[derive(Args)]
pub(crate) struct ColdStartArguments {
    #[command(flatten)]
    common: Common,
    /// Instances of each kind with probes, and as many without, to see what the probes cost.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// Start no instances without probes.
    #[arg(long, conflicts_with = "no_probes")]
    no_observer_effect: bool,
    /// Load no probes: measure only what needs none.
    #[arg(long)]
    no_probes: bool,
    /// Do not record system calls: less observer effect, but user and kernel time are not told apart.
    #[arg(long)]
    no_syscalls: bool,
    /// Stacks that are recorded: of long waits in the kernel, of these and of own code each millisecond, or none.
    #[arg(long, value_enum, default_value_t = probe::Stacks::Waits)]
    stacks: probe::Stacks,
    /// Instances whose single events are written too, for traces: of each kind the first one with probes, all, or none.
    #[arg(long, value_enum, default_value_t = Timelines::First)]
    timeline: Timelines,
    /// Size of the buffer between the probes and the agent; a power of two.
    #[arg(long, default_value_t = 16 << 20, value_parser = ring_bytes)]
    ring_buffer_bytes: u32,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 86_400.0 => Ok(value),
        _ => Err("a number of seconds above 0, at most 86400".to_owned()),
    }
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(value) if value.is_power_of_two() && (4096..=1 << 30).contains(&value) => Ok(value),
        _ => Err("a power of two from 4096 to 1073741824".to_owned()),
    }
}

/// Runs it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    // Before any thread exists: capabilities are a thread's own.
    privilege::drop_unneeded();
    // One thread for all of the agent's own networking: its number is known to the probes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (name, arguments) = match &arguments.experiment {
            None => return suite::of_file(&arguments.file).await,
            Some(Experiment::ColdStart(arguments)) => return cold_start(arguments).await,
            Some(Experiment::Memory(arguments)) => return memory::execute(arguments).await,
            Some(Experiment::Idle(arguments)) => return idle::execute(arguments).await,
            Some(Experiment::Burst(arguments)) => ("burst", arguments),
            Some(Experiment::Warm(arguments)) => ("warm", arguments),
            Some(Experiment::Cpu(arguments)) => ("cpu", arguments),
            Some(Experiment::Alloc(arguments)) => ("alloc", arguments),
            Some(Experiment::Read(arguments)) => ("read", arguments),
            Some(Experiment::Unzip(arguments)) => ("unzip", arguments),
            Some(Experiment::Network(arguments)) => ("network", arguments),
        };
        suite::of_name(name, arguments).await
    })
}

/// All that an experiment needs, made from what was typed.
struct Setting {
    sandboxes: Vec<Arc<dyn Sandbox>>,
    workload: Workload,
    seed: u64,
    manifest: Manifest,
    dataset: Dataset,
    run_directory: RunDirectory,
    stage: Stage,
}

impl Setting {
    /// Checks what was typed, and makes the dataset and the directory of the run. `conditions` are those of the experiment alone.
    async fn new(
        experiment: &str,
        common: &Common,
        (probes, missing): (Option<Probes>, Vec<(String, String)>),
        conditions: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let sandboxes = select(&common.sandbox, common.config.as_deref())?;
        let workload = Workload::find(&common.workload).map_err(|error| BadRequest(format!("{error:#}")))?;
        let seed = common.seed.unwrap_or_else(rand::random);
        let mut manifest = Manifest::new(experiment, seed);
        manifest.workloads = vec![Artifact::read(&workload.name, workload.content.path())?];
        manifest.probes.available = probes.is_some();
        manifest.probes.missing = missing.into_iter().collect();
        manifest.conditions = common.conditions();
        manifest.conditions.extend(conditions);
        for sandbox in &sandboxes {
            manifest.sandboxes.insert(sandbox.name().to_owned(), sandbox.provenance()?);
        }
        let run_id = Ulid::generate();
        let dataset = Dataset::create(common.output.directory(), run_id, &manifest)
            .map_err(|error| BadRequest(error.to_string()))?;
        common.output.begin(dataset.run_id(), false).await?;
        let base = run_dir::default_base();
        clean::report(&run_dir::clean(&base)?);
        let run_directory = RunDirectory::create(&base, &run_id.to_string())?;
        let stage = Stage {
            launcher: Arc::new(Launcher::spawn()?),
            probes,
            names: Names::of_running_kernel(),
            fault_times: FaultTimes::default(),
            network: common.network,
            resources: common.resources(),
            cpus: common.cpus.clone(),
            callback_port: common.callback_port,
            timeout: Duration::from_secs_f64(common.timeout),
            interrupted: interruption()?,
        };
        Ok(Self { sandboxes, workload, seed, manifest, dataset, run_directory, stage })
    }
}

async fn cold_start(arguments: &ColdStartArguments) -> Result<ExitCode> {
    let common = &arguments.common;
    common.check()?;
    let options = probe::Options {
        ring_bytes: arguments.ring_buffer_bytes,
        syscalls: !arguments.no_syscalls,
        stacks: arguments.stacks,
    };
    let (probes, missing) = load_probes((!arguments.no_probes).then_some(options));
    let arms = match (&probes, arguments.no_observer_effect) {
        (None, _) => Arms::Bare,
        (Some(_), true) => Arms::Probed,
        (Some(_), false) => Arms::Both,
    };
    let setting = Setting::new("cold-start", common, (probes, missing), arguments.conditions()).await?;
    let Setting { sandboxes, workload, seed, manifest, dataset, run_directory, mut stage } = setting;
    let instances = arguments.instances;
    let (cache, timelines) = (common.cache, arguments.timeline);
    let experiment = ColdStart { sandboxes, workload, cache, instances, arms, seed, timelines };
    let mut bar = Bar::new(experiment.total());
    let outcome = experiment.run(&mut stage, &run_directory, dataset, &manifest, &mut bar).await;
    bar.bar.finish_and_clear();
    let summary = outcome?;
    let failed = summary.sandboxes.iter().any(|sandbox| sandbox.failed_count > 0);
    common.show(&summary, &Report(&summary), &summary.run_id, &stage).await?;
    end(&stage, failed)
}

/// How the command ends after an experiment.
fn end(stage: &Stage, failed: bool) -> Result<ExitCode> {
    if stage.interrupted.is_cancelled() {
        return Err(Interrupted.into());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Common {
    /// Refuses what can't be done, before anything starts.
    fn check(&self) -> Result<()> {
        if let Some(cpus) = &self.cpus {
            // Only to know now whether it can be done.
            drop(cpus.pin().map_err(|error| BadRequest(format!("{error:#}")))?);
        }
        // Refuses names of sandboxes and workloads before the probes are loaded, which takes a moment.
        select(&self.sandbox, self.config.as_deref())?;
        Workload::find(&self.workload).map_err(|error| BadRequest(format!("{error:#}")))?;
        Ok(())
    }

    /// Prints a summary for people or for machines, and brings the results to their place.
    async fn show(&self, summary: &impl Serialize, report: &impl Display, run_id: &str, stage: &Stage) -> Result<()> {
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(summary)?))?;
        } else {
            print(&report.to_string())?;
        }
        let place = self.output.end(run_id, true, &stage.interrupted).await?;
        if !self.json {
            print(&format!("Results: {place} (run {run_id})\n"))?;
        }
        Ok(())
    }

    fn resources(&self) -> Resources {
        Resources {
            memory_bytes: self.memory.map(|Bytes(bytes)| bytes),
            vcpus: self.vcpus,
            console: self.console,
            files: self.files,
        }
    }

    fn conditions(&self) -> BTreeMap<String, String> {
        fn or(value: Option<&impl ToString>, none: &str) -> String {
            value.map_or_else(|| none.to_owned(), ToString::to_string)
        }
        [
            condition("memory_bytes", or(self.memory.map(|Bytes(bytes)| bytes).as_ref(), "no limit")),
            condition("vcpus", or(self.vcpus.as_ref(), "no limit")),
            condition("cpus", or(self.cpus.as_ref(), "all")),
            condition("console", self.console),
            condition("files", self.files.name()),
            condition("cache", self.cache.name()),
            condition("network", self.network.name()),
            condition("network_made", "before the launch"),
            condition("timeout_s", self.timeout),
        ]
        .into()
    }
}

impl ColdStartArguments {
    fn conditions(&self) -> [(String, String); 5] {
        [
            condition("instances_per_arm", self.instances),
            condition("ring_buffer_bytes", self.ring_buffer_bytes),
            condition("syscalls_recorded", !self.no_syscalls),
            condition("stacks", self.stacks.name()),
            condition("timeline", self.timeline.name()),
        ]
    }
}

fn condition(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// The sandboxes that were asked for; all of them must be able to run.
fn select(names: &[String], config: Option<&Path>) -> Result<Vec<Arc<dyn Sandbox>>> {
    if names == ["available"] {
        let runnable = known(config)?.into_iter().filter(|sandbox| sandbox.support().is_usable());
        return Ok(runnable.map(Arc::from).collect());
    }
    let mut chosen: Vec<Arc<dyn Sandbox>> = Vec::new();
    for name in names {
        let sandbox = sandbox::find_among(known(config)?, name).map_err(|error| BadRequest(format!("{error:#}")))?;
        if let Support::Unsupported { evidence, remedy } = sandbox.support() {
            return Err(BadRequest(format!("{name} can't run on this host: {evidence}; {remedy}")).into());
        }
        if chosen.iter().all(|known| known.name() != sandbox.name()) {
            chosen.push(Arc::from(sandbox));
        }
    }
    Ok(chosen)
}

/// The probes, and what is missing of them, by name; `None`: none are asked for.
pub(super) fn load_probes(options: Option<probe::Options>) -> (Option<Probes>, Vec<(String, String)>) {
    let Some(options) = options else {
        return (None, vec![("all".to_owned(), "turned off".to_owned())]);
    };
    match Probes::load(options) {
        Ok(probes) => {
            let missing =
                probes.missing().iter().map(|missing| (missing.to_string(), missing.reason.clone())).collect();
            (Some(probes), missing)
        }
        Err(error) => {
            eprintln!(
                "sandscope: {error}\nGoing on without probes: start times are measured, but not explained. \
                 `sandscope doctor` says more."
            );
            (None, vec![("all".to_owned(), error.to_string())])
        }
    }
}

/// Fires on the first signal that asks the agent to end.
pub(super) fn interruption() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut stream = signal(kind).context("can't listen for signals")?;
        let token = token.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                token.cancel();
            }
        });
    }
    Ok(token)
}
