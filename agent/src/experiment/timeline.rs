//! The single events of one instance, as rows: for which instances they are written, and how many at most.

use super::observation::{Observation, Recorded};
use crate::{
    correlate::{Account, Activity, Histories, Marker, Names, Span, Timing, counters, each_exit, flows, vcpu_slices},
    probe::Record,
    record::{Dataset, Error, tables},
};

/// Rows of one table that one instance may fill. A Linux guest's boot makes some 10,000; a guest decides how often it exits.
const MAX_ROWS: usize = 250_000;

/// Instances whose single events are written down.
///
/// Not all by default: those of a start of gVisor are some 50,000 rows in nearly a megabyte, some eighty times what its rows in
/// all other tables take. Not none: a start that was seen can be looked at without doing it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Timelines {
    /// Of each kind the first one with probes that gives a good response.
    #[default]
    First,
    /// All with probes.
    All,
    /// None.
    None,
}

impl Timelines {
    /// Its name on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// Rows of single events.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    attribution: Vec<tables::AttributionSlice>,
    threads: Vec<tables::ThreadSlice>,
    vcpus: Vec<tables::VcpuSlice>,
    exits: Vec<tables::ExitEvent>,
    flows: Vec<tables::WakeupFlow>,
    console: Vec<tables::ConsoleLine>,
    counters: Vec<tables::Counter>,
    /// Tables that had more rows than are kept.
    cut: Vec<&'static str>,
}

/// What the rows are made of.
pub(super) struct Material<'a> {
    pub(super) observation: &'a Observation,
    pub(super) recorded: &'a Recorded,
    pub(super) histories: &'a Histories,
    /// Of the histories, in the same order, from the launch to the end of the recording.
    pub(super) spans: &'a [Vec<Span>],
    pub(super) account: &'a Account,
    pub(super) markers: &'a [Marker],
    pub(super) names: &'a Names,
    pub(super) launch_ns: u64,
    pub(super) end_ns: u64,
}

impl Timeline {
    /// Says that the run observes these tables.
    pub(super) fn declare(dataset: &mut Dataset) -> Result<(), Error> {
        dataset.declare::<tables::AttributionSlice>()?;
        dataset.declare::<tables::ThreadSlice>()?;
        dataset.declare::<tables::VcpuSlice>()?;
        dataset.declare::<tables::ExitEvent>()?;
        dataset.declare::<tables::WakeupFlow>()?;
        dataset.declare::<tables::ConsoleLine>()?;
        dataset.declare::<tables::Counter>()
    }

    /// The rows of one instance.
    pub(super) fn of(material: &Material<'_>) -> Self {
        let mut timeline = Self::default();
        let cut = &mut timeline.cut;
        timeline.attribution = bounded("attribution_slices", cut, material.attribution());
        timeline.threads = bounded("thread_slices", cut, material.threads());
        timeline.vcpus = bounded("vcpu_slices", cut, material.vcpus());
        timeline.exits = bounded("exit_events", cut, material.exits().into_iter());
        timeline.flows = bounded("wakeup_flows", cut, material.flows());
        timeline.console = bounded("console_lines", cut, material.console());
        timeline.counters = bounded("counters", cut, material.counters());
        timeline
    }

    /// Whether all is there, for the conditions of the instance.
    pub(super) fn condition(&self) -> String {
        if self.cut.is_empty() {
            "complete".to_owned()
        } else {
            format!("cut to the first {MAX_ROWS} rows: {}", self.cut.join(", "))
        }
    }

    /// Appends the rows to the dataset.
    pub(super) fn append(self, id: &str, dataset: &mut Dataset) -> Result<(), Error> {
        dataset.append(id, self.attribution)?;
        dataset.append(id, self.threads)?;
        dataset.append(id, self.vcpus)?;
        dataset.append(id, self.exits)?;
        dataset.append(id, self.flows)?;
        dataset.append(id, self.console)?;
        dataset.append(id, self.counters)
    }
}

/// The first rows, as many as are kept; notes the table when there are more.
fn bounded<T>(table: &'static str, cut: &mut Vec<&'static str>, mut rows: impl Iterator<Item = T>) -> Vec<T> {
    let kept = rows.by_ref().take(MAX_ROWS).collect();
    if rows.next().is_some() {
        cut.push(table);
    }
    kept
}

