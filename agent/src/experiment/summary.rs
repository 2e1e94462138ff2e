//! What a run says in a few lines: per sandbox how long it took, in which phases, on what, and what looking at it cost.

use super::{
    observation::Observation,
    statistics::{RelativeDifference, median, quantile, relative_difference},
};
use crate::{
    explain::Explanation,
    record::tables::{Attribution, Instance, Phase},
    results::{Error, Kind, PathElement, Run},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Categories shown per sandbox.
const TOP: usize = 5;

/// A run in a few lines.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run_id: String,
    /// Per sandbox, in the order in which they were asked for.
    pub sandboxes: Vec<SandboxSummary>,
    /// Records of all probes that found no room.
    pub lost_events_count: u64,
    /// Why nothing was recorded, if nothing was.
    pub probes_missing: Option<String>,
}

/// One sandbox over all its instances. Times in nanoseconds.
#[derive(Debug, Serialize)]
pub struct SandboxSummary {
    /// Its name.
    pub sandbox: String,
    /// Instances that gave a good response.
    pub ok_count: usize,
    /// Those that did not.
    pub failed_count: usize,
    /// The first reason of those.
    pub first_error: Option<String>,
    /// Whether the wall times are of instances without probes; with them, if there were no others.
    pub wall_without_probes: bool,
    /// Launch to first response: median, and the values that 5 % and 95 % lie below.
    pub wall_median_ns: Option<f64>,
    /// See `wall_median_ns`.
    pub wall_p5_ns: Option<f64>,
    /// See `wall_median_ns`.
    pub wall_p95_ns: Option<f64>,
    /// How much longer instances with probes take.
    pub observer_effect: Option<RelativeDifference>,
    /// Mean time of each phase over the instances with probes, in their order.
    pub phases: Vec<(String, f64)>,
    /// Largest shares of the wall time over the instances with probes.
    pub top: Vec<TopShare>,
    /// Largest unattributed share of an instance.
    pub worst_unattributed_ratio: Option<f64>,
}

/// An element's share of the wall time.
#[derive(Debug, Serialize)]
pub struct TopShare {
    /// Category.
    pub category: String,
    /// Who.
    pub role: Option<String>,
    /// In which system call, or `page fault`.
    pub syscall: Option<String>,
    /// What that is about.
    pub object: Option<String>,
    /// More.
    pub detail: Option<String>,
    /// All of it in words.
    pub words: String,
    /// Mean time per instance.
    pub mean_ns: f64,
    /// Of the mean wall time of these instances.
    pub share_ratio: f64,
}

/// What is kept of one instance.
struct Kept {
    probes: bool,
    wall: Result<u64, String>,
    phases: Vec<(String, u64)>,
    shares: BTreeMap<PathElement, u64>,
    unattributed_ns: Option<u64>,
}

impl Summary {
    /// What a run said at its end, from its tables; of a run that goes on or was killed, what it has written so far.
    ///
    /// # Errors
    /// When a table can't be read.
    pub fn of_run(run: &Run) -> Result<Self, Error> {
        let about = run.row()?;
        let instances = run.observed::<Instance>()?;
        let instances = || instances.iter().flat_map(|table| &table.rows);
        let mut kept: BTreeMap<&str, Kept> =
            instances().map(|instance| (instance.instance_id.as_str(), Kept::of(instance))).collect();
        for phase in run.observed::<Phase>()?.iter().flat_map(|table| &table.rows) {
            if let Some(kept) = kept.get_mut(phase.instance_id.as_str()) {
                kept.phases.push((phase.phase.clone(), phase.time_ns));
            }
        }
        for share in run.observed::<Attribution>()?.iter().flat_map(|table| &table.rows) {
            if let Some(kept) = kept.get_mut(share.instance_id.as_str()) {
                *kept.shares.entry(PathElement::of(share)).or_default() += share.time_ns;
            }
        }
        let kinds: BTreeSet<Kind> = instances().map(|instance| Kind::of(instance)).collect();
        let alone = |kind: &Kind| kinds.iter().filter(|other| other.sandbox == kind.sandbox).count() == 1;
        let name = |kind: &Kind| if alone(kind) { kind.sandbox.clone() } else { kind.to_string() };
        let mut gathered = Gathered::default();
        for instance in instances() {
            gathered.lost += instance.lost_events_count;
            if let Some(kept) = kept.remove(instance.instance_id.as_str()) {
                gathered.of_sandbox(&name(&Kind::of(instance))).push(kept);
            }
        }
        let missing = about.probes_missing.filter(|_| !about.probes_available);
        Ok(gathered.summary(run.id(), about.seed, missing))
    }
}

impl Kept {
    /// What the instance's own row tells.
    fn of(instance: &Instance) -> Self {
        let error = || instance.error.clone().unwrap_or_else(|| "no reason was written down".to_owned());
        Self {
            probes: instance.probes,
            wall: instance.wall_ns.filter(|_| instance.ok).ok_or_else(error),
            phases: Vec::new(),
            shares: BTreeMap::new(),
            unattributed_ns: instance.unattributed_ns,
        }
    }
}

/// Gathers instances as they end.
#[derive(Default)]
pub(super) struct Gathered {
    sandboxes: Vec<(String, Vec<Kept>)>,
    lost: u64,
}

