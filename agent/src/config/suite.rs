//! Files that say what a suite is: experiments, sandboxes and workloads, how often, and under which conditions.
//!
//! ```toml
//! repetitions = 10
//!
//! [[matrix]]                              # every experiment with every sandbox and every workload
//! experiments = ["cold-start", "cpu"]
//! sandboxes = ["runc", "gvisor"]
//! workloads = ["go", "node"]
//!
//! [experiment.cpu]                        # parameters that are not the default
//! requests = 20
//! ```

use super::{Problem, Source, sandboxes};
use crate::{
    experiment::{
        Arms,
        conditions::Conditions,
        kind::{self, Experiment, Needs, Variant},
        suite::{Cell, Plan, Quiet, Repeat},
    },
    sandbox::{self, Sandbox, Support, network},
    workload::Workload,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// What a file asks for.
pub struct SuiteFile {
    /// What is to be done; its cells have probes or not as asked, see `arms`.
    pub plan: Plan,
    /// The seed, if it gives one.
    pub seed: Option<u64>,
    /// Whether with and without probes.
    pub arms: Arms,
    /// Conditions of all instances.
    pub conditions: Conditions,
    /// Sandboxes that were left out because the host can't run them, and why.
    pub left_out: BTreeMap<String, String>,
}

/// The keys of a file beside definitions and parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Keys {
    seed: Option<u64>,
    #[serde(default = "one")]
    repetitions: Spanned<i64>,
    most_repetitions: Option<Spanned<i64>>,
    #[serde(default = "tenth")]
    width: Spanned<f64>,
    #[serde(default)]
    probes: ArmsKey,
    #[serde(default)]
    unsupported: Unsupported,
    #[serde(default = "anything")]
    busy: Spanned<f64>,
    #[serde(default = "seconds")]
    settle_s: Spanned<f64>,
    #[serde(default)]
    conditions: Conditions,
    matrix: Option<Vec<Spanned<Matrix>>>,
}

fn one() -> Spanned<i64> {
    Spanned::new(0..0, 1)
}

fn tenth() -> Spanned<f64> {
    Spanned::new(0..0, 0.1)
}

fn anything() -> Spanned<f64> {
    Spanned::new(0..0, 1.0)
}

