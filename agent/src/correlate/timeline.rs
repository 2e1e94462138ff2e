//! Single events, for whoever wants to look at one start on a time axis: what each vCPU did, who woke whom, and what changed
//! when. The slices of threads need no code: they are the spans.

use super::{
    Activity, Histories, Names, Span,
    history::{Move, Wake},
    view::View,
};
use crate::probe::Record;

/// A stretch of a vCPU's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuSlice {
    /// Position of the vCPU in order of first runs.
    pub vcpu: u32,
    /// What it did; see [`vcpu_slices`].
    pub state: &'static str,
    /// The exit's reason, or the system call.
    pub detail: Option<String>,
    /// Beginning, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// End; later than the beginning.
    pub end_ns: u64,
}

/// What each vCPU did from its first run on, without gaps.
///
/// | state | the vCPU's thread |
/// |---|---|
/// | `guest` | executes guest code |
/// | `exit` | is in the kernel because of an exit; the detail is its reason |
/// | `kvm_run` | is in `KVM_RUN`, where the host does not tell guest and exits apart |
/// | `poll` | is on a CPU while the guest has halted: KVM polls before it gives the CPU away |
/// | `halt` | sleeps because the guest has halted |
/// | `run_queue` | is ready and has no CPU |
/// | `vmm` | executes code of the VMM |
/// | `kernel` | is in a system call other than `KVM_RUN` |
/// | `blocked` | sleeps for another reason than a halted guest |
///
/// `spans` are those of the histories, in the same order.
pub fn vcpu_slices(view: &View<'_>, spans: &[Vec<Span>]) -> Vec<VcpuSlice> {
    let View { records, histories, names } = *view;
    let mut slices = Vec::new();
    for (history, spans) in histories.tasks.iter().zip(spans) {
        let (Some(vcpu), Some(first_ns)) = (history.vcpu, history.first_run_ns()) else { continue };
        let halts: Vec<(u64, u64)> = records
            .iter()
            .filter_map(|record| match record {
                Record::KvmHaltWake(halt) if halt.header.tid == history.tid => {
                    Some((halt.header.at_ns.saturating_sub(halt.halted_ns), halt.header.at_ns))
                }
                _ => None,
            })
            .collect();
        let mut halts = halts.into_iter().peekable();
        for span in spans.iter().filter(|span| span.end_ns > first_ns) {
            let mut at = span.start_ns.max(first_ns);
            while at < span.end_ns {
                while halts.next_if(|&(_, end)| end <= at).is_some() {}
                let (halted, border) = match halts.peek() {
                    Some(&(start, end)) if start <= at => (true, end),
                    Some(&(start, _)) => (false, start),
                    None => (false, u64::MAX),
                };
                let end_ns = span.end_ns.min(border);
                let (state, detail) = vcpu_state(&span.activity, halted, names);
                slices.push(VcpuSlice { vcpu, state, detail, start_ns: at, end_ns });
                at = end_ns;
            }
        }
    }
    slices
}

fn vcpu_state(activity: &Activity, halted: bool, names: &Names) -> (&'static str, Option<String>) {
    match activity {
        Activity::Guest => ("guest", None),
        Activity::Exit(_) | Activity::KvmRun if halted => ("poll", None),
        Activity::Exit(reason) => ("exit", Some(reason.name(&names.exits))),
        Activity::KvmRun => ("kvm_run", None),
        Activity::User | Activity::Fault | Activity::Interrupt => ("vmm", None),
        Activity::Kernel(within) => ("kernel", Some(within.called.name())),
        Activity::Runnable { .. } => ("run_queue", None),
        Activity::Blocked { .. } if halted => ("halt", None),
        Activity::Blocked { within, .. } => ("blocked", within.map(|within| within.called.name())),
    }
}

/// A wake-up from one thread, or a device or timer, to another.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// The woken task, as an index into the histories.
    pub woken: usize,
    /// Why, and who was running.
    pub wake: Wake,
    /// How long the task had waited; `None` when the wake-up ended no wait.
    pub waited_ns: Option<u64>,
}

