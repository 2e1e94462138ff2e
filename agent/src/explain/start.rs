//! What is made of the records of a start: markers and phases, the critical path, and sums over threads, wake-ups and calls.

use super::{Course, executions, samples, since, single_events::SingleEvents};
use crate::{
    correlate::{
        Activity, Category, Charge, Element, ExitCount, Graph, Held, Marker, Phase, Saving, Span, Text, View, calls,
        exits, faults, folded, markers_of_records, phases, threads, undelay, wakeups, workload_main,
    },
    record::tables,
};
use std::{collections::BTreeMap, ops::Range};

/// A start, explained.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) markers: Vec<Marker>,
    pub(super) phases: Vec<Phase>,
    pub(super) attribution: Vec<tables::Attribution>,
    pub(super) savings: Vec<tables::Saving>,
    pub(super) held_locks: Vec<tables::HeldLock>,
    pub(super) executions: Vec<tables::Execution>,
    pub(super) samples: Vec<tables::Sample>,
    pub(super) exits: Vec<tables::Exit>,
    pub(super) sched: Vec<tables::Sched>,
    pub(super) wakeups: Vec<tables::Wakeup>,
    pub(super) syscalls: Vec<tables::Syscall>,
    pub(super) faults: Vec<tables::Fault>,
    pub(super) single_events: Option<SingleEvents>,
}

impl Start {
    pub(super) fn of(view: &View<'_>, course: &Course, launch_ns: u64) -> Self {
        let mut start = Self { markers: markers(view, course, launch_ns), ..Self::default() };
        if let Some(response_ns) = course.response_ns {
            start.phases = phases(&start.markers, launch_ns, response_ns);
        }
        let window = course.start(launch_ns, view.histories.end_ns());
        let spans: Vec<_> = view.histories.tasks.iter().map(|task| task.spans(window.start, window.end)).collect();
        start.sum(view, &spans, &window);
        let mut path = Vec::new();
        if let Some(response_ns) = course.response_ns {
            let graph = Graph::of_spans(view.histories, view.records, view.names, spans, (launch_ns, response_ns));
            if let Some(seer) = view.histories.bystander(course.seen_by) {
                path = graph.path(seer);
                start.savings = graph.savings(seer, &path).iter().map(|saving| saving_row(view, saving)).collect();
            }
            start.attribution = attribution(view, &path, &start.phases);
            start.held_locks = held_locks(view, &graph, &path);
            start.executions = executions::rows(view, graph.spans(), &path, launch_ns);
            start.samples = samples::rows(view, graph.spans(), &path, &start.phases);
        }
        if course.single_events {
            start.single_events = Some(SingleEvents::of(view, course, &start.markers, &path, &start.phases, launch_ns));
        }
        start
    }

    /// Sums up what the threads did in the time of the start.
    fn sum(&mut self, view: &View<'_>, spans: &[Vec<Span>], window: &Range<u64>) {
        let histories = view.histories;
        let word = |text: Text| histories.texts.get(text).to_owned();
        let totals = threads(histories, spans, window);
        let sched = histories.tasks.iter().zip(totals).map(|(task, totals)| tables::Sched {
            tid: task.tid,
            tgid: task.tgid,
            comm: word(task.comm),
            role: word(task.role()),
            on_cpu_ns: totals.on_cpu_ns,
            user_ns: totals.user_ns,
            fault_ns: Some(totals.fault_ns),
            interrupt_ns: Some(totals.interrupt_ns),
            kernel_ns: totals.kernel_ns,
            guest_ns: totals.guest_ns,
            exit_ns: totals.exit_ns,
            kvm_run_ns: totals.kvm_run_ns,
            runnable_ns: totals.runnable_ns,
            throttled_ns: Some(totals.throttled_ns),
            blocked_ns: totals.blocked_ns,
            switches_count: totals.switches,
            preemptions_count: totals.preemptions,
            sleeps_count: totals.sleeps,
            wakeups_count: totals.wakeups,
            migrations_count: totals.migrations,
        });
        self.sched = sched.collect();
        let woken = wakeups(histories, spans).into_iter().map(|count| tables::Wakeup {
            tid: count.tid,
            role: word(count.role),
            cause: count.wake.cause.kind().to_owned(),
            detail: count.wake.cause.detail(view.names),
            waker: (count.wake.cause.kind() == "task").then(|| word(count.wake.running.who)),
            count: count.count,
            waited_ns: count.waited_ns,
            waker_tid: None,
            waker_inside: None,
            on_cpu_after_ns: None,
        });
        self.wakeups = joined_wakeups(woken);
        let called = calls(histories, spans, window).into_iter().map(|call| tables::Syscall {
            role: word(call.role),
            syscall: call.called.name(),
            count: call.count,
            time_ns: call.time_ns,
            on_cpu_ns: call.on_cpu_ns,
        });
        self.syscalls = joined_calls(called);
        let faulted = faults(histories, &self.phases).into_iter().map(|count| tables::Fault {
            tid: count.tid,
            role: word(count.role),
            phase: count.phase.to_owned(),
            read_count: count.faults.read.into(),
            write_count: count.faults.write.into(),
            exec_count: count.faults.exec.into(),
            unknown_count: count.faults.unknown.into(),
        });
        self.faults = faulted.collect();
        self.exits = exits(view, window).into_iter().map(exit_row).collect();
    }
}

