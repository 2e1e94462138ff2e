//! The rows of the dataset about an instance's steps, its start included.

use super::{
    observation::Observation,
    step::{Action, Figure, Taken},
};
use crate::{
    explain::since,
    probe::{DeviceCounts, Distribution, Pickups},
    record::tables,
    workload::{
        client::Exchange,
        load::{Pace, Tally},
    },
};
use sandscope_ebpf::event::Direction;

/// Name of the step that every instance has.
pub(super) const START: &str = "start";

/// The steps of an instance in their order.
pub(super) fn steps(observation: &Observation) -> Vec<tables::Step> {
    let Some(launch_ns) = observation.launch_ns else { return Vec::new() };
    let taken = (1..).zip(&observation.steps).map(|(number, taken)| step(number, taken, launch_ns));
    std::iter::once(start(observation)).chain(taken).collect()
}

fn start(observation: &Observation) -> tables::Step {
    let wall_ns = observation.outcome.as_ref().ok().copied();
    let first = observation.requests.last();
    let good = observation.requests.iter().filter(|exchange| exchange.is_good()).count() as u64;
    tables::Step {
        step: 0,
        name: START.to_owned(),
        kind: START.to_owned(),
        path: first.map(|_| "/hello".to_owned()),
        connections_count: None,
        keep_alive: None,
        interval_ns: None,
        start_ns: 0,
        end_ns: wall_ns.map_or(0, u64::cast_signed),
        ok: wall_ns.is_some(),
        error: observation.outcome.as_ref().err().cloned(),
        good_count: good,
        bad_count: observation.requests.len() as u64 - good,
        unsent_count: 0,
        body_bytes: observation.requests.iter().filter_map(|exchange| exchange.body_bytes).sum(),
        file_pages_count: None,
        file_resident_before_count: None,
        file_resident_after_count: None,
        value_ns: wall_ns,
        value_bytes: None,
    }
}

fn step(number: u32, taken: &Taken, launch_ns: u64) -> tables::Step {
    let (kind, connections_count, keep_alive, interval_ns) = match taken.step.action {
        Action::Requests { .. } => ("requests", None, None, None),
        Action::Load { connections, keep_alive, pace, .. } => {
            let interval_ns = match pace {
                Pace::Closed | Pace::Count { .. } => None,
                Pace::Open { rate } => Some((1e9 / rate) as u64),
            };
            ("load", Some(connections), Some(keep_alive), interval_ns)
        }
        Action::Watch => ("watch", None, None, None),
        Action::Weigh => ("weigh", None, None, None),
    };
    let error = taken.first_error();
    tables::Step {
        step: number,
        name: taken.step.name.clone(),
        kind: kind.to_owned(),
        path: Some(taken.step.path.clone()).filter(|path| !path.is_empty()),
        connections_count,
        keep_alive,
        interval_ns,
        start_ns: since(launch_ns, taken.start_ns),
        end_ns: since(launch_ns, taken.end_ns),
        ok: error.is_none(),
        error,
        good_count: taken.good_count(),
        bad_count: taken.bad_count(),
        unsent_count: taken.tally.as_ref().map_or(0, |tally| tally.unsent_count),
        body_bytes: taken.body_bytes(),
        file_pages_count: taken.file_before.map(|residency| residency.pages),
        file_resident_before_count: taken.file_before.map(|residency| residency.resident),
        file_resident_after_count: taken.file_after.map(|residency| residency.resident),
        value_ns: taken.value().and_then(Figure::ns),
        value_bytes: taken.value().and_then(Figure::bytes),
    }
}

