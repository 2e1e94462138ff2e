//! What ended each wait: the edges between the tasks of a start.

use super::{
    charge::{Category, Charge, Detail},
    cpus::{Throttled, occupant},
    kernel_wait,
    packets::Packets,
    polls::Polls,
    requests::Requests,
};
use crate::{
    correlate::{
        history::Wake,
        names::{Cause, Names, Softirq},
        reading::Histories,
        span::{Activity, Span, Within},
        stacks::{Stack, WaitsAt},
    },
    probe::Record,
};
use foldhash::HashMap;
use syscalls::Sysno;

/// The tasks of a start with what each did and what ended each wait, from the launch to the first response.
pub struct Graph<'a> {
    pub(super) histories: &'a Histories,
    names: &'a Names,
    pub(super) spans: Vec<Vec<Span>>,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    requests: Requests,
    packets: Packets,
    polls: Polls,
    /// What the waits at stacks are for, where that is known.
    pub(super) waits: HashMap<Stack, Category>,
    pub(super) throttled: Throttled,
}

/// Finds spans by instants: where the next one is not far from the last one of the same task, in no time.
pub(super) struct Cursor<'g> {
    spans: &'g [Vec<Span>],
    /// Of each task, how many spans begin before the last instant.
    places: Vec<usize>,
}

impl<'g> Cursor<'g> {
    /// Steps to neighbours before all spans are searched.
    const NEAR: usize = 8;

    /// The span of a task that holds the time right before an instant, or the last one that ends before it.
    pub(super) fn span_before(&mut self, task: usize, at_ns: u64) -> Option<(usize, &'g Span)> {
        let spans = &self.spans[task];
        let begins_before = |place: usize| spans.get(place).is_some_and(|span| span.start_ns < at_ns);
        let mut place = self.places[task];
        let mut steps = 0;
        while begins_before(place) && steps < Self::NEAR {
            (place, steps) = (place + 1, steps + 1);
        }
        while place > 0 && !begins_before(place - 1) && steps < Self::NEAR {
            (place, steps) = (place - 1, steps + 1);
        }
        if begins_before(place) || place > 0 && !begins_before(place - 1) {
            place = spans.partition_point(|span| span.start_ns < at_ns);
        }
        self.places[task] = place;
        let place = place.checked_sub(1)?;
        Some((place, &spans[place]))
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A task, at an instant that is not later than the end of the wait. What lies between is a packet on its way.
    By { task: usize, at_ns: u64 },
    /// A task that did something at an instant which may be before the wait, and which was found only when its timer was over. If
    /// that was to begin a wait, this is its place.
    Found { task: usize, at_ns: u64, timer: Detail, wait: Option<usize> },
    /// A task of the same process that ends, as the wait demands: what it did before the wait has no part in it.
    Ordered { task: usize },
    /// Nobody of these: the wait is for this.
    Wait(Category, Detail),
}

impl<'a> Graph<'a> {
    /// Of the time from the launch to the first response.
    pub fn of(histories: &'a Histories, records: &[Record], names: &'a Names, start_ns: u64, end_ns: u64) -> Self {
        let spans = histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect();
        Self::of_spans(histories, records, names, spans, (start_ns, end_ns))
    }

    /// The same, where it is known already what each task did from then on, and for longer.
    pub fn of_spans(
        histories: &'a Histories,
        records: &[Record],
        names: &'a Names,
        mut spans: Vec<Vec<Span>>,
        (start_ns, end_ns): (u64, u64),
    ) -> Self {
        for spans in &mut spans {
            spans.truncate(spans.partition_point(|span| span.start_ns < end_ns));
            if let Some(last) = spans.last_mut() {
                last.end_ns = last.end_ns.min(end_ns);
            }
        }
        let throttled = Throttled::of(histories, &spans);
        let packets = Packets::of(&histories.tasks);
        let polls = Polls::of(histories, &spans, &packets);
        let known = |(stack, waits): (Stack, &WaitsAt)| {
            Some((stack, kernel_wait::category(&names.functions(&waits.calls), waits.is_lock)?))
        };
        let waits = histories.stacks.all().filter_map(known).collect();
        let requests = Requests::of(records);
        Self { histories, names, spans, start_ns, end_ns, requests, packets, polls, waits, throttled }
    }

    /// What each task did.
    pub fn spans(&self) -> &[Vec<Span>] {
        &self.spans
    }

    /// A cursor over the spans of all tasks.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor { spans: &self.spans, places: vec![0; self.spans.len()] }
    }

