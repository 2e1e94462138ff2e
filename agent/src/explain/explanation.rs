//! All rows that are made of what was recorded of an instance, and their way into the dataset.

use super::{
    activity::activity,
    io::{self, FirstFrames},
    start::{Start, marker_row, phase_row},
};
use crate::{
    correlate::{Missing, Phase, View},
    probe::{DeviceCounts, Lost},
    record::{Dataset, Error, tables},
};
use sandscope_ebpf::event::Kind;
use std::ops::Range;

/// Rows that grow with what is recorded after the start.
#[derive(Debug, Default)]
pub(super) struct Rows {
    activity: Vec<tables::Activity>,
    file_latencies: Vec<tables::FileLatency>,
    block_latencies: Vec<tables::BlockLatency>,
    block: Vec<tables::Block>,
    first_frames: FirstFrames,
}

impl Rows {
    /// Adds what was recorded, with the sums of these windows, each with the number of its step; 0 is the start.
    pub(super) fn add(&mut self, view: &View<'_>, launch_ns: u64, windows: &[(u32, Range<u64>)]) {
        for (step, window) in windows {
            if *step > 0 {
                self.activity.extend(activity(view, *step, window));
            }
            self.file_latencies.extend(io::file_latencies(view, *step, window));
            self.block_latencies.extend(io::block_latencies(view, *step, window));
        }
        self.block.extend(io::block(view, launch_ns));
        self.first_frames.see(view);
    }
}

/// Scope, records by kind, and what is missing among them.
type Counts = (u16, [u64; Kind::COUNT], Lost, Missing);

/// What was recorded of an instance, in the terms of the dataset.
#[derive(Debug, Default)]
pub struct Explanation {
    start: Start,
    rows: Rows,
    net: Vec<tables::Net>,
    events: Vec<tables::EventCount>,
    skipped_runs: u64,
    launch_ns: u64,
}

impl Explanation {
    pub(super) fn of(
        start: Start,
        rows: Rows,
        counts: Option<Counts>,
        device: Option<(String, DeviceCounts)>,
        launch_ns: u64,
    ) -> Self {
        let net = io::net(device, rows.first_frames, launch_ns).collect();
        let (mut events, mut skipped_runs) = (Vec::new(), 0);
        if let Some((scope, seen, lost, missing)) = counts {
            events.extend(Kind::ALL.map(|kind| event_row(kind, scope, &seen, &lost, missing)));
            skipped_runs = lost.skipped_runs;
        }
        Self { start, rows, net, events, skipped_runs, launch_ns }
    }

    /// The phases of the start, in order.
    pub fn phases(&self) -> &[Phase] {
        &self.start.phases
    }

    /// The critical path of the start, summed up; empty without probes.
    pub fn attribution(&self) -> &[tables::Attribution] {
        &self.start.attribution
    }

    /// What parts of it would have saved.
    pub fn savings(&self) -> &[tables::Saving] {
        &self.start.savings
    }

    /// Where in its programs it was whenever it was looked at.
    pub fn samples(&self) -> &[tables::Sample] {
        &self.start.samples
    }

    /// What its threads did until they were asked for more.
    pub fn sched(&self) -> &[tables::Sched] {
        &self.start.sched
    }

    /// Records by kind; empty without probes.
    pub fn events(&self) -> &[tables::EventCount] {
        &self.events
    }

    /// Its block requests.
    pub fn block(&self) -> &[tables::Block] {
        &self.rows.block
    }

    /// Time of the start that is not explained; `None` without probes.
    pub fn unattributed_ns(&self) -> Option<u64> {
        let rows = &self.start.attribution;
        let unattributed = rows.iter().filter(|row| row.category == "unattributed");
        (!rows.is_empty()).then(|| unattributed.map(|row| row.time_ns).sum())
    }

    /// Records that were lost, those included that may be another instance's.
    pub fn lost(&self) -> u64 {
        self.events.iter().map(|row| row.lost_count).sum()
    }

    /// Events that were not seen and are inferred; `None` without probes.
    pub fn inferred(&self) -> Option<u64> {
        (!self.events.is_empty()).then(|| self.events.iter().filter_map(|row| row.inferred_count).sum())
    }

    /// Runs of programs that the kernel skipped meanwhile; `None` without probes.
    pub fn skipped_runs(&self) -> Option<u64> {
        (!self.events.is_empty()).then_some(self.skipped_runs)
    }

    /// Whether all single events are there, for the conditions of the instance; `None` where none are written.
    pub fn single_events(&self) -> Option<String> {
        self.start.single_events.as_ref().map(super::single_events::SingleEvents::condition)
    }

    /// Appends all rows to the dataset.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn append(self, id: &str, dataset: &mut Dataset) -> Result<(), Error> {
        let Self { start, rows, net, events, launch_ns, .. } = self;
        dataset.append(id, start.markers.into_iter().map(|marker| marker_row(marker, launch_ns)))?;
        dataset.append(id, start.phases.iter().map(|phase| phase_row(phase, launch_ns)))?;
        dataset.append(id, start.attribution)?;
        dataset.append(id, start.savings)?;
        dataset.append(id, start.held_locks)?;
        dataset.append(id, start.executions)?;
        dataset.append(id, start.samples)?;
        dataset.append(id, start.exits)?;
        dataset.append(id, start.sched)?;
        dataset.append(id, start.wakeups)?;
        dataset.append(id, start.syscalls)?;
        dataset.append(id, start.faults)?;
        dataset.append(id, rows.block)?;
        dataset.append(id, net)?;
        dataset.append(id, events)?;
        dataset.append(id, rows.activity)?;
        dataset.append(id, rows.file_latencies)?;
        dataset.append(id, rows.block_latencies)?;
        match start.single_events {
            Some(single_events) => single_events.append(id, dataset),
            None => Ok(()),
        }
    }

    /// Says that the run observes these tables, also where there is nothing to say in them: readers can tell "nothing seen" from
    /// "not looked at".
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn declare(dataset: &mut Dataset) -> Result<(), Error> {
        dataset.declare::<tables::Marker>()?;
        dataset.declare::<tables::Phase>()?;
        dataset.declare::<tables::Attribution>()?;
        dataset.declare::<tables::Saving>()?;
        dataset.declare::<tables::HeldLock>()?;
        dataset.declare::<tables::Execution>()?;
        dataset.declare::<tables::Exit>()?;
        dataset.declare::<tables::Sched>()?;
        dataset.declare::<tables::Wakeup>()?;
        dataset.declare::<tables::Syscall>()?;
        dataset.declare::<tables::Fault>()?;
        dataset.declare::<tables::Block>()?;
        dataset.declare::<tables::Net>()?;
        dataset.declare::<tables::EventCount>()?;
        dataset.declare::<tables::Activity>()?;
        dataset.declare::<tables::FileLatency>()?;
        dataset.declare::<tables::BlockLatency>()
    }
}

fn event_row(kind: Kind, scope: u16, seen: &[u64], lost: &Lost, missing: Missing) -> tables::EventCount {
    let lost_count = lost.of(scope, kind);
    tables::EventCount {
        kind: snake_case(&format!("{kind:?}")),
        seen_count: seen[kind as usize] + lost_count,
        lost_count,
        inferred_count: match kind {
            Kind::Switch => Some(missing.arrivals + missing.departures),
            Kind::Wake => Some(missing.wakes),
            _ => None,
        },
    }
}

/// `TaskNew` becomes `task_new`.
fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
