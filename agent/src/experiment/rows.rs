//! Writes what is known of an instance into the dataset.

use super::{io_rows, observation::Observation, step_rows};
use crate::{
    explain::Explanation,
    record::{Dataset, Error, tables},
};

/// Appends all rows about an instance, its own row last.
///
/// # Errors
/// When a file can't be written.
pub fn append(observation: &Observation, explanation: Explanation, dataset: &mut Dataset) -> Result<(), Error> {
    let id = &observation.id;
    let row = instance_row(observation, &explanation);
    explanation.append(id, dataset)?;
    dataset.append(id, step_rows::steps(observation))?;
    dataset.append(id, step_rows::latencies(observation))?;
    dataset.append(id, step_rows::answers(observation))?;
    dataset.append(id, step_rows::traffic(observation))?;
    dataset.append(id, step_rows::responses(observation))?;
    dataset.append(id, step_rows::pickups(observation))?;
    dataset.append(id, io_rows::files(observation))?;
    dataset.append(id, io_rows::offloads(observation))?;
    dataset.append(id, step_rows::requests(observation))?;
    dataset.append(id, [row])
}

fn instance_row(observation: &Observation, explanation: &Explanation) -> tables::Instance {
    tables::Instance {
        experiment: observation.part.experiment.clone(),
        variant: observation.part.variant.clone(),
        repetition: observation.part.repetition,
        sandbox: observation.sandbox.clone(),
        workload: observation.workload.clone(),
        position: observation.position,
        probes: observation.probes,
        ok: observation.outcome.is_ok(),
        error: observation.outcome.as_ref().err().cloned(),
        wall_ns: observation.outcome.as_ref().ok().copied(),
        launched_at_monotonic_ns: observation.launch_ns.map(u64::cast_signed),
        launched_at_unix_ns: observation.launched_at_unix_ns,
        cache: observation.cache.name().to_owned(),
        cache_pages_count: observation.residency.map(|residency| residency.pages),
        cache_resident_pages_count: observation.residency.map(|residency| residency.resident),
        network: observation.network.to_owned(),
        lost_events_count: explanation.lost(),
        unattributed_ns: explanation.unattributed_ns(),
        inferred_events_count: explanation.inferred(),
        skipped_program_runs_count: explanation.skipped_runs(),
        conditions_json: conditions_json(observation, explanation.single_events()),
    }
}

/// The further conditions of an instance; `timeline` is one when its single events are written.
fn conditions_json(observation: &Observation, timeline: Option<String>) -> String {
    let timeline = timeline.map(|condition| ("timeline".to_owned(), condition));
    serde_json::Value::from_iter(observation.conditions.clone().into_iter().chain(timeline)).to_string()
}

/// Every table exists, also when there is nothing to say in it: readers can tell "nothing seen" from "not looked at".
pub(super) fn declare(dataset: &mut Dataset) -> Result<(), Error> {
    dataset.declare::<tables::Instance>()?;
    Explanation::declare(dataset)?;
    dataset.declare::<tables::Request>()?;
    dataset.declare::<tables::Step>()?;
    dataset.declare::<tables::Latency>()?;
    dataset.declare::<tables::Answer>()?;
    dataset.declare::<tables::Traffic>()?;
    dataset.declare::<tables::Response>()?;
    dataset.declare::<tables::Pickup>()?;
    dataset.declare::<tables::File>()?;
    dataset.declare::<tables::Offload>()?;
    dataset.declare::<tables::Outlier>()?;
    dataset.flush()?;
    Ok(())
}
