//! From what was recorded of an instance to the rows of the dataset: pure, so that it is tested on written-down recordings.
//!
//! ```text
//! feed(recording) ─► histories ─► critical path, savings, executions, sums of the start ─┐
//! feed(recording) ─► histories ─► sums of the steps since then ──────────────────────────┴─► finish ─► Explanation ─► dataset
//! ```
//!
//! An instance under load makes more records in a minute than fit into memory, and the sums of its steps are all that is made of most
//! of them. So an [`Explainer`] may be fed part by part; it forgets what the time after a part does not depend on.

mod activity;
mod executions;
mod explanation;
mod io;
mod samples;
mod single_events;
mod start;

pub use explanation::Explanation;
pub use single_events::declare as declare_single_events;

use crate::{
    correlate::{Bystander, FaultPrices, Histories, Marker, Missing, NamedThread, Names, Phase, Source, View, phases},
    probe::{DeviceCounts, Lost, Record, Recording},
};
use sandscope_ebpf::event::Kind;
use start::Start;
use std::ops::Range;

/// What is known of an instance's course beside what probes recorded. Instants are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// When it was launched; `None`: it never was.
    pub launch_ns: Option<u64>,
    /// When its first good response was complete; `None`: there was none.
    pub response_ns: Option<u64>,
    /// Role of the bystander that saw the response.
    pub seen_by: &'static str,
    /// What the agent itself saw.
    pub markers: Vec<Marker>,
    /// How long the workload's `main` had run when its socket listened, as it says itself.
    pub since_main_ns: Option<u64>,
    /// The steps that were done so far, each with its number and its time.
    pub steps: Vec<(u32, Range<u64>)>,
    /// Whether its single events are to be written down.
    pub single_events: bool,
    /// If so, the lines of its console, each with the instant at which its end was read.
    pub console_lines: Vec<(u64, String)>,
}

impl Course {
    /// The start, unless it failed, and the steps, each with its time. The start is number 0.
    fn windows(&self) -> impl Iterator<Item = (u32, Range<u64>)> {
        let start = self.launch_ns.zip(self.response_ns).map(|(launch_ns, response_ns)| (0, launch_ns..response_ns));
        start.into_iter().chain(self.steps.iter().cloned())
    }

    /// What the sums of the start are of: from the launch to the first step, or to `end_ns` where there is none.
    fn start(&self, launch_ns: u64, end_ns: u64) -> Range<u64> {
        let end_ns = self.steps.first().map_or(end_ns, |(_, step)| step.start);
        launch_ns..end_ns.max(self.response_ns.unwrap_or(launch_ns))
    }
}

/// Explains one instance.
#[derive(Default)]
pub struct Explainer {
    histories: Histories,
    scope: u16,
    /// Records so far, by kind.
    seen: [u64; Kind::COUNT],
    lost: Lost,
    missing: Missing,
    start: Option<Start>,
    timed_faults: FaultPrices,
    windows: usize,
    rows: explanation::Rows,
    is_fed: bool,
}

impl Explainer {
    /// Of an instance whose records come from this source.
    pub fn new(source: Source) -> Self {
        Self { scope: source.scope, histories: Histories::new(source), ..Self::default() }
    }

    /// Where its records come from.
    pub fn source(&self) -> &Source {
        self.histories.source()
    }

    /// What page faults took that were timed in its first recording, by role.
    pub fn timed_faults(&self) -> &FaultPrices {
        &self.timed_faults
    }

    /// Takes in what was recorded since the last call, records of this instance alone, and explains what they complete. `named` are
    /// threads whose names tell their roles. The single events of an instance are made of one recording, so that one is fed once.
    pub fn feed(&mut self, recording: Recording, named: &[NamedThread], course: &Course, names: &mut Names) {
        let Some(launch_ns) = course.launch_ns else { return };
        if self.is_fed {
            self.histories.drop_before(self.histories.end_ns());
        }
        self.is_fed = true;
        names.learn(&recording.records);
        self.histories.feed(&recording.records, named);
        if self.histories.tasks.iter().any(|task| !task.samples().is_empty()) {
            names.learn_programs(self.histories.executed_programs());
        }
        for record in &recording.records {
            self.seen[usize::from(record.header().kind)] += 1;
        }
        self.lost.add(&recording.lost);
        for task in &self.histories.tasks {
            self.missing += task.missing();
        }
        let view = View { records: &recording.records, histories: &self.histories, names };
        if self.start.is_none() {
            self.timed_faults = self.histories.timed_faults();
            self.start = Some(Start::of(&view, course, launch_ns));
        }
        let new: Vec<_> = course.windows().skip(self.windows).collect();
        self.windows += new.len();
        self.rows.add(&view, launch_ns, &new);
    }

    /// Notes when the probes were told to forget the bystanders; before the last recording is fed.
    pub fn forget_bystanders(&mut self, bystanders: &[Bystander]) {
        self.histories.forget_bystanders(bystanders);
    }

    /// All that there is to say. `device` is the instance's own network device and what passed it.
    pub fn finish(self, course: &Course, device: Option<(String, DeviceCounts)>) -> Explanation {
        let Some(launch_ns) = course.launch_ns else { return Explanation::default() };
        let start = self.start.unwrap_or_else(|| Start {
            markers: start::with_main(course.markers.clone(), course, launch_ns),
            phases: without_probes(course, launch_ns),
            ..Start::default()
        });
        let counts = self.is_fed.then_some((self.scope, self.seen, self.lost, self.missing));
        Explanation::of(start, self.rows, counts, device, launch_ns)
    }
}

/// The phases of a start that only the agent itself saw.
fn without_probes(course: &Course, launch_ns: u64) -> Vec<Phase> {
    course.response_ns.map_or_else(Vec::new, |response_ns| phases(&course.markers, launch_ns, response_ns))
}

/// The records of one source alone.
pub fn own(recording: Recording, source: &Source) -> Recording {
    let Recording { records, lost } = recording;
    Recording { records: records.into_iter().filter(|record| source.concerns(record)).collect(), lost }
}

/// Parts of a recording, each with the records of one source alone; a record may be of several.
pub fn split(recording: &Recording, sources: &[&Source]) -> Vec<Recording> {
    let Recording { records, lost } = recording;
    let mut parts: Vec<Vec<Record>> = sources.iter().map(|_| Vec::new()).collect();
    for record in records {
        for (part, source) in parts.iter_mut().zip(sources) {
            if source.concerns(record) {
                part.push(record.clone());
            }
        }
    }
    parts.into_iter().map(|records| Recording { records, lost: lost.clone() }).collect()
}

/// An instant relative to the launch.
pub fn since(launch_ns: u64, at_ns: u64) -> i64 {
    // Both are uptimes: their difference fits by centuries.
    at_ns.cast_signed() - launch_ns.cast_signed()
}

#[cfg(test)]
mod tests;
