//! The rows of the dataset about an instance's files, block requests and devices, by step.

use super::observation::{Observation, Recorded};
use crate::{
    correlate::{Histories, file_calls},
    probe::{Distribution, FileSums, Record, device_name},
    record::tables,
};
use rustix::param::page_size;
use sandscope_ebpf::map::FileCounts;
use std::{collections::BTreeMap, ops::Range};

/// What the instance did with files in each step.
pub(super) fn files(observation: &Observation) -> Vec<tables::File> {
    let start = observation.files_of_start.as_ref().map(|files| (0, files));
    let steps = (1..).zip(&observation.steps).filter_map(|(step, taken)| Some((step, taken.files.as_ref()?)));
    let rows = start.into_iter().chain(steps).flat_map(|(step, FileSums { files, faults_are_seen })| {
        files.iter().map(move |(&file, counts)| {
            let name = observation.file_names.get(&file).cloned();
            file_row(step, file, name, counts, *faults_are_seen)
        })
    });
    rows.collect()
}

fn file_row(
    step: u32,
    (inode, device): (u64, u32),
    name: Option<String>,
    counts: &FileCounts,
    faults_are_seen: bool,
) -> tables::File {
    let is_known = inode != 0;
    tables::File {
        step,
        device: is_known.then(|| device_name(device)),
        inode: is_known.then_some(inode),
        name,
        reads_count: counts.reads,
        read_bytes: counts.read_bytes,
        hit_bytes: counts.read_bytes.saturating_sub(counts.missed_by_reads * page_size() as u64),
        read_misses_count: counts.missed_by_reads,
        other_misses_count: counts.missed_by_faults,
        faults_count: faults_are_seen.then_some(counts.faults),
        writes_count: counts.writes,
        written_bytes: counts.written_bytes,
        written_pages_count: counts.made_by_writes,
    }
}

/// What the instance's devices leave to others.
pub(super) fn offloads(observation: &Observation) -> Vec<tables::Offload> {
    let rows = observation.offloads.iter().map(|offload| tables::Offload {
        place: offload.place.to_owned(),
        device: offload.device.clone(),
        tx_checksum: offload.tx_checksum,
        rx_checksum: offload.rx_checksum,
        scatter_gather: offload.scatter_gather,
        tso: offload.tso,
        gso: offload.gso,
        gro: offload.gro,
        mergeable_buffers: offload.mergeable_buffers,
    });
    rows.collect()
}

/// Block requests on one device in one direction.
#[derive(Default)]
struct Requests {
    size_bytes: u64,
    time_ns: u64,
    latencies: Distribution,
    sizes: Distribution,
}

/// The block requests of the instance that completed in each of these windows, each with the number of its step.
pub(super) fn block_latencies(recorded: &Recorded, windows: &[(u32, Range<u64>)]) -> Vec<tables::BlockLatency> {
    windows.iter().flat_map(|(step, window)| of_window(recorded, *step, window)).collect()
}

/// The start, unless it failed, and the steps of the instance, each with its time.
pub(super) fn windows(observation: &Observation) -> impl Iterator<Item = (u32, Range<u64>)> {
    let start = observation.launch_ns.zip(observation.outcome.as_ref().ok().copied());
    let start = start.map(|(launch_ns, wall_ns)| (0, launch_ns..launch_ns + wall_ns));
    let steps = (1..).zip(observation.steps.iter().map(|taken| taken.start_ns..taken.end_ns));
    start.into_iter().chain(steps)
}

/// The system calls of the instance that moved parts of files in each of these windows, each with the number of its step.
pub(super) fn file_latencies(histories: &Histories, windows: &[(u32, Range<u64>)]) -> Vec<tables::FileLatency> {
    let rows = windows.iter().flat_map(|&(step, ref window)| {
        file_calls(histories, window).into_iter().map(move |((role, write), calls)| {
            let (latency_floor_ns, latency_count) = calls.times.buckets();
            let (call_floor_bytes, call_count) = calls.sizes.buckets();
            tables::FileLatency {
                step,
                role,
                write,
                count: calls.times.count(),
                size_bytes: calls.bytes,
                time_ns: calls.time_ns,
                latency_floor_ns,
                latency_count,
                call_floor_bytes,
                call_count,
            }
        })
    });
    rows.collect()
}

fn of_window(recorded: &Recorded, step: u32, window: &Range<u64>) -> Vec<tables::BlockLatency> {
    let mut all: BTreeMap<(u32, bool), Requests> = BTreeMap::new();
    for record in &recorded.recording.records {
        let Record::Block(block) = record else { continue };
        if !record.concerns(recorded.scope) || !window.contains(&block.header.at_ns) {
            continue;
        }
        let requests = all.entry((block.device, block.header.flags == 1)).or_default();
        let time_ns = block.header.at_ns.saturating_sub(block.queued_ns);
        requests.size_bytes += u64::from(block.bytes);
        requests.time_ns += time_ns;
        requests.latencies.record(time_ns);
        requests.sizes.record(block.bytes.into());
    }
    let row = |((device, write), requests): ((u32, bool), Requests)| {
        let (latency_floor_ns, latency_count) = requests.latencies.buckets();
        let (request_floor_bytes, request_count) = requests.sizes.buckets();
        tables::BlockLatency {
            step,
            device: device_name(device),
            write,
            count: requests.latencies.count(),
            size_bytes: requests.size_bytes,
            time_ns: requests.time_ns,
            latency_floor_ns,
            latency_count,
            request_floor_bytes,
            request_count,
        }
    };
    all.into_iter().map(row).collect()
}
