//! What the threads of a process do that one of them can find when it looks: who holds others up, and who left work to others.

use super::polls::{LOOK_NS, Look, is_timer, numbers};
use crate::correlate::{
    history::History,
    names::Called,
    span::{Activity, Span},
};
use foldhash::{HashMap, HashSet};

/// A thread that has nothing to do but to leave its work to others takes less CPU time than this.
const LEAVE_NS: u64 = 100_000;

/// Calls in which a thread waits for its own runtime alone, and holds up nobody.
const RESTING: [&str; 7] =
    ["futex", "nanosleep", "clock_nanosleep", "epoll_wait", "epoll_pwait", "epoll_pwait2", "sched_yield"];

/// A sleep of a task, as somebody sees it who looks for something to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sleep {
    start_ns: u64,
    end_ns: u64,
    task: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It waits for its own runtime alone, and holds up nobody.
    Rests,
    /// It waits for somebody else, and what is to be done after it waits too.
    Holds,
    /// The same, and it is the kernel that it waits for.
    InKernel,
}

/// What the threads of each process do that one of them can find.
pub(super) struct Doings<'a> {
    tasks: &'a [History],
    spans: &'a [Vec<Span>],
    pub(super) resting: HashSet<i32>,
    /// In order of their beginnings.
    sleeps: HashMap<u32, Vec<Sleep>>,
    /// When a thread was woken that then went to rest at once, and who: it left to others what it had come back with.
    left: HashMap<u32, Vec<(u64, usize)>>,
    /// The tasks of each process.
    pub(super) threads: HashMap<u32, Vec<usize>>,
}

impl<'a> Doings<'a> {
    pub(super) fn of(tasks: &'a [History], spans: &'a [Vec<Span>]) -> Self {
        let resting = numbers(&RESTING);
        let mut sleeps: HashMap<u32, Vec<Sleep>> = HashMap::default();
        let mut left: HashMap<u32, Vec<(u64, usize)>> = HashMap::default();
        let mut threads: HashMap<u32, Vec<usize>> = HashMap::default();
        for (task, (history, spans)) in tasks.iter().zip(spans).enumerate() {
            threads.entry(history.tgid).or_default().push(task);
            let sleeps = sleeps.entry(history.tgid).or_default();
            let (mut by_timer, mut on_cpu_ns, mut back_ns) = (false, 0, None);
            for span in spans {
                let Activity::Blocked { within, uninterruptible, .. } = span.activity else {
                    on_cpu_ns += if span.activity.is_on_cpu() { span.time_ns() } else { 0 };
                    continue;
                };
                // One that only looked, and rests again, has done nothing.
                let rests =
                    within.is_none_or(|call| resting.contains(&call.called.number) || call.called == Called::FAULT);
                if !(by_timer && rests && on_cpu_ns <= LOOK_NS) {
                    let kind = if rests {
                        Kind::Rests
                    } else if uninterruptible {
                        Kind::InKernel
                    } else {
                        Kind::Holds
                    };
                    let sleep = Sleep { start_ns: span.start_ns, end_ns: span.end_ns, task, kind };
                    sleeps.push(sleep);
                }
                if let Some(back_ns) = back_ns.filter(|_| rests && on_cpu_ns <= LEAVE_NS) {
                    left.entry(history.tgid).or_default().push((back_ns, task));
                }
                (by_timer, on_cpu_ns) = (is_timer(&span.activity), 0);
                back_ns = (!rests && !by_timer).then_some(span.end_ns);
            }
        }
        sleeps.values_mut().for_each(|sleeps| sleeps.sort_unstable());
        left.values_mut().for_each(|left| left.sort_unstable());
        Self { tasks, spans, resting, sleeps, left, threads }
    }

    /// Whose work a task may have found after this wait for a timer: the last thread of its process that had come back from a wait
    /// since the task looked for the last time but one, and left what it had come back with to others.
    pub(super) fn left(&self, task: usize, look: &Look, wait: &Span) -> Option<(usize, u64)> {
        let left = self.left.get(&self.tasks[task].tgid)?;
        let before = left.partition_point(|&(back_ns, _)| back_ns < wait.end_ns);
        let since = left[..before].iter().rev().take_while(|(back_ns, _)| *back_ns >= look.before_ns);
        since.copied().find(|&(_, other)| other != task).map(|(back_ns, other)| (other, back_ns))
    }

    /// What a task found at a look, after this wait. Rather a wait that holds up others and was not over when it last looked than a
    /// call that was on a CPU then, and that rather than the last thread that went to rest. What it has seen twice before it does
    /// not find again; a wait in the kernel lasts as long as it lasts.
    pub(super) fn found(&self, task: usize, look: &Look, wait: &Span) -> Option<(usize, u64)> {
        /// Sleeps that are looked at.
        const MOST: usize = 64;
        let tgid = self.tasks[task].tgid;
        let sleeps = self.sleeps.get(&tgid).map_or(&[][..], Vec::as_slice);
        let before = sleeps.partition_point(|sleep| sleep.start_ns < wait.end_ns);
        let recent = || {
            let since = sleeps[..before].iter().rev().take(MOST).take_while(|sleep| sleep.start_ns >= look.since_ns);
            since.filter(|sleep| sleep.task != task)
        };
        let last = |is: &dyn Fn(&Sleep) -> bool| recent().find(|sleep| is(sleep)).map(|s| (s.task, s.start_ns));
        let goes_on = |sleep: &Sleep| sleep.end_ns > wait.start_ns;
        last(&|sleep| sleep.kind != Kind::Rests && goes_on(sleep) && sleep.start_ns >= look.before_ns)
            .or_else(|| self.in_call(task, tgid, wait))
            .or_else(|| last(&|sleep| sleep.kind == Kind::InKernel && goes_on(sleep)))
            .or_else(|| last(&|_| true))
    }

    /// The other thread of a process that was in a call at the last look, and when it was last seen in it.
    fn in_call(&self, task: usize, tgid: u32, wait: &Span) -> Option<(usize, u64)> {
        let (last_ns, now_ns) = (wait.start_ns, wait.end_ns);
        let sleeps = |other: usize| {
            let spans = &self.spans[other];
            let after = spans.partition_point(|span| span.start_ns <= last_ns);
            after.checked_sub(1).is_some_and(|place| matches!(spans[place].activity, Activity::Blocked { .. }))
        };
        let others = self.threads.get(&tgid)?.iter().filter(|&&other| other != task && !sleeps(other));
        let calls = others.filter_map(|&other| Some((other, self.tasks[other].call_at(last_ns)?)));
        let holds = calls.filter(|(_, call)| !self.resting.contains(&call.called.number));
        let last = holds.max_by_key(|(_, call)| call.start_ns)?;
        Some((last.0, last.1.end_ns.min(now_ns)))
    }
}
