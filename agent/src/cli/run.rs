//! `sandscope run`: what is to be measured, under which conditions, and where the results go.

use super::{BadRequest, Interrupted, clean, print, privilege};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandscope::{
    experiment::{
        Arms, Observation, Stage,
        cold_start::{ColdStart, Progress},
    },
    measure::page_cache::CacheState,
    probe::{self, Probes},
    record::{Artifact, Manifest},
    report::terminal::Report,
    sandbox::{
        self, Sandbox, Support,
        launcher::Launcher,
        network,
        run_dir::{self, RunDirectory},
    },
    workload::Workload,
};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// The experiments.
#[derive(Subcommand)]
pub(crate) enum Experiment {
    /// From launch to first response: where every nanosecond of a cold start goes.
    #[command(after_help = "\
Examples:
  sandscope run cold-start --sandbox runc,gvisor -n 20 --out results
  sandscope run cold-start --sandbox available --cache evicted --json > summary.json")]
    ColdStart(ColdStartArguments),
}

/// Conditions of a cold start.
#[derive(Args)]
pub(crate) struct ColdStartArguments {
    /// Kinds of sandboxes, separated by commas, or `available`: all that this host can run.
    #[arg(long, value_delimiter = ',', required = true)]
    sandbox: Vec<String>,
    /// What runs inside: `rust`, `go`, or the path of an executable that keeps the same contract.
    #[arg(long, default_value = "rust")]
    workload: String,
    /// Instances of each kind with probes, and as many without, to see what the probes cost.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// Directory of the results; runs add to it.
    #[arg(long, default_value = "results")]
    out: PathBuf,
    /// Page cache before each launch, for the files that the start reads; checked page by page.
    #[arg(long, value_enum, default_value_t = CacheState::Primed)]
    cache: CacheState,
    /// `private`: each instance has a network namespace and a device pair; `host`: it uses the host's network.
    #[arg(long, value_enum, default_value_t = network::Mode::Private)]
    network: network::Mode,
    /// Port of the host on which workloads report that they are ready.
    #[arg(long, default_value_t = 3999, value_parser = clap::value_parser!(u16).range(1..))]
    callback_port: u16,
    /// Seconds from launch to response after which an instance has failed.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    timeout: f64,
    /// Seed of the order of the instances; a random one is taken and recorded without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Start no instances without probes.
    #[arg(long, conflicts_with = "no_probes")]
    no_observer_effect: bool,
    /// Load no probes: measure only what needs none.
    #[arg(long)]
    no_probes: bool,
    /// Do not record system calls: less observer effect, but user and kernel time are not told apart.
    #[arg(long)]
    no_syscalls: bool,
    /// Size of the buffer between the probes and the agent; a power of two.
    #[arg(long, default_value_t = 16 << 20, value_parser = ring_bytes)]
    ring_buffer_bytes: u32,
    /// Print the summary for machines.
    #[arg(long)]
    json: bool,
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

/// Runs an experiment.
pub(crate) fn execute(experiment: &Experiment) -> Result<ExitCode> {
    let Experiment::ColdStart(arguments) = experiment;
    // Before any thread exists: capabilities are a thread's own.
    privilege::drop_unneeded();
    // One thread for all of the agent's own networking: its number is known to the probes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cold_start(arguments))
}

async fn cold_start(arguments: &ColdStartArguments) -> Result<ExitCode> {
    let sandboxes = select(&arguments.sandbox)?;
    let workload = Workload::find(&arguments.workload).map_err(|error| BadRequest(format!("{error:#}")))?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let (probes, missing) = load_probes(arguments);
    let arms = match (&probes, arguments.no_observer_effect) {
        (None, _) => Arms::Bare,
        (Some(_), true) => Arms::Probed,
        (Some(_), false) => Arms::Both,
    };
    let mut manifest = Manifest::new("cold-start", seed);
    manifest.workload = Some(Artifact::read(&workload.name, &workload.executable)?);
    manifest.probes.available = probes.is_some();
    manifest.probes.missing = missing.into_iter().collect();
    manifest.conditions = conditions(arguments);
    for sandbox in &sandboxes {
        manifest.sandboxes.insert(sandbox.name().to_owned(), sandbox.provenance()?);
    }
    let run_id = Ulid::generate();
    let base = run_dir::default_base();
    clean::report(&run_dir::clean(&base)?);
    let run_directory = RunDirectory::create(&base, &run_id.to_string())?;
    let mut stage = Stage {
        launcher: Launcher::spawn()?,
        probes,
        workload,
        network: arguments.network,
        callback_port: arguments.callback_port,
        cache: arguments.cache,
        timeout: Duration::from_secs_f64(arguments.timeout),
        interrupted: interruption()?,
    };
    let experiment = ColdStart { sandboxes, instances: arguments.instances, arms, seed };
    let mut bar = Bar::new(experiment.total());
    let outcome = experiment.run(&mut stage, run_id, &run_directory, &arguments.out, &manifest, &mut bar).await;
    bar.0.finish_and_clear();
    let summary = outcome?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    } else {
        print(&Report(&summary).to_string())?;
        print(&format!("Results: {} (run {})\n", arguments.out.display(), summary.run_id))?;
    }
    if stage.interrupted.is_cancelled() {
        return Err(Interrupted.into());
    }
    let failed = summary.sandboxes.iter().any(|sandbox| sandbox.failed_count > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The sandboxes that were asked for; all of them must be able to run.
fn select(names: &[String]) -> Result<Vec<Arc<dyn Sandbox>>> {
    if names == ["available"] {
        let all = sandbox::all().into_iter();
        return Ok(all
            .filter(|sandbox| !matches!(sandbox.support(), Support::Unsupported { .. }))
            .map(Arc::from)
            .collect());
    }
    let mut chosen: Vec<Arc<dyn Sandbox>> = Vec::new();
    for name in names {
        let sandbox = sandbox::find(name).map_err(|error| BadRequest(format!("{error:#}")))?;
        if let Support::Unsupported { evidence, remedy } = sandbox.support() {
            return Err(BadRequest(format!("{name} can't run on this host: {evidence}; {remedy}")).into());
        }
        if chosen.iter().all(|known| known.name() != sandbox.name()) {
            chosen.push(Arc::from(sandbox));
        }
    }
    Ok(chosen)
}

/// The probes, and what is missing of them, by name.
fn load_probes(arguments: &ColdStartArguments) -> (Option<Probes>, Vec<(String, String)>) {
    if arguments.no_probes {
        return (None, vec![("all".to_owned(), "turned off by --no-probes".to_owned())]);
    }
    let options = probe::Options { ring_bytes: arguments.ring_buffer_bytes, syscalls: !arguments.no_syscalls };
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

fn conditions(arguments: &ColdStartArguments) -> std::collections::BTreeMap<String, String> {
    let condition = |name: &str, value: String| (name.to_owned(), value);
    [
        condition("cache", arguments.cache.name().to_owned()),
        condition("network", arguments.network.name().to_owned()),
        condition("network_made", "before the launch".to_owned()),
        condition("timeout_s", arguments.timeout.to_string()),
        condition("instances_per_arm", arguments.instances.to_string()),
        condition("ring_buffer_bytes", arguments.ring_buffer_bytes.to_string()),
        condition("syscalls_recorded", (!arguments.no_syscalls).to_string()),
    ]
    .into()
}

/// Fires on the first signal that asks the agent to end.
fn interruption() -> Result<CancellationToken> {
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

/// A progress bar on standard error, if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }
}

impl Progress for Bar {
    fn starts(&mut self, sandbox: &str, probes: bool) {
        let arm = if probes { "with probes" } else { "without probes" };
        self.0.set_message(format!("{sandbox} {arm}"));
    }

    fn ended(&mut self, observation: &Observation) {
        self.0.inc(1);
        if let Err(error) = &observation.outcome {
            let Observation { sandbox, position, .. } = observation;
            self.0.suspend(|| eprintln!("sandscope: instance {position} ({sandbox}) failed: {error}"));
        }
    }
}