/// The histograms of an instance's loads.
pub(super) fn latencies(observation: &Observation) -> Vec<tables::Latency> {
    let tallies = (1..).zip(&observation.steps).filter_map(|(step, taken)| Some((step, taken.tally.as_ref()?)));
    let row = |(step, tally): (u32, &Tally)| {
        let histogram = &tally.latencies;
        let at = |quantile| histogram.value_at_quantile(quantile);
        // Its buckets are parts of those that all histograms in files have, so none is split.
        let mut latencies = Distribution::default();
        for bucket in histogram.iter_recorded() {
            latencies.record_many(bucket.value_iterated_to(), bucket.count_at_value());
        }
        let (bucket_floor_ns, bucket_count) = latencies.buckets();
        tables::Latency {
            step,
            count: histogram.len(),
            min_ns: histogram.min(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: histogram.max(),
            bucket_floor_ns,
            bucket_count,
        }
    };
    tallies.map(row).collect()
}

/// What passed the instance's device in each step.
pub(super) fn traffic(observation: &Observation) -> Vec<tables::Traffic> {
    let rows = watched(observation).flat_map(|(step, traffic)| {
        [(Direction::FromSandbox, "from_sandbox"), (Direction::ToSandbox, "to_sandbox")].map(|(way, direction)| {
            let (frame_floor_bytes, frame_count) = traffic.sizes[way as usize].buckets();
            tables::Traffic {
                step,
                direction: direction.to_owned(),
                frames_count: traffic.frames[way as usize],
                size_bytes: traffic.bytes[way as usize],
                retransmits_count: traffic.retransmits[way as usize],
                frame_floor_bytes,
                frame_count,
            }
        })
    });
    rows.collect()
}

/// The steps in which the instance's device was watched.
fn watched(observation: &Observation) -> impl Iterator<Item = (u32, &DeviceCounts)> {
    (1..).zip(&observation.steps).filter_map(|(step, taken)| Some((step, taken.traffic.as_ref()?)))
}

/// How long the instance took to answer in each step.
pub(super) fn responses(observation: &Observation) -> Vec<tables::Response> {
    let row = |(step, traffic): (u32, &DeviceCounts)| {
        let (bucket_floor_ns, bucket_count) = traffic.answers.buckets();
        let (count, time_ns) = (traffic.answers.count(), traffic.answers_ns);
        tables::Response { step, count, time_ns, bucket_floor_ns, bucket_count }
    };
    watched(observation).map(row).collect()
}

/// How long frames to the instance waited for its VMM in each step.
pub(super) fn pickups(observation: &Observation) -> Vec<tables::Pickup> {
    let seen = watched(observation).filter(|(_, traffic)| traffic.pickups.waits.count() > 0);
    let row = |(step, traffic): (u32, &DeviceCounts)| {
        let Pickups { waits, waits_ns, unseen } = &traffic.pickups;
        let (bucket_floor_ns, bucket_count) = waits.buckets();
        tables::Pickup {
            step,
            count: waits.count(),
            time_ns: *waits_ns,
            unseen_count: *unseen,
            bucket_floor_ns,
            bucket_count,
        }
    };
    seen.map(row).collect()
}

/// How the requests of an instance's loads were answered.
pub(super) fn answers(observation: &Observation) -> Vec<tables::Answer> {
    let mut rows = Vec::new();
    for (step, taken) in (1..).zip(&observation.steps) {
        let Some(tally) = &taken.tally else { continue };
        let statuses = tally.statuses.iter();
        rows.extend(statuses.map(|(&status, &count)| tables::Answer {
            step,
            status: Some(status),
            error: None,
            count,
        }));
        let errors = tally.errors.iter();
        rows.extend(errors.map(|(error, &count)| tables::Answer {
            step,
            status: None,
            error: Some(error.clone()),
            count,
        }));
    }
    rows
}

/// The requests of an instance that were made one by one.
pub(super) fn requests(observation: &Observation) -> Vec<tables::Request> {
    let launch_ns = observation.launch_ns.unwrap_or(0);
    let of_start = std::iter::once((0, &observation.requests));
    let of_steps = (1..).zip(observation.steps.iter().map(|taken| &taken.exchanges));
    let rows = of_start.chain(of_steps).flat_map(|(step, exchanges)| {
        (0..).zip(exchanges).map(move |(position, exchange)| request(step, position, exchange, launch_ns))
    });
    rows.collect()
}

fn request(step: u32, position: u32, exchange: &Exchange, launch_ns: u64) -> tables::Request {
    tables::Request {
        step: Some(step),
        position,
        started_ns: since(launch_ns, exchange.started_ns),
        connected_ns: exchange.connected_ns.map(|at| since(launch_ns, at)),
        first_byte_ns: exchange.first_byte_ns.map(|at| since(launch_ns, at)),
        finished_ns: Some(since(launch_ns, exchange.finished_ns)),
        status: exchange.status,
        attempts_count: exchange.attempts,
        body_bytes: exchange.body_bytes,
        workload_ns: exchange.workload_ns,
        error: exchange.error.clone(),
    }
}