/// What the agent and the probes saw, in order.
fn markers(view: &View<'_>, course: &Course, launch_ns: u64) -> Vec<Marker> {
    let mut markers = course.markers.clone();
    let of_records = markers_of_records(view);
    undelay(&mut markers, &of_records);
    markers.extend(of_records);
    with_main(markers, course, launch_ns)
}

/// In order, with the beginning of the workload's `main` among them, if it told.
pub(super) fn with_main(mut markers: Vec<Marker>, course: &Course, launch_ns: u64) -> Vec<Marker> {
    markers.extend(course.since_main_ns.and_then(|since_main_ns| workload_main(&markers, since_main_ns, launch_ns)));
    markers.sort_by_key(|marker| marker.at_ns);
    markers
}

/// The words of a charge. Those of several charges can be the same, such as of two kworkers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Words {
    pub(super) category: String,
    pub(super) role: Option<String>,
    pub(super) syscall: Option<String>,
    pub(super) object: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) stack: Option<String>,
}

impl Words {
    pub(super) fn of(view: &View<'_>, charge: &Charge) -> Self {
        let texts = &view.histories.texts;
        let word = |text: Text| texts.get(text).to_owned();
        Self {
            category: charge.category.name().to_owned(),
            role: charge.role.map(word),
            syscall: charge.within.map(|within| within.called.name()),
            object: charge.within.and_then(|within| within.object).map(word),
            detail: charge.detail_text(texts, view.names),
            stack: charge.stack.map(|stack| folded(&view.names.functions(&view.histories.stacks.get(stack).calls))),
        }
    }
}

/// The parts of an element of the path in each phase, in order.
pub(super) fn cut<'a>(element: &'a Element, phases: &'a [Phase]) -> impl Iterator<Item = (usize, Range<u64>)> + 'a {
    let first = phases.partition_point(|phase| phase.end_ns <= element.start_ns);
    let overlapping = phases.iter().enumerate().skip(first).take_while(|(_, phase)| phase.start_ns < element.end_ns);
    overlapping.map(|(number, phase)| (number, element.start_ns.max(phase.start_ns)..element.end_ns.min(phase.end_ns)))
}

/// The phase of an instant.
pub(super) fn phase_at(phases: &[Phase], at_ns: u64) -> Option<usize> {
    let number = phases.partition_point(|phase| phase.end_ns <= at_ns);
    phases.get(number).filter(|phase| phase.start_ns <= at_ns).map(|_| number)
}

/// The path, summed up by phase, thread and charge: the largest of each phase first.
fn attribution(view: &View<'_>, path: &[Element], phases: &[Phase]) -> Vec<tables::Attribution> {
    let mut sums: foldhash::HashMap<(usize, Option<usize>, Charge), u64> = foldhash::HashMap::default();
    for element in path {
        for (phase, part) in cut(element, phases) {
            *sums.entry((phase, element.task, element.charge)).or_default() += part.end - part.start;
        }
    }
    let mut named: BTreeMap<(usize, Option<usize>, Words), u64> = BTreeMap::new();
    for ((phase, task, charge), time_ns) in sums {
        *named.entry((phase, task, Words::of(view, &charge))).or_default() += time_ns;
    }
    let mut named: Vec<_> = named.into_iter().collect();
    named.sort_by_key(|((phase, ..), time_ns)| (*phase, std::cmp::Reverse(*time_ns)));
    let mut named = named.into_iter().peekable();
    let mut rows: Vec<tables::Attribution> = Vec::new();
    for (number, phase) in phases.iter().enumerate() {
        while let Some(((_, task, words), time_ns)) = named.next_if(|((of, ..), _)| *of == number) {
            let Words { category, role, syscall, object, detail, stack } = words;
            rows.push(tables::Attribution {
                phase: phase.name.to_owned(),
                category,
                role,
                thread: task.map(thread_number),
                syscall,
                object,
                detail,
                stack,
                time_ns,
            });
        }
        // A row for what is not explained even when that is nothing: its absence must not look like an answer.
        let explained = |row: &tables::Attribution| row.phase != phase.name || row.category != "unattributed";
        if rows.iter().all(explained) {
            rows.push(tables::Attribution {
                phase: phase.name.to_owned(),
                category: Category::Unattributed.name().to_owned(),
                role: None,
                thread: None,
                syscall: None,
                object: None,
                detail: None,
                stack: None,
                time_ns: 0,
            });
        }
    }
    rows
}

/// Number of a thread within the instance.
pub(super) fn thread_number(task: usize) -> u32 {
    u32::try_from(task).unwrap_or(u32::MAX)
}

