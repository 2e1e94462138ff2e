//! The single events of one instance, as rows: for whoever wants to look at one start on a time axis.

use super::{
    Course, since,
    start::{Words, category, cut, thread_number},
};
use crate::{
    correlate::{Element, Marker, Phase, Span, Timing, View, counters, each_exit, flows, vcpu_slices},
    record::{Dataset, Error, tables},
};

/// Rows of one table that one instance may fill. A Linux guest's boot makes some 10,000; a guest decides how often it exits.
const MAX_ROWS: usize = 250_000;

/// Says that the run observes these tables.
///
/// # Errors
/// When a file can't be written.
pub fn declare(dataset: &mut Dataset) -> Result<(), Error> {
    dataset.declare::<tables::AttributionSlice>()?;
    dataset.declare::<tables::ThreadSlice>()?;
    dataset.declare::<tables::VcpuSlice>()?;
    dataset.declare::<tables::ExitEvent>()?;
    dataset.declare::<tables::WakeupFlow>()?;
    dataset.declare::<tables::ConsoleLine>()?;
    dataset.declare::<tables::Counter>()
}

/// Rows of single events.
#[derive(Debug, Default)]
pub(super) struct SingleEvents {
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
struct Material<'a> {
    view: &'a View<'a>,
    course: &'a Course,
    markers: &'a [Marker],
    path: &'a [Element],
    phases: &'a [Phase],
    /// Of the histories, in the same order, from the launch to the end of the recording.
    spans: &'a [Vec<Span>],
    launch_ns: u64,
    end_ns: u64,
}

impl SingleEvents {
    /// The rows of one instance.
    pub(super) fn of(
        view: &View<'_>,
        course: &Course,
        markers: &[Marker],
        path: &[Element],
        phases: &[Phase],
        launch_ns: u64,
    ) -> Self {
        let end_ns = view.histories.end_ns();
        let spans: Vec<_> = view.histories.tasks.iter().map(|task| task.spans(launch_ns, end_ns)).collect();
        let material = Material { view, course, markers, path, phases, spans: &spans, launch_ns, end_ns };
        let mut all = Self::default();
        let cut = &mut all.cut;
        all.attribution = bounded("attribution_slices", cut, material.attribution());
        all.threads = bounded("thread_slices", cut, material.threads());
        all.vcpus = bounded("vcpu_slices", cut, material.vcpus());
        all.exits = bounded("exit_events", cut, material.exits().into_iter());
        all.flows = bounded("wakeup_flows", cut, material.flows());
        all.console = bounded("console_lines", cut, material.console());
        all.counters = bounded("counters", cut, material.counters());
        all
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
        since(self.launch_ns, at_ns)
    }

    fn attribution(&self) -> impl Iterator<Item = tables::AttributionSlice> {
        self.path.iter().flat_map(move |element| {
            cut(element, self.phases).map(move |(phase, part)| {
                let Words { category, role, syscall, object, detail, stack } = Words::of(self.view, &element.charge);
                tables::AttributionSlice {
                    start_ns: self.since(part.start),
                    end_ns: self.since(part.end),
                    phase: self.phases[phase].name.to_owned(),
                    category,
                    role,
                    thread: element.task.map(thread_number),
                    syscall,
                    object,
                    detail,
                    stack,
                }
            })
        })
    }

    fn threads(&self) -> impl Iterator<Item = tables::ThreadSlice> {
        let histories = self.view.histories;
        let word = |text| histories.texts.get(text).to_owned();
        (0..).zip(histories.tasks.iter().zip(self.spans)).flat_map(move |(thread, (history, spans))| {
            spans.iter().map(move |span| {
                let (category, detail, object) = category(&span.activity, self.view);
                tables::ThreadSlice {
                    thread,
                    tid: history.tid,
                    tgid: history.tgid,
                    comm: word(history.comm),
                    role: word(history.role_at(span.start_ns)),
                    vcpu: history.vcpu,
                    start_ns: self.since(span.start_ns),
                    end_ns: self.since(span.end_ns),
                    category: category.to_owned(),
                    detail,
                    object,
                }
            })
        })
    }

    fn vcpus(&self) -> impl Iterator<Item = tables::VcpuSlice> {
        vcpu_slices(self.view, self.spans).into_iter().map(|slice| tables::VcpuSlice {
            vcpu: slice.vcpu,
            start_ns: self.since(slice.start_ns),
            end_ns: self.since(slice.end_ns),
            state: slice.state.to_owned(),
            detail: slice.detail,
        })
    }

    fn exits(&self) -> Vec<tables::ExitEvent> {
        let mut rows = Vec::new();
        each_exit(self.view, &(0..u64::MAX), |exit| {
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
        let histories = self.view.histories;
        let word = |text| histories.texts.get(text).to_owned();
        flows(histories, self.spans, self.launch_ns, self.end_ns).into_iter().map(move |flow| {
            let woken = &histories.tasks[flow.woken];
            let cause = flow.wake.cause;
            tables::WakeupFlow {
                at_ns: self.since(flow.at_ns),
                thread: thread_number(flow.woken),
                tid: woken.tid,
                role: word(woken.role_at(flow.at_ns)),
                cause: cause.kind().to_owned(),
                detail: cause.detail(self.view.names),
                waker_thread: flow.waker().map(thread_number),
                waker: (cause.kind() == "task").then(|| word(flow.wake.running.who)),
                waited_ns: flow.waited_ns,
            }
        })
    }

    fn console(&self) -> impl Iterator<Item = tables::ConsoleLine> {
        let row = |number: u32, source: &str, at_ns: u64, line: String| tables::ConsoleLine {
            at_ns: self.since(at_ns),
            source: source.to_owned(),
            number: Some(number),
            line,
        };
        let seen = (0..).zip(self.markers.iter().filter(|marker| marker.name == "console_line"));
        let seen = seen.map(move |(number, marker)| {
            row(number, marker.source, marker.at_ns, marker.detail.clone().unwrap_or_default())
        });
        let read = (0..).zip(&self.course.console_lines);
        read.map(move |(number, (at_ns, line))| row(number, "console", *at_ns, line.clone())).chain(seen)
    }

    fn counters(&self) -> impl Iterator<Item = tables::Counter> {
        counters(self.view).into_iter().map(|counter| tables::Counter {
            at_ns: self.since(counter.at_ns),
            counter: counter.name.to_owned(),
            unit: counter.unit.to_owned(),
            vcpu: counter.vcpu,
            value: counter.value,
        })
    }
}
