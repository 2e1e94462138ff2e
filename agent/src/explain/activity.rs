//! What the host did for an instance in the window of a step: the records of that very window, summed.

use crate::{
    correlate::{Phase, View, calls, exits, faults, threads, wakeups},
    probe::{Record, device_name},
    record::tables,
};
use std::{collections::BTreeMap, ops::Range};

/// Sum of one kind of activity.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    time_ns: Option<u64>,
    size_bytes: Option<u64>,
}

/// Kind, role and detail.
type Key = (&'static str, Option<String>, Option<String>);

/// Sums, by what they are of.
#[derive(Default)]
struct Sums(BTreeMap<Key, Sum>);

impl Sums {
    fn add(&mut self, key: Key, count: u64, time_ns: Option<u64>, size_bytes: Option<u64>) {
        let sum = self.0.entry(key).or_default();
        let plus = |sum: Option<u64>, value: Option<u64>| match (sum, value) {
            (None, None) => None,
            (sum, value) => Some(sum.unwrap_or(0) + value.unwrap_or(0)),
        };
        sum.count += count;
        sum.time_ns = plus(sum.time_ns, time_ns);
        sum.size_bytes = plus(sum.size_bytes, size_bytes);
    }
}

/// The activity of the instance in `window`.
pub(super) fn activity(view: &View<'_>, step: u32, window: &Range<u64>) -> Vec<tables::Activity> {
    let histories = view.histories;
    let word = |text| histories.texts.get(text).to_owned();
    let mut sums = Sums::default();
    let spans: Vec<_> = histories.tasks.iter().map(|task| task.spans(window.start, window.end)).collect();
    for ((task, spans), totals) in histories.tasks.iter().zip(&spans).zip(threads(histories, &spans, window)) {
        let times = [
            ("guest", totals.guest_ns),
            ("exit_handling", totals.exit_ns),
            ("kvm_run", totals.kvm_run_ns),
            ("user", totals.user_ns),
            ("fault_handling", totals.fault_ns),
            ("interrupt_handling", totals.interrupt_ns),
            ("kernel", totals.kernel_ns),
            ("runnable", totals.runnable_ns),
            ("throttled", totals.throttled_ns),
            ("blocked", totals.blocked_ns),
        ];
        let role = spans.first().map_or(task.role(), |span| task.role_at(span.start_ns));
        for (kind, time_ns) in times.into_iter().filter(|&(_, time_ns)| time_ns > 0) {
            // Counted are threads.
            sums.add((kind, Some(word(role)), None), 1, Some(time_ns), None);
        }
    }
    for count in wakeups(histories, &spans) {
        let cause = count.wake.cause;
        let by = cause.detail(view.names).unwrap_or_else(|| word(count.wake.running.who));
        let detail = format!("{} {by}", cause.kind());
        sums.add(("wakeup", Some(word(count.role)), Some(detail)), count.count, Some(count.waited_ns), None);
    }
    for call in calls(histories, &spans, window) {
        sums.add(("syscall", Some(word(call.role)), Some(call.called.name())), call.count, Some(call.time_ns), None);
    }
    for exit in exits(view, window) {
        let detail = format!("{} {} {}", exit.source, exit.reason, exit.detail.unwrap_or_default());
        let key = ("exit", Some(format!("vcpu {}", exit.vcpu)), Some(detail.trim_end().to_owned()));
        sums.add(key, exit.count, exit.time_ns, None);
    }
    let phases = [("before", 0, window.start), ("step", window.start, window.end)];
    let phases = phases.map(|(name, start_ns, end_ns)| Phase { name, start_ns, end_ns });
    for fault in faults(histories, &phases).into_iter().filter(|fault| fault.phase == "step") {
        let by_access = [
            ("read", fault.faults.read),
            ("write", fault.faults.write),
            ("execute", fault.faults.exec),
            ("unknown", fault.faults.unknown),
        ];
        for (access, count) in by_access.into_iter().filter(|&(_, count)| count > 0) {
            sums.add(("fault", Some(word(fault.role)), Some(access.to_owned())), count.into(), None, None);
        }
    }
    for record in view.records.iter().filter(|record| window.contains(&record.header().at_ns)) {
        let Record::Block(block) = record else { continue };
        let kind = if block.header.flags == 1 { "block_write" } else { "block_read" };
        let role = histories.task_at(block.header.tid, block.queued_ns).map(|task| word(task.role_at(block.queued_ns)));
        let time_ns = block.header.at_ns.saturating_sub(block.queued_ns);
        sums.add((kind, role, Some(device_name(block.device))), 1, Some(time_ns), Some(block.bytes.into()));
    }
    let row = |((kind, role, detail), sum): (Key, Sum)| tables::Activity {
        step,
        kind: kind.to_owned(),
        role,
        detail,
        count: sum.count,
        time_ns: sum.time_ns,
        size_bytes: sum.size_bytes,
    };
    sums.0.into_iter().map(row).collect()
}