impl Gathered {
    pub(super) fn of(sandboxes: impl IntoIterator<Item = String>) -> Self {
        Self { sandboxes: sandboxes.into_iter().map(|name| (name, Vec::new())).collect(), lost: 0 }
    }

    pub(super) fn add(&mut self, sandbox: usize, observation: &Observation, explanation: &Explanation) {
        let mut shares = BTreeMap::new();
        for row in explanation.attribution() {
            *shares.entry(PathElement::of(row)).or_default() += row.time_ns;
        }
        self.lost += explanation.lost();
        self.sandboxes[sandbox].1.push(Kept {
            probes: observation.probes,
            wall: observation.outcome.clone(),
            phases: explanation
                .phases()
                .iter()
                .map(|phase| (phase.name.to_owned(), phase.end_ns - phase.start_ns))
                .collect(),
            shares,
            unattributed_ns: explanation.unattributed_ns(),
        });
    }

    /// The instances of a sandbox, which is added if it is new.
    fn of_sandbox(&mut self, sandbox: &str) -> &mut Vec<Kept> {
        let place = self.sandboxes.iter().position(|(known, _)| known == sandbox).unwrap_or_else(|| {
            self.sandboxes.push((sandbox.to_owned(), Vec::new()));
            self.sandboxes.len() - 1
        });
        &mut self.sandboxes[place].1
    }

    /// Instances so far, and those of them that failed.
    pub(super) fn counts(&self) -> (u32, u32) {
        let all = || self.sandboxes.iter().flat_map(|(_, kept)| kept);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (count(all().count()), count(all().filter(|kept| kept.wall.is_err()).count()))
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn summary(&self, run_id: &str, seed: u64, probes_missing: Option<String>) -> Summary {
        Summary {
            run_id: run_id.to_owned(),
            sandboxes: self.sandboxes.iter().map(|(name, kept)| summarise(name, kept, seed)).collect(),
            lost_events_count: self.lost,
            probes_missing,
        }
    }
}

fn summarise(sandbox: &str, kept: &[Kept], seed: u64) -> SandboxSummary {
    let walls = |probes: bool| -> Vec<f64> {
        kept.iter()
            .filter(|kept| kept.probes == probes)
            .filter_map(|kept| Some(*kept.wall.as_ref().ok()? as f64))
            .collect()
    };
    let (probed, bare) = (walls(true), walls(false));
    let wall_without_probes = !bare.is_empty();
    let shown = if wall_without_probes { &bare } else { &probed };
    let explained: Vec<&Kept> = kept.iter().filter(|kept| !kept.shares.is_empty()).collect();
    let phases_of = if explained.is_empty() { kept.iter().collect() } else { explained.clone() };
    SandboxSummary {
        sandbox: sandbox.to_owned(),
        ok_count: kept.iter().filter(|kept| kept.wall.is_ok()).count(),
        failed_count: kept.iter().filter(|kept| kept.wall.is_err()).count(),
        first_error: kept.iter().find_map(|kept| kept.wall.clone().err()),
        wall_without_probes,
        wall_median_ns: median(shown),
        wall_p5_ns: quantile(shown, 0.05),
        wall_p95_ns: quantile(shown, 0.95),
        observer_effect: relative_difference(&probed, &bare, seed),
        phases: mean_phases(&phases_of),
        top: top_shares(&explained),
        worst_unattributed_ratio: explained
            .iter()
            .filter_map(|kept| Some(kept.unattributed_ns? as f64 / *kept.wall.as_ref().ok()? as f64))
            .max_by(f64::total_cmp),
    }
}

/// Mean time of each phase, in their order; an instance without a phase counts as 0.
fn mean_phases(kept: &[&Kept]) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    let with_phases: Vec<_> = kept.iter().filter(|kept| !kept.phases.is_empty()).collect();
    for kept in &with_phases {
        // Behind the phase that it follows.
        let mut place = 0;
        for (name, time_ns) in &kept.phases {
            match sums.iter().position(|(known, _)| known == name) {
                Some(known) => {
                    sums[known].1 += *time_ns as f64;
                    place = known + 1;
                }
                None => {
                    sums.insert(place, (name.clone(), *time_ns as f64));
                    place += 1;
                }
            }
        }
    }
    for (_, sum) in &mut sums {
        *sum /= with_phases.len() as f64;
    }
    sums
}

fn top_shares(explained: &[&Kept]) -> Vec<TopShare> {
    let wall: f64 = explained.iter().filter_map(|kept| kept.wall.as_ref().ok()).map(|&wall| wall as f64).sum();
    let mut sums: BTreeMap<&PathElement, u64> = BTreeMap::new();
    for kept in explained {
        for (key, time_ns) in &kept.shares {
            *sums.entry(key).or_default() += time_ns;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|&(_, time_ns)| time_ns > 0).collect();
    sums.sort_by_key(|&(_, time_ns)| std::cmp::Reverse(time_ns));
    let row = |(element, time_ns): (&PathElement, u64)| TopShare {
        category: element.category.clone(),
        role: element.role.clone(),
        syscall: element.syscall.clone(),
        object: element.object.clone(),
        detail: element.detail.clone(),
        words: element.words(),
        mean_ns: time_ns as f64 / explained.len() as f64,
        share_ratio: time_ns as f64 / wall,
    };
    sums.into_iter().take(TOP).map(row).collect()
}
