//! `sandscope run FILE.toml` and `sandscope run NAME`: many cells, repeated, resumed where they were interrupted.

use super::{bar::Bar, interruption, load_probes};
use crate::{
    cli::{BadRequest, Interrupted, clean, output, print},
    config::{
        self,
        suite::{SuiteFile, parse_text},
    },
    correlate::Names,
    experiment::{
        Arms, FaultTimes, Guests, Stage,
        conditions::Conditions,
        kind,
        suite::{Cell, FINGERPRINT, Plan, Resumed, Suite, Unfinished, unfinished},
    },
    probe::{self, Aggregate, Limits},
    record::{Artifact, Dataset, Manifest},
    report::suite::SuiteReport,
    sandbox::{
        launcher::Launcher,
        run_dir::{self, RunDirectory},
    },
};
use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use ulid::Ulid;

/// A file, and where its results go.
#[derive(Args)]
pub(crate) struct FileArguments {
    /// What to run, such as experiments/quick.toml.
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Go on with an interrupted run of the same file: the newest one, or this one.
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    resume: Option<Option<String>>,
    #[command(flatten)]
    output: Output,
}

/// Where results go, and how they are shown.
#[derive(Args)]
struct Output {
    #[command(flatten)]
    place: output::Output,
    /// Seed of the order of the instances; a random one is taken and recorded without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the summary for machines.
    #[arg(long)]
    json: bool,
}

/// One experiment, and where its results go.
#[derive(Args)]
pub(crate) struct NamedArguments {
    /// Kinds of sandboxes, separated by commas, or `available`: all that this host can run.
    #[arg(long, value_delimiter = ',', required = true)]
    sandbox: Vec<String>,
    /// What runs inside, separated by commas: `rust`, `go`, `node`, `python`, or paths of executables with the same contract.
    #[arg(long, value_delimiter = ',', default_value = "rust")]
    workload: Vec<String>,
    /// Repetitions of each combination with probes, and as many without.
    #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repetitions: u32,
    /// At most so many, until the medians are sure (see --width); as many as --repetitions without it.
    #[arg(long)]
    most_repetitions: Option<u32>,
    /// Width of a median's 95 % confidence interval that is sure enough, as a share of the median.
    #[arg(long, default_value_t = 0.1)]
    width: f64,
    /// A parameter of the experiment; docs/experiments.md has them all.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    parameters: Vec<String>,
    /// A condition of all instances, such as `vcpus=1` or `client-cpus="1"`; docs/experiments.md has them all.
    #[arg(long = "condition", value_name = "KEY=VALUE")]
    conditions: Vec<String>,
    /// Load no probes: measure only what needs none.
    #[arg(long)]
    no_probes: bool,
    /// Start no instances without probes.
    #[arg(long, conflicts_with = "no_probes")]
    no_observer_effect: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs what a file says.
pub(super) async fn of_file(arguments: &FileArguments) -> Result<ExitCode> {
    let file = arguments.file.as_deref().context("there is no file")?;
    if !file.exists() && file.extension().is_none() {
        // Its words name the nearest experiment.
        if let Err(reason) = kind::find(&file.display().to_string()) {
            return Err(BadRequest(format!("{reason}; nor is it a file")).into());
        }
    }
    let suite = config::suite::read(file).map_err(|problem| BadRequest(problem.to_string()))?;
    let name = file.file_stem().map_or_else(|| "suite".to_owned(), |stem| stem.to_string_lossy().into_owned());
    run(&name, suite, arguments.resume.as_ref(), &arguments.output).await
}

/// Runs one experiment.
pub(super) async fn of_name(name: &str, arguments: &NamedArguments) -> Result<ExitCode> {
    let text = as_file(name, arguments).map_err(|error| BadRequest(format!("{error:#}")))?;
    let suite = parse_text(Path::new("the command line"), &text);
    let suite = suite.map_err(|problem| BadRequest(problem.reason().to_owned()))?;
    run(name, suite, None, &arguments.output).await
}

/// What a file would have to say, so that both go the same way.
fn as_file(name: &str, arguments: &NamedArguments) -> Result<String> {
    let list = |names: &[String]| toml::Value::from(names.to_vec());
    let mut matrix = toml::Table::new();
    matrix.insert("experiments".to_owned(), list(&[name.to_owned()]));
    matrix.insert("sandboxes".to_owned(), list(&arguments.sandbox));
    matrix.insert("workloads".to_owned(), list(&arguments.workload));
    let mut file = toml::Table::new();
    file.insert("repetitions".to_owned(), i64::from(arguments.repetitions).into());
    if let Some(most) = arguments.most_repetitions {
        file.insert("most-repetitions".to_owned(), i64::from(most).into());
    }
    file.insert("width".to_owned(), arguments.width.into());
    let probes = match (arguments.no_probes, arguments.no_observer_effect) {
        (true, _) => "without",
        (_, true) => "with",
        _ => "both",
    };
    file.insert("probes".to_owned(), probes.into());
    file.insert("conditions".to_owned(), pairs(&arguments.conditions)?.into());
    let parameters = toml::Table::from_iter([(name.to_owned(), pairs(&arguments.parameters)?.into())]);
    file.insert("experiment".to_owned(), parameters.into());
    file.insert("matrix".to_owned(), toml::Value::from(vec![matrix]));
    Ok(toml::to_string(&file)?)
}

/// Keys and values as a table.
fn pairs(texts: &[String]) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    for text in texts {
        let read = toml::from_str::<toml::Table>(text).or_else(|error| with_bare_text(text).ok_or(error));
        table.extend(read.with_context(|| {
            format!("`{text}` is no KEY=VALUE of TOML: write numbers as they are, texts plainly or in quotes, lists in brackets")
        })?);
    }
    Ok(table)
}

