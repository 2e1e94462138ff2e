//! Rows about an instance's files, block requests and devices, as the probes recorded them.

use super::since;
use crate::{
    correlate::{View, file_calls},
    probe::{DeviceCounts, Distribution, Record, device_name, error_code},
    record::tables,
};
use sandscope_ebpf::event::Direction;
use std::{collections::BTreeMap, ops::Range};

/// Block requests on one device in one direction.
#[derive(Default)]
struct Requests {
    size_bytes: u64,
    time_ns: u64,
    latencies: Distribution,
    sizes: Distribution,
}

/// The block requests of the instance that completed in a window, summed.
pub(super) fn block_latencies(view: &View<'_>, step: u32, window: &Range<u64>) -> Vec<tables::BlockLatency> {
    let mut all: BTreeMap<(u32, bool), Requests> = BTreeMap::new();
    for record in view.records {
        let Record::Block(block) = record else { continue };
        if !window.contains(&block.header.at_ns) {
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

/// The system calls of the instance that moved parts of files in a window, summed.
pub(super) fn file_latencies(view: &View<'_>, step: u32, window: &Range<u64>) -> Vec<tables::FileLatency> {
    let row = |((role, write), calls): ((_, bool), crate::correlate::FileCalls)| {
        let (latency_floor_ns, latency_count) = calls.times.buckets();
        let (call_floor_bytes, call_count) = calls.sizes.buckets();
        tables::FileLatency {
            step,
            role: view.histories.texts.get(role).to_owned(),
            write,
            count: calls.times.count(),
            size_bytes: calls.bytes,
            time_ns: calls.time_ns,
            latency_floor_ns,
            latency_count,
            call_floor_bytes,
            call_count,
        }
    };
    file_calls(view.histories, window).into_iter().map(row).collect()
}

/// The block requests of the instance, one by one.
pub(super) fn block(view: &View<'_>, launch_ns: u64) -> Vec<tables::Block> {
    let rows = view.records.iter().filter_map(|record| match record {
        Record::Block(block) => Some(tables::Block {
            tid: block.header.tid,
            role: view.histories.role_of(block.header.tid, block.queued_ns).to_owned(),
            device: device_name(block.device),
            sector: block.sector,
            size_bytes: block.bytes.into(),
            write: block.header.flags == 1,
            queued_ns: since(launch_ns, block.queued_ns),
            issued_ns: (block.issued_ns != 0).then(|| since(launch_ns, block.issued_ns)),
            completed_ns: since(launch_ns, block.header.at_ns),
            error_code: error_code(block.error),
        }),
        _ => None,
    });
    rows.collect()
}

/// When the first frames passed the instance's device, per [`Direction`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FirstFrames([Option<u64>; 2]);

impl FirstFrames {
    pub(super) fn see(&mut self, view: &View<'_>) {
        for record in view.records {
            let Record::Frame(frame) = record else { continue };
            if let Some(first) = self.0.get_mut(usize::from(frame.header.flags)) {
                first.get_or_insert(frame.header.at_ns);
            }
        }
    }
}

/// What passed the instance's device.
pub(super) fn net(
    device: Option<(String, DeviceCounts)>,
    first: FirstFrames,
    launch_ns: u64,
) -> impl Iterator<Item = tables::Net> {
    device.into_iter().flat_map(move |(device, counts)| {
        [(Direction::FromSandbox, "from_sandbox"), (Direction::ToSandbox, "to_sandbox")].map(|(way, direction)| {
            tables::Net {
                device: device.clone(),
                direction: direction.to_owned(),
                frames_count: counts.frames[way as usize],
                size_bytes: counts.bytes[way as usize],
                first_frame_ns: first.0[way as usize].map(|at_ns| since(launch_ns, at_ns)),
            }
        })
    })
}