impl Flow {
    /// The waking task, if it is one of the histories: a task that an interrupt merely came upon wakes nobody.
    pub fn waker(&self) -> Option<usize> {
        self.wake.running.task.filter(|_| self.wake.cause == super::Cause::Task)
    }
}

/// Wake-ups within the window, in order of time. `spans` are those of `histories`, in the same order, of the same window.
pub fn flows(histories: &Histories, spans: &[Vec<Span>], start_ns: u64, end_ns: u64) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (woken, (history, spans)) in histories.tasks.iter().zip(spans).enumerate() {
        for &(at_ns, step) in &history.moves {
            let Move::Woken(wake) = step else { continue };
            if at_ns < start_ns || at_ns > end_ns {
                continue;
            }
            let waited_ns = spans
                .binary_search_by_key(&at_ns, |span| span.end_ns)
                .ok()
                .and_then(|last| wait_ns(&spans[..=last], wake));
            flows.push(Flow { at_ns, woken, wake, waited_ns });
        }
    }
    flows.sort_by_key(|flow| flow.at_ns);
    flows
}

/// Length of the wait that a wake-up ended, the last of these spans; a wait is several spans where the task's role changed.
fn wait_ns(spans: &[Span], wake: Wake) -> Option<u64> {
    let mut sum = None;
    let mut until_ns = spans.last()?.end_ns;
    for span in spans.iter().rev() {
        let ends_it = matches!(span.activity, Activity::Blocked { woken: Some(by), .. } if by == wake);
        if !ends_it || span.end_ns != until_ns {
            break;
        }
        sum = Some(sum.unwrap_or(0) + span.time_ns());
        until_ns = span.start_ns;
    }
    sum
}

/// A number that changes with time, at the instant of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// What is counted; see [`counters`].
    pub name: &'static str,
    /// Unit of the value.
    pub unit: &'static str,
    /// The vCPU that it belongs to, if to one.
    pub vcpu: Option<u32>,
    /// When it changed, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Its value from then on.
    pub value: u64,
}

/// The numbers that the records tell of, in order of time.
///
/// | name | unit | value |
/// |---|---|---|
/// | `user_page_faults` | `count` | user page faults of the sandbox so far; a thread's own are added when it leaves its own code |
/// | `halt_poll` | `ns` | how long KVM polls on a vCPU before it gives the CPU away |
/// | `block_in_flight` | `bytes` | length of the block requests that are on their way |
pub fn counters(view: &View<'_>) -> Vec<Counter> {
    let View { records, histories, .. } = *view;
    let mut counters = Vec::new();
    let mut changes: Vec<(u64, i128)> = Vec::new();
    for record in records {
        match record {
            Record::KvmHaltPoll(poll) => {
                let vcpu = histories.tasks.iter().find(|task| task.tid == poll.header.tid).and_then(|task| task.vcpu);
                let (at_ns, value) = (poll.header.at_ns, poll.new_ns.into());
                counters.push(Counter { name: "halt_poll", unit: "ns", vcpu, at_ns, value });
            }
            Record::Block(block) => {
                changes.extend([(block.queued_ns, block.bytes.into()), (block.header.at_ns, -i128::from(block.bytes))]);
            }
            _ => {}
        }
    }
    counters.extend(running_sum("block_in_flight", "bytes", changes));
    let told = histories.tasks.iter().filter(|task| task.member).flat_map(|task| &task.interruptions);
    let faults = told.map(|(at_ns, told)| (*at_ns, i128::from(told.count()))).filter(|(_, count)| *count > 0);
    counters.extend(running_sum("user_page_faults", "count", faults.collect()));
    counters.sort_by_key(|counter| counter.at_ns);
    counters
}

fn running_sum(name: &'static str, unit: &'static str, mut changes: Vec<(u64, i128)>) -> Vec<Counter> {
    changes.sort_unstable();
    let mut sum = 0;
    let add = |(at_ns, change)| {
        sum += change;
        Counter { name, unit, vcpu: None, at_ns, value: u64::try_from(sum).unwrap_or(0) }
    };
    changes.into_iter().map(add).collect()
}