fn seconds() -> Spanned<f64> {
    Spanned::new(0..0, 5.0)
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ArmsKey {
    #[default]
    Both,
    With,
    Without,
}

/// What to do about a sandbox that the host can't run.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unsupported {
    /// Nothing is started.
    #[default]
    Fail,
    /// It is left out, and that is said.
    Skip,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Matrix {
    experiments: Vec<Spanned<String>>,
    sandboxes: Vec<Spanned<String>>,
    #[serde(default = "default_workloads")]
    workloads: Vec<Spanned<String>>,
}

fn default_workloads() -> Vec<Spanned<String>> {
    vec![Spanned::new(0..0, "rust".to_owned())]
}

/// Reads a file.
///
/// # Errors
/// When it can't be read, is no TOML, has something that is not known, or asks for something that can't be done.
pub fn read(file: &Path) -> Result<SuiteFile, Problem> {
    parse_text(file, &Source::text(file)?)
}

/// Reads the text of a file.
///
/// # Errors
/// See [`read`].
pub fn parse_text(file: &Path, text: &str) -> Result<SuiteFile, Problem> {
    parse(&Source { file, text })
}

fn parse(source: &Source<'_>) -> Result<SuiteFile, Problem> {
    let document = DeTable::parse(source.text).map_err(|error| source.refused(&error, &(0..0)))?;
    let whole = document.span();
    let mut document = document.into_inner();
    let mut known = sandbox::all();
    if let Some((_, value)) = document.remove_entry("sandbox") {
        let defined = sandboxes::define_all(source, value)?;
        known.retain(|known| defined.iter().all(|defined| defined.name() != known.name()));
        known.extend(defined);
    }
    let parameters = document.remove_entry("experiment").map(|(_, value)| value);
    let experiments = experiments(source, parameters)?;
    let condition_places = places(document.get("conditions"));
    let keys = ValueDeserializer::from(Spanned::new(whole.clone(), DeValue::Table(document)));
    let keys = Keys::deserialize(keys).map_err(|error| source.refused(&error, &whole))?;
    if let Some((key, reason)) = keys.conditions.complaint() {
        let place = condition_places.get(key).cloned();
        return Err(source.problem(place, format!("`{key}`: {reason}")));
    }
    let repeat = repeat(source, &keys)?;
    let quiet = quiet(source, &keys)?;
    let matrix = keys.matrix.unwrap_or_default();
    if matrix.is_empty() {
        return Err(source.problem(None, "it has no [[matrix]]: nothing would be started"));
    }
    let mut builder = Builder {
        source,
        experiments,
        known: known.into_iter().map(Arc::from).collect(),
        network: keys.conditions.network,
        probes: keys.probes,
        unsupported: keys.unsupported,
        cells: Vec::new(),
        left_out: BTreeMap::new(),
    };
    for part in matrix {
        builder.add(&part.into_inner())?;
    }
    let Builder { cells, left_out, .. } = builder;
    let arms = match keys.probes {
        ArmsKey::Both => Arms::Both,
        ArmsKey::With => Arms::Probed,
        ArmsKey::Without => Arms::Bare,
    };
    let plan = Plan { cells, repeat, quiet, client_cpus: keys.conditions.client_cpus.clone() };
    Ok(SuiteFile { plan, seed: keys.seed, arms, conditions: keys.conditions, left_out })
}

fn repeat(source: &Source<'_>, keys: &Keys) -> Result<Repeat, Problem> {
    /// More than that is a mistake, not a plan.
    const MOST: i64 = 100_000;
    let check = |value: &Spanned<i64>, least: i64| {
        let count = *value.get_ref();
        let good = u32::try_from(count).ok().filter(|_| (least..=MOST).contains(&count));
        good.ok_or_else(|| {
            source.problem(Some(value.span()), format!("{count} repetitions: choose from {least} to {MOST}"))
        })
    };
    let least = check(&keys.repetitions, 1)?;
    let most = keys.most_repetitions.as_ref().map_or(Ok(least), |most| check(most, least.into()))?;
    let width = *keys.width.get_ref();
    if !(width > 0.0 && width <= 10.0) {
        let message = format!("a width of {width}: choose a share of the median above 0, such as 0.1");
        return Err(source.problem(Some(keys.width.span()), message));
    }
    Ok(Repeat { least, most, width_ratio: width })
}

fn quiet(source: &Source<'_>, keys: &Keys) -> Result<Quiet, Problem> {
    let busy = *keys.busy.get_ref();
    if !(0.0..=1.0).contains(&busy) {
        let message = format!("a host that is busy by {busy}: choose a share of its CPUs' time from 0 to 1");
        return Err(source.problem(Some(keys.busy.span()), message));
    }
    let settle = *keys.settle_s.get_ref();
    if !(0.0..=3600.0).contains(&settle) {
        return Err(source.problem(Some(keys.settle_s.span()), format!("{settle} s: choose from 0 to 3600")));
    }
    Ok(Quiet { busy_ratio: busy, patience: Duration::from_secs_f64(settle) })
}

/// The experiments by name, with the parameters that the file gives them.
fn experiments(
    source: &Source<'_>,
    parameters: Option<Spanned<DeValue<'_>>>,
) -> Result<BTreeMap<&'static str, Box<dyn Experiment>>, Problem> {
    let mut all: BTreeMap<_, _> = kind::KINDS.iter().map(|kind| (kind.name, (kind.default)())).collect();
    let Some(parameters) = parameters else { return Ok(all) };
    let span = parameters.span();
    let DeValue::Table(tables) = parameters.into_inner() else {
        return Err(source.problem(Some(span), "`experiment` has to be a table: write [experiment.NAME]"));
    };
    for (name, value) in tables {
        let kind = kind::find(name.get_ref()).map_err(|reason| source.problem(Some(name.span()), reason))?;
        let span = value.span();
        let places = places(Some(&value));
        let made = (kind.define)(ValueDeserializer::from(value)).map_err(|error| source.refused(&error, &span))?;
        made.check().map_err(|complaint| {
            let place = places.get(complaint.key).cloned().unwrap_or(span);
            source.problem(Some(place), format!("`{}`: {}", complaint.key, complaint.reason))
        })?;
        all.insert(kind.name, made);
    }
    Ok(all)
}