fn saving_row(view: &View<'_>, saving: &Saving) -> tables::Saving {
    let Words { category, role, syscall, object, detail, .. } = Words::of(view, &saving.charge);
    let (time_ns, saves_ns) = (saving.time_ns, saving.saves_ns);
    tables::Saving { category, role, syscall, object, detail, time_ns, saves_ns }
}

/// One row for each lock, where several stacks have the same functions.
fn held_locks(view: &View<'_>, graph: &Graph<'_>, path: &[Element]) -> Vec<tables::HeldLock> {
    let histories = view.histories;
    let word = |text: Text| histories.texts.get(text).to_owned();
    let mut named: BTreeMap<_, Held> = BTreeMap::new();
    for (lock, held) in graph.held_locks(path) {
        let syscall = lock.within.map(|within| within.called.name());
        let object = lock.within.and_then(|within| within.object).map(word);
        let stack = folded(&view.names.functions(&histories.stacks.get(lock.stack).calls));
        let all = named.entry((word(lock.role), syscall, object, stack, word(lock.held_by))).or_default();
        all.count += held.count;
        all.time_ns += held.time_ns;
    }
    let row = |((role, syscall, object, stack, held_by), Held { count, time_ns })| tables::HeldLock {
        role,
        syscall,
        object,
        stack,
        held_by,
        count,
        time_ns,
    };
    named.into_iter().map(row).collect()
}

/// Thread, role, cause, detail and waker.
type WakeupKey = (u32, String, String, Option<String>, Option<String>);

/// One row for each cause, where several wakers have the same name.
fn joined_wakeups(rows: impl Iterator<Item = tables::Wakeup>) -> Vec<tables::Wakeup> {
    let mut all: BTreeMap<WakeupKey, tables::Wakeup> = BTreeMap::new();
    for row in rows {
        let key = (row.tid, row.role.clone(), row.cause.clone(), row.detail.clone(), row.waker.clone());
        match all.get_mut(&key) {
            Some(known) => {
                known.count += row.count;
                known.waited_ns += row.waited_ns;
            }
            None => {
                all.insert(key, row);
            }
        }
    }
    all.into_values().collect()
}

/// One row for each call, where several requests have the same name.
fn joined_calls(rows: impl Iterator<Item = tables::Syscall>) -> Vec<tables::Syscall> {
    let mut all: BTreeMap<(String, String), tables::Syscall> = BTreeMap::new();
    for row in rows {
        match all.get_mut(&(row.role.clone(), row.syscall.clone())) {
            Some(known) => {
                known.count += row.count;
                known.time_ns += row.time_ns;
                known.on_cpu_ns += row.on_cpu_ns;
            }
            None => {
                all.insert((row.role.clone(), row.syscall.clone()), row);
            }
        }
    }
    all.into_values().collect()
}

fn exit_row(exit: ExitCount) -> tables::Exit {
    let (bucket_floor_ns, bucket_count) = exit.times.map(|times| times.buckets()).unwrap_or_default();
    tables::Exit {
        vcpu: exit.vcpu,
        source: exit.source.to_owned(),
        reason: exit.reason,
        detail: exit.detail,
        count: exit.count,
        time_ns: exit.time_ns,
        kernel_ns: None,
        vmm_ns: None,
        blocked_ns: None,
        polled_ns: None,
        runnable_ns: None,
        bucket_floor_ns,
        bucket_count,
    }
}

/// The columns of `sched` that the activities are counted in, what is known besides, and what that is about.
pub(super) fn category(activity: &Activity, view: &View<'_>) -> (&'static str, Option<String>, Option<String>) {
    let within = |within: &crate::correlate::Within| {
        (Some(within.called.name()), within.object.map(|object| view.histories.texts.get(object).to_owned()))
    };
    match activity {
        Activity::Guest => ("guest", None, None),
        Activity::Exit(reason) => ("exit", Some(reason.name(&view.names.exits)), None),
        Activity::KvmRun => ("kvm_run", None, None),
        Activity::User => ("user", None, None),
        Activity::Fault => ("fault", None, None),
        Activity::Interrupt => ("interrupt", None, None),
        Activity::Kernel(call) => {
            let (name, object) = within(call);
            ("kernel", name, object)
        }
        Activity::Runnable { throttled: false } => ("runnable", None, None),
        Activity::Runnable { throttled: true } => ("throttled", None, None),
        Activity::Blocked { within: call, .. } => {
            let (name, object) = call.as_ref().map(within).unwrap_or_default();
            ("blocked", name, object)
        }
    }
}

/// A marker as a row.
pub(super) fn marker_row(marker: Marker, launch_ns: u64) -> tables::Marker {
    tables::Marker {
        marker: marker.name.to_owned(),
        source: marker.source.to_owned(),
        at_ns: since(launch_ns, marker.at_ns),
        detail: marker.detail,
    }
}

/// A phase as a row.
pub(super) fn phase_row(phase: &Phase, launch_ns: u64) -> tables::Phase {
    tables::Phase {
        phase: phase.name.to_owned(),
        start_ns: since(launch_ns, phase.start_ns),
        end_ns: since(launch_ns, phase.end_ns),
        time_ns: phase.end_ns - phase.start_ns,
    }
}