impl Material<'_> {
    fn since(&self, at_ns: u64) -> i64 {
        super::explain::since(self.launch_ns, at_ns)
    }

    fn records(&self) -> &[Record] {
        &self.recorded.recording.records
    }

    fn attribution(&self) -> impl Iterator<Item = tables::AttributionSlice> {
        self.account.stretches().map(|(start_ns, share)| tables::AttributionSlice {
            start_ns: self.since(start_ns),
            end_ns: self.since(start_ns + share.time_ns),
            phase: share.phase.to_owned(),
            category: share.category.name().to_owned(),
            role: share.role,
            detail: share.detail,
        })
    }

    fn threads(&self) -> impl Iterator<Item = tables::ThreadSlice> {
        (0..).zip(self.histories.tasks.iter().zip(self.spans)).flat_map(move |(thread, (history, spans))| {
            spans.iter().map(move |span| {
                let (category, detail) = category(&span.activity, self.names);
                tables::ThreadSlice {
                    thread,
                    tid: history.tid,
                    tgid: history.tgid,
                    comm: history.comm.clone(),
                    role: history.role_at(span.start_ns).to_owned(),
                    vcpu: history.vcpu,
                    start_ns: self.since(span.start_ns),
                    end_ns: self.since(span.end_ns),
                    category: category.to_owned(),
                    detail,
                }
            })
        })
    }

    fn vcpus(&self) -> impl Iterator<Item = tables::VcpuSlice> {
        let slices = vcpu_slices(self.records(), self.recorded.scope, self.histories, self.spans, self.names);
        slices.into_iter().map(|slice| tables::VcpuSlice {
            vcpu: slice.vcpu,
            start_ns: self.since(slice.start_ns),
            end_ns: self.since(slice.end_ns),
            state: slice.state.to_owned(),
            detail: slice.detail,
        })
    }

    fn exits(&self) -> Vec<tables::ExitEvent> {
        let mut rows = Vec::new();
        each_exit(self.records(), self.recorded.scope, self.histories, self.names, &(0..u64::MAX), |exit| {
            // One more than is kept shows that there were more.
            if rows.len() <= MAX_ROWS {
                rows.push(tables::ExitEvent {
                    vcpu: exit.vcpu,
                    at_ns: self.since(exit.at_ns),
                    source: exit.source.to_owned(),
                    reason: exit.reason,
                    detail: exit.detail,
                    time_ns: match exit.timing {
                        Timing::Timed(time_ns) => time_ns,
                        Timing::Untimed => None,
                    },
                });
            }
        });
        rows
    }

    fn flows(&self) -> impl Iterator<Item = tables::WakeupFlow> {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let flows = flows(self.histories, self.spans, self.launch_ns, self.end_ns);
        flows.into_iter().map(move |flow| {
            let woken = &self.histories.tasks[flow.woken];
            tables::WakeupFlow {
                at_ns: self.since(flow.at_ns),
                thread: number(flow.woken),
                tid: woken.tid,
                role: woken.role_at(flow.at_ns).to_owned(),
                cause: flow.wake.cause.to_owned(),
                detail: Some(flow.wake.detail.clone()).filter(|detail| !detail.is_empty()),
                waker_thread: flow.waker.map(number),
                waker: (flow.wake.cause == "task").then(|| flow.wake.waker.clone()),
                waited_ns: flow.waited_ns,
            }
        })
    }

    fn console(&self) -> impl Iterator<Item = tables::ConsoleLine> {
        let row = |source: &str, at_ns: u64, line: String| tables::ConsoleLine {
            at_ns: self.since(at_ns),
            source: source.to_owned(),
            line,
        };
        let seen = self.markers.iter().filter(|marker| marker.name == "console_line");
        let seen = seen.map(move |marker| row(marker.source, marker.at_ns, marker.detail.clone().unwrap_or_default()));
        let read = self.observation.console_lines.iter();
        read.map(move |(at_ns, line)| row("console", *at_ns, line.clone())).chain(seen)
    }

    fn counters(&self) -> impl Iterator<Item = tables::Counter> {
        counters(self.records(), self.recorded.scope, self.histories).into_iter().map(|counter| tables::Counter {
            at_ns: self.since(counter.at_ns),
            counter: counter.name.to_owned(),
            unit: counter.unit.to_owned(),
            vcpu: counter.vcpu,
            value: counter.value,
        })
    }
}

/// The columns of `sched` that the activities are counted in, and what is known besides.
fn category(activity: &Activity, names: &Names) -> (&'static str, Option<String>) {
    match activity {
        Activity::Guest => ("guest", None),
        Activity::Exit { reason, isa } => ("exit", Some(names.exits.name(*isa, *reason))),
        Activity::KvmRun => ("kvm_run", None),
        Activity::User => ("user", None),
        Activity::Kernel { call } => ("kernel", Some(call.clone())),
        Activity::Runnable => ("runnable", None),
        Activity::Blocked { call, .. } => ("blocked", call.clone()),
    }
}