/// Where the values of a table are, by their keys.
fn places(table: Option<&Spanned<DeValue<'_>>>) -> BTreeMap<String, Range<usize>> {
    match table.map(Spanned::get_ref) {
        Some(DeValue::Table(table)) => {
            table.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// Puts the cells together.
struct Builder<'a> {
    source: &'a Source<'a>,
    experiments: BTreeMap<&'static str, Box<dyn Experiment>>,
    known: Vec<Arc<dyn Sandbox>>,
    network: network::Mode,
    probes: ArmsKey,
    unsupported: Unsupported,
    cells: Vec<Cell>,
    left_out: BTreeMap<String, String>,
}

impl Builder<'_> {
    fn add(&mut self, matrix: &Matrix) -> Result<(), Problem> {
        let all = matches!(&matrix.sandboxes[..], [only] if only.get_ref() == "available");
        let sandboxes = if all {
            self.known.iter().filter(|known| known.support().is_usable()).cloned().collect()
        } else {
            matrix.sandboxes.iter().map(|name| self.sandbox(name)).collect::<Result<Vec<_>, _>>()?
        };
        let workloads = matrix.workloads.iter().map(|name| self.workload(name)).collect::<Result<Vec<_>, _>>()?;
        for experiment in &matrix.experiments {
            let kind = kind::find(experiment.get_ref());
            let kind = kind.map_err(|reason| self.source.problem(Some(experiment.span()), reason))?;
            for sandbox in sandboxes.iter().filter(|_| !all) {
                self.check(kind.name, experiment, sandbox)?;
            }
        }
        let mut seen: BTreeSet<_> = self.cells.iter().map(Cell::key).collect();
        let mut without = Vec::new();
        for experiment in &matrix.experiments {
            let Some(made) = self.experiments.get(experiment.get_ref().as_str()) else { continue };
            let variants = made.variants();
            let without_file: Vec<_> = variants.iter().cloned().filter_map(Variant::without_file).collect();
            for sandbox in sandboxes.iter().filter(|sandbox| !self.left_out.contains_key(sandbox.name())) {
                if self.check(experiment.get_ref(), experiment, sandbox).is_err() {
                    continue;
                }
                let variants = if sandbox.abilities().host_file { &variants } else { &without_file };
                if made.needs().file && !sandbox.abilities().host_file {
                    let what = format!("what `{}` does with a file, for `{}`,", experiment.get_ref(), sandbox.name());
                    without.push((what, "it has no disk with the file that its workload serves".to_owned()));
                }
                for workload in &workloads {
                    for variant in variants {
                        let cell = Cell {
                            experiment: experiment.get_ref().clone(),
                            variant: variant.clone(),
                            sandbox: Arc::clone(sandbox),
                            workload: workload.clone(),
                            probes: false,
                        };
                        // Two parts of the matrix may overlap.
                        if seen.insert(cell.key()) {
                            self.cells.push(cell);
                        }
                    }
                }
            }
        }
        self.left_out.extend(without);
        Ok(())
    }

    fn sandbox(&mut self, name: &Spanned<String>) -> Result<Arc<dyn Sandbox>, Problem> {
        let problem = |reason: String| self.source.problem(Some(name.span()), reason);
        let found = sandbox::find_among(self.known.clone(), name.get_ref());
        let sandbox = found.map_err(|error| problem(error.to_string()))?;
        if let Support::Unsupported { evidence, remedy } = sandbox.support() {
            let reason = format!("{evidence}; {remedy}");
            if self.unsupported == Unsupported::Fail {
                return Err(problem(format!(
                    "{} can't run on this host: {reason}. `unsupported = \"skip\"` leaves it out",
                    name.get_ref()
                )));
            }
            self.left_out.insert(name.get_ref().clone(), reason);
        }
        Ok(sandbox)
    }

    fn workload(&self, name: &Spanned<String>) -> Result<Workload, Problem> {
        Workload::find(name.get_ref()).map_err(|error| self.source.problem(Some(name.span()), format!("{error:#}")))
    }

    /// Fails when a sandbox can't do what an experiment needs.
    fn check(&self, kind: &str, experiment: &Spanned<String>, sandbox: &Arc<dyn Sandbox>) -> Result<(), Problem> {
        let Some(made) = self.experiments.get(kind) else { return Ok(()) };
        let Needs { server, own_network, probes, .. } = made.needs();
        let abilities = sandbox.abilities();
        let impossible = |reason: String| Err(self.source.problem(Some(experiment.span()), reason));
        let name = sandbox.name();
        if server && !abilities.server {
            return impossible(format!(
                "`{kind}` asks a server, and `{name}` has none: it can do {}",
                doable(&self.experiments, |made| !made.needs().server)
            ));
        }
        let needs_file = |made: &dyn Experiment| {
            made.needs().file && made.variants().into_iter().all(|variant| variant.without_file().is_none())
        };
        if !abilities.host_file && needs_file(&**made) {
            return impossible(format!(
                "`{kind}` needs the file that the workload serves, and `{name}` has no disk with it: it can do {}",
                doable(&self.experiments, |made| !needs_file(made))
            ));
        }
        if probes && self.probes == ArmsKey::Without {
            return impossible(format!("`{kind}` is measured by probes: choose `probes = \"with\"` or `\"both\"`"));
        }
        if own_network && self.network == network::Mode::Host {
            return impossible(format!(
                "`{kind}` starts several instances at a time, which can't share the host's network: choose `network = \
                 \"private\"`"
            ));
        }
        Ok(())
    }
}

fn doable(all: &BTreeMap<&'static str, Box<dyn Experiment>>, can: impl Fn(&dyn Experiment) -> bool) -> String {
    let names: Vec<_> = all.iter().filter(|(_, made)| can(&***made)).map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ")
}
