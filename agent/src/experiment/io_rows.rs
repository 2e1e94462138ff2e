//! The rows of the dataset about an instance's files and devices that the agent asks for, by step.

use super::observation::Observation;
use crate::{
    probe::{FileSums, device_name},
    record::tables,
};
use rustix::param::page_size;
use sandscope_ebpf::map::FileCounts;

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
    let missed_bytes = counts.missed_by_reads * page_size() as u64;
    tables::File {
        step,
        device: is_known.then(|| device_name(device)),
        inode: is_known.then_some(inode),
        name,
        reads_count: counts.reads,
        read_bytes: counts.read_bytes,
        direct_bytes: Some(counts.direct_bytes),
        hit_bytes: counts.read_bytes.saturating_sub(counts.direct_bytes + missed_bytes),
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