    /// What ended a wait of a task.
    pub(super) fn end_of(&self, task: usize, place: usize) -> End {
        let span = &self.spans[task][place];
        let Activity::Blocked { uninterruptible, woken, within } = span.activity else {
            return End::Wait(Category::Unattributed, Detail::None);
        };
        let Some(Wake { cause, running, stack }) = woken else {
            let unseen = Detail::Unseen("nobody was seen to end this wait");
            // Such a call asks for nothing but a timer.
            let sleeps = [Sysno::nanosleep, Sysno::clock_nanosleep].map(|call| call.id());
            let is_sleep = within.is_some_and(|within| sleeps.contains(&within.called.number));
            return End::Wait(if is_sleep { Category::Timer } else { Category::Unattributed }, unseen);
        };
        let tid = self.histories.tasks[task].tid;
        let request = |any| {
            let ended = self.requests.ended(tid, (span.start_ns, span.end_ns), any).filter(|_| uninterruptible);
            ended.map(|device| End::Wait(Category::BlockIo, Detail::Device(device)))
        };
        match cause {
            Cause::Task => {
                if let Some(waker) = running.task.filter(|&waker| waker != task) {
                    if self.ends_threads(task, waker, within) {
                        return End::Ordered { task: waker };
                    }
                    let had_work = self.polls.had_work(self.histories, &self.spans, (task, waker), span);
                    return End::By { task: had_work.unwrap_or(waker), at_ns: span.end_ns };
                }
                let who = self.histories.texts.get(running.who);
                if who.starts_with("rcu") {
                    return End::Wait(Category::Rcu, Detail::Who(running.who));
                }
                if let Some(category) = stack.and_then(|stack| self.waits.get(&stack)) {
                    return End::Wait(*category, Detail::Who(running.who));
                }
                let carries_requests =
                    ["kworker", "loop", "kcryptd", "dmcrypt"].iter().any(|name| who.starts_with(name));
                let outside = || End::Wait(Category::Outside, Detail::Who(running.who));
                request(false).filter(|_| carries_requests).unwrap_or_else(outside)
            }
            Cause::Timer(function) if self.is_of_network(function) => {
                End::Wait(Category::Network, Detail::Cause(cause))
            }
            Cause::Hrtimer(_) | Cause::Timer(_) | Cause::Softirq(Softirq::Timer | Softirq::Hrtimer) => {
                let timer = Detail::Cause(cause);
                match self.polls.found(task, place) {
                    Some((task, at_ns)) => End::Found { task, at_ns, timer, wait: self.wait_from(task, at_ns) },
                    None => End::Wait(Category::Timer, timer),
                }
            }
            Cause::Softirq(Softirq::NetRx | Softirq::NetTx) => {
                match self.packets.sender(&self.histories.tasks, task, running.task, span.end_ns) {
                    Some((sender, sent_ns)) => End::By { task: sender, at_ns: sent_ns },
                    None => End::Wait(Category::Network, Detail::Cause(cause)),
                }
            }
            Cause::Softirq(Softirq::Rcu) => End::Wait(Category::Rcu, Detail::Cause(cause)),
            Cause::Softirq(Softirq::Block) => {
                request(true).unwrap_or(End::Wait(Category::BlockIo, Detail::Cause(cause)))
            }
            Cause::Irq(_) => request(true).unwrap_or(End::Wait(Category::Device, Detail::Cause(cause))),
            Cause::Softirq(_) => End::Wait(Category::Device, Detail::Cause(cause)),
        }
    }

    /// The wait of a task that begins at an instant.
    fn wait_from(&self, task: usize, at_ns: u64) -> Option<usize> {
        let place = self.spans[task].partition_point(|span| span.start_ns < at_ns);
        let begins = |span: &&Span| span.start_ns == at_ns && matches!(span.activity, Activity::Blocked { .. });
        self.spans[task].get(place).filter(begins).map(|_| place)
    }

    /// Whether a wait is for the kernel or a device, and so for nothing that a task of the sandbox does.
    pub(super) fn is_held_up(&self, task: usize, place: usize) -> bool {
        use Category::{BlockIo, Device, Journal, Lock, Outside, Rcu, Workqueue};
        let ended = self.end_of(task, place);
        matches!(ended, End::Wait(Rcu | Lock | Workqueue | Journal | BlockIo | Device | Outside, _))
    }

    /// Whether a task executes a program, or ends its process, and waits until the other threads of the process have ended for that.
    fn ends_threads(&self, task: usize, waker: usize, within: Option<Within>) -> bool {
        let ends = [Sysno::execve, Sysno::execveat, Sysno::exit_group].map(|call| call.id());
        let tasks = &self.histories.tasks;
        let same = tasks[task].tgid == tasks[waker].tgid;
        same && within.is_some_and(|within| ends.contains(&within.called.number))
    }

    /// Whether a timer is one of the network's and not of the thread that it wakes.
    fn is_of_network(&self, function: u64) -> bool {
        let name = self.names.symbols.name(function);
        ["tcp_", "inet_", "neigh_", "sk_"].iter().any(|prefix| name.starts_with(prefix))
    }

    /// What a span of a task is charged to while it is on the path. A wait that somebody ended is charged to the way of what ended it.
    pub(super) fn charge(&self, task: usize, place: usize) -> Charge {
        let span = &self.spans[task][place];
        let role = Some(self.histories.tasks[task].role_at(span.start_ns));
        let of = |category, within: Option<Within>, detail| Charge { category, role, within, detail, stack: None };
        match span.activity {
            Activity::Guest => of(Category::Guest, None, Detail::None),
            Activity::Exit(reason) => of(Category::Exit, None, Detail::Exit(reason)),
            Activity::KvmRun => of(Category::KvmRun, None, Detail::None),
            Activity::User => of(Category::User, None, Detail::None),
            Activity::Fault => of(Category::Fault, None, Detail::None),
            Activity::Interrupt => of(Category::Interrupt, None, Detail::None),
            Activity::Kernel(within) => of(Category::Kernel, Some(within), Detail::None),
            Activity::Runnable { throttled: true } => of(Category::Throttled, None, Detail::None),
            Activity::Runnable { throttled: false } => of(Category::Runnable, None, Detail::None),
            Activity::Blocked { within, woken, .. } => match self.end_of(task, place) {
                End::By { .. } | End::Ordered { .. } => of(Category::Network, within, Detail::None),
                End::Found { timer, .. } => of(Category::Timer, within, timer),
                End::Wait(category, detail) => {
                    Charge { stack: woken.and_then(|wake| wake.stack), ..of(category, within, detail) }
                }
            },
        }
    }

    /// Who had the CPU while a task waited for it.
    pub(super) fn occupant(&self, task: usize, span: &Span) -> Detail {
        occupant(self.histories, task, span.start_ns, span.end_ns)
    }
}