/// A pair whose value is a text without quotes, as in `network=host`: a shell takes the quotes of TOML away, and one word can mean
/// nothing else.
fn with_bare_text(text: &str) -> Option<toml::Table> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_word = value.starts_with(|first: char| first.is_ascii_alphabetic())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte));
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (is_word && is_key).then(|| toml::Table::from_iter([(key.to_owned(), value.into())]))
}

async fn run(name: &str, file: SuiteFile, resume: Option<&Option<String>>, output: &Output) -> Result<ExitCode> {
    let SuiteFile { mut plan, seed, arms, conditions, mut left_out } = file;
    let aggregate = load_aggregate(&mut plan, &mut left_out);
    for (sandbox, reason) in &left_out {
        eprintln!("sandscope: {sandbox} is left out: {reason}");
    }
    if plan.cells.is_empty() {
        return Err(BadRequest("nothing is left to be done: this host can run none of the sandboxes".to_owned()).into());
    }
    let options = probe::Options {
        ring_bytes: conditions.ring_buffer_bytes,
        syscalls: conditions.syscalls,
        ..probe::Options::default()
    };
    let (probes, mut missing) = load_probes((arms != Arms::Bare).then_some(options));
    missing.extend(aggregate.iter().flat_map(missing_of));
    let arms = if probes.is_none() { Arms::Bare } else { arms };
    let per_arm = std::mem::take(&mut plan.cells);
    plan.cells =
        per_arm.iter().flat_map(|cell| cell.arms(arms).iter().map(|&probes| Cell { probes, ..cell.clone() })).collect();
    let watched = plan.cells.iter().filter(|cell| cell.is_watched()).map(|cell| &cell.sandbox);
    let guests = Guests::kept(watched).map_err(|error| BadRequest(format!("{error:#}")))?;
    let fingerprint = plan.fingerprint(&conditions);
    let (run_id, seed, resumed) = match resume {
        None => (Ulid::generate(), output.seed.or(seed).unwrap_or_else(rand::random), Resumed::default()),
        Some(wanted) => {
            let Unfinished { run_id, seed, .. } = resumable(output.place.directory(), wanted.as_deref(), &fingerprint)?;
            let resumed = Resumed::read(output.place.directory(), &run_id)?;
            eprintln!("sandscope: going on with {run_id}, which has {} instances", resumed.instances_count());
            let id = run_id.parse().with_context(|| format!("the run {run_id} has no id of ours"))?;
            (id, seed, resumed)
        }
    };
    let manifest = manifest(name, seed, &plan, &conditions, &left_out, (probes.is_some(), missing), &fingerprint)?;
    allow_connections();
    let dataset =
        Dataset::create(output.place.directory(), run_id, &manifest).map_err(|error| BadRequest(error.to_string()))?;
    output.place.begin(dataset.run_id(), resume.is_some()).await?;
    let base = run_dir::default_base();
    clean::report(&run_dir::clean(&base)?);
    let run_directory = RunDirectory::create(&base, &run_id.to_string())?;
    let mut stage = Stage {
        launcher: Arc::new(Launcher::spawn()?),
        probes,
        names: Names::of_running_kernel(),
        fault_times: FaultTimes::default(),
        network: conditions.network,
        resources: conditions.resources(),
        cpus: conditions.cpus.clone(),
        callback_port: conditions.callback_port,
        timeout: conditions.timeout(),
        interrupted: interruption()?,
    };
    let mut bar = Bar::new(0);
    let suite = Suite { plan, seed, resumed, aggregate, guests };
    let outcome = suite.run(&mut stage, &run_directory, dataset, &manifest, &mut bar).await;
    bar.bar.finish_and_clear();
    let summary = outcome?;
    if output.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    } else {
        print(&SuiteReport(&summary).to_string())?;
    }
    let place = output.place.end(&summary.run_id, summary.finished, &stage.interrupted).await?;
    if !output.json {
        print(&format!("Results: {place} (run {})\n", summary.run_id))?;
    }
    if stage.interrupted.is_cancelled() {
        return Err(Interrupted.into());
    }
    let failed = summary.failed_count > 0 || summary.cells.iter().any(|cell| cell.failed_count > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the probes that count lack on this host.
fn missing_of(aggregate: &Aggregate) -> impl Iterator<Item = (String, String)> {
    aggregate.missing().iter().map(|missing| (missing.to_string(), missing.reason.clone()))
}

/// The probes that count, if a cell needs them; where this host can't have them, such cells are left out.
fn load_aggregate(plan: &mut Plan, left_out: &mut BTreeMap<String, String>) -> Option<Aggregate> {
    let names: BTreeSet<_> =
        plan.cells.iter().filter(|cell| cell.is_watched()).map(|cell| cell.experiment.clone()).collect();
    if names.is_empty() {
        return None;
    }
    match Aggregate::load(Limits::default()) {
        Ok(aggregate) => Some(aggregate),
        Err(error) => {
            plan.cells.retain(|cell| !cell.is_watched());
            left_out.extend(names.into_iter().map(|name| (name, format!("{error}; `sandscope doctor` says more"))));
            None
        }
    }
}

/// The run to go on with.
fn resumable(out: &Path, wanted: Option<&str>, fingerprint: &str) -> Result<Unfinished> {
    let all = unfinished(out)?;
    let fits = |run: &&Unfinished| wanted.is_none_or(|wanted| run.run_id == wanted);
    let found = all.iter().rev().filter(fits).find(|run| run.plan == fingerprint);
    found.cloned().ok_or_else(|| {
        let others = all.iter().filter(fits).count();
        let why = if others > 0 {
            "the interrupted ones were begun with another plan: the file, the sandboxes of this host or its probes have changed"
        } else {
            "none of this name was interrupted"
        };
        BadRequest(format!("there is no run in {} to go on with: {why}; leave out --resume", out.display())).into()
    })
}

fn manifest(
    name: &str,
    seed: u64,
    plan: &Plan,
    conditions: &Conditions,
    left_out: &BTreeMap<String, String>,
    (available, missing): (bool, Vec<(String, String)>),
    fingerprint: &str,
) -> Result<Manifest> {
    let mut manifest = Manifest::new(name, seed);
    manifest.probes.available = available;
    manifest.probes.missing = missing.into_iter().collect();
    manifest.conditions = conditions.recorded();
    let repeat = plan.repeat;
    let further = [
        (FINGERPRINT, fingerprint.to_owned()),
        ("repetitions", repeat.least.to_string()),
        ("most_repetitions", repeat.most.to_string()),
        ("width_ratio", repeat.width_ratio.to_string()),
        ("host_busy_ratio_allowed", plan.quiet.busy_ratio.to_string()),
    ];
    manifest.conditions.extend(further.map(|(name, value)| (name.to_owned(), value)));
    let left_out = left_out.iter().map(|(sandbox, reason)| (format!("left_out_{sandbox}"), reason.clone()));
    manifest.conditions.extend(left_out);
    for cell in &plan.cells {
        if !manifest.sandboxes.contains_key(cell.sandbox.name()) {
            manifest.sandboxes.insert(cell.sandbox.name().to_owned(), cell.sandbox.provenance()?);
        }
        if manifest.workloads.iter().all(|known| known.name != cell.workload.name) {
            manifest.workloads.push(Artifact::read(&cell.workload.name, cell.workload.content.path())?);
        }
    }
    Ok(manifest)
}

/// Lets the agent, and the sandboxes of processes that it starts, have as many connections as the host allows: the usual limit
/// of 1024 files would end a load before the workload does.
fn allow_connections() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<toml::Table> {
        pairs(&[text.to_owned()])
    }

    #[test]
    fn a_text_needs_no_quotes() {
        for text in ["network=host", "network = host", "network=\"host\""] {
            assert_eq!(read(text).unwrap()["network"].as_str(), Some("host"), "{text}");
        }
    }

    #[test]
    fn what_is_no_text_stays_what_it_is() {
        assert_eq!(read("vcpus=1").unwrap()["vcpus"].as_integer(), Some(1));
        assert_eq!(read("syscalls=false").unwrap()["syscalls"].as_bool(), Some(false));
        assert_eq!(read("connections=[1, 8]").unwrap()["connections"].as_array().map(Vec::len), Some(2));
        assert_eq!(read("client-cpus=\"1\"").unwrap()["client-cpus"].as_str(), Some("1"));
    }

    #[test]
    fn what_can_mean_several_things_is_refused_with_advice() {
        for text in ["network", "=host", "network=a b", "connections=[1", "cpus=0-3x", "network=host=x"] {
            let said = format!("{:#}", read(text).unwrap_err());
            assert!(
                said.contains(&format!("`{text}` is no KEY=VALUE")) && said.contains("texts plainly or in quotes"),
                "{said}"
            );
        }
    }
}
