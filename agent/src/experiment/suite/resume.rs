//! What an interrupted run of the same plan has done, read back from its dataset.

use super::{
    CellKey,
    gathered::{AllGathered, Answers, figure},
};
use crate::{
    experiment::step_rows::START,
    record::{
        Outcome,
        tables::{Instance, Step},
    },
    results::{Error, Of, Results},
};
use anyhow::{Context, Result};
use std::{collections::HashMap, path::Path};

/// What was done before: nothing, or what an earlier run has left.
#[derive(Default)]
pub struct Resumed {
    pub(super) gathered: AllGathered,
    pub(super) next_position: u32,
    pub(super) outcome: Outcome,
}

/// A run that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its id.
    pub run_id: String,
    /// Its seed.
    pub seed: u64,
    /// Fingerprint of its plan.
    pub plan: String,
}

/// The condition of a run that keeps the fingerprint of its plan.
pub const FINGERPRINT: &str = "plan";

/// Runs below `out` that have not come to their end, the newest last.
///
/// # Errors
/// When a run can't be read.
pub fn unfinished(out: &Path) -> Result<Vec<Unfinished>> {
    let results = match Results::open(out) {
        Ok(results) => results,
        Err(Error::NoResults { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for run in results.runs() {
        let row = run.row()?;
        let manifest: serde_json::Value = serde_json::from_str(&row.manifest_json)
            .with_context(|| format!("the manifest of the run {} is no JSON", run.id()))?;
        if let (Some(plan), None) = (manifest["conditions"][FINGERPRINT].as_str(), row.finished_at_unix_ns) {
            found.push(Unfinished { run_id: run.id().to_owned(), seed: row.seed, plan: plan.to_owned() });
        }
    }
    Ok(found)
}

impl Resumed {
    /// Reads what a run below `out` has done.
    ///
    /// # Errors
    /// When its tables can't be read.
    pub fn read(out: &Path, run_id: &str) -> Result<Self> {
        let results = Results::open(out)?.only(run_id)?;
        let run = results.runs().first().with_context(|| format!("there is no run {run_id}"))?;
        let mut resumed = Self::default();
        let mut cells = HashMap::new();
        let (instances, steps) = (run.table::<Instance>()?, run.table::<Step>()?);
        for Of { instance_id, row } in &instances.rows {
            let key = CellKey {
                experiment: row.experiment.clone(),
                variant: row.variant.clone(),
                sandbox: row.sandbox.clone(),
                workload: row.workload.clone(),
                probes: row.probes,
            };
            let repetition = row.repetition;
            resumed.next_position = resumed.next_position.max(row.position + 1);
            resumed.outcome.instances_count += 1;
            resumed.outcome.failed_count += u32::from(!row.ok);
            resumed.outcome.lost_events_count += row.lost_events_count;
            if row.launched_at_monotonic_ns.is_none() {
                resumed.gathered.entry(key.clone()).or_default().add_step(
                    instance_id,
                    repetition,
                    0,
                    START,
                    None,
                    Answers::NONE,
                );
            }
            cells.insert(instance_id, (key, repetition));
        }
        for Of { instance_id, row } in &steps.rows {
            // A step without its instance is what a kill has left of one: the instance was never finished.
            let Some((key, repetition)) = cells.get(instance_id) else {
                resumed.next_position = resumed.next_position.max(position_of(instance_id) + 1);
                continue;
            };
            let gathered = resumed.gathered.entry(key.clone()).or_default();
            gathered.add_step(instance_id, *repetition, row.step, &row.name, figure(row), Answers::of(row));
        }
        Ok(resumed)
    }

    /// Instances that were done.
    pub fn instances_count(&self) -> u32 {
        self.outcome.instances_count
    }
}

/// The position that the id of an instance ends with.
fn position_of(instance: &str) -> u32 {
    instance.rsplit('-').next().and_then(|position| position.parse().ok()).unwrap_or(0)
}
