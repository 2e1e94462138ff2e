//! Threads that look again and again whether there is something to do: what they found is on the path, not how often they looked.
//!
//! Such a thread (the Go runtime's monitor is one) sleeps on a timer, looks, and sleeps again. When it finds something and wakes
//! somebody, its earlier looks have no part in that: the path goes to who has done what it found, and only the time since then was
//! waited for its next look.

use super::packets::Packets;
use crate::correlate::{
    history::{History, Move},
    names::{Called, Cause},
    reading::Histories,
    span::{Activity, Span},
};
use std::collections::{HashMap, HashSet};
use syscalls::Sysno;

/// A look takes less CPU time than this.
const LOOK_NS: u64 = 200_000;
/// Between its wake-up and what it then does lies less than this.
const ACT_NS: u64 = 500_000;

/// Calls that tell whether there is something to do.
const POLLING: [&str; 7] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"];
/// Calls in which a thread waits for its own runtime alone, and holds up nobody.
const RESTING: [&str; 7] =
    ["futex", "nanosleep", "clock_nanosleep", "epoll_wait", "epoll_pwait", "epoll_pwait2", "sched_yield"];

fn numbers(names: &[&str]) -> HashSet<i32> {
    names.iter().filter_map(|name| name.parse::<Sysno>().ok().map(|call| call.id())).collect()
}

/// Looks that found something, by task and place of the wait before: who had done it, and when.
#[derive(Debug, Default)]
pub(super) struct Polls(HashMap<(usize, usize), (usize, u64)>);

impl Polls {
    pub(super) fn of(histories: &Histories, spans: &[Vec<Span>], packets: &Packets) -> Self {
        let acts = acts(histories);
        let sleepers = Sleepers::of(&histories.tasks, spans);
        let polling = numbers(&POLLING);
        let mut found = HashMap::new();
        for (task, spans) in spans.iter().enumerate() {
            for (place, span) in spans.iter().enumerate() {
                if !is_timer(&span.activity) || !looked_in_vain(spans, place, &acts[task]) {
                    continue;
                }
                let first_act = acts[task].partition_point(|&at| at < span.end_ns);
                let Some(&act_ns) = acts[task].get(first_act).filter(|&&at| at <= span.end_ns + ACT_NS) else {
                    continue;
                };
                if next_wait(spans, place).is_some_and(|wait| wait < act_ns) {
                    continue;
                }
                let history = &histories.tasks[task];
                let calls = history.calls.iter().filter(|call| call.start_ns >= span.end_ns && call.end_ns <= act_ns);
                let mut polled = calls.filter(|call| polling.contains(&call.called.number));
                let by = if polled.any(|call| call.result.is_some_and(|result| result > 0)) {
                    packets.last_sent(task, span.end_ns)
                } else {
                    sleepers.last(task, history.tgid, span.end_ns)
                };
                found.extend(by.map(|by| ((task, place), by)));
            }
        }
        Self(found)
    }

    /// Who had done, and when, what a task found when this wait for a timer was over.
    pub(super) fn found(&self, task: usize, place: usize) -> Option<(usize, u64)> {
        self.0.get(&(task, place)).copied()
    }
}

fn is_timer(activity: &Activity) -> bool {
    matches!(activity, Activity::Blocked { woken: Some(wake), .. } if matches!(wake.cause, Cause::Hrtimer(_)))
}

/// Whether a task did no more than look between the wait before this one and this one.
fn looked_in_vain(spans: &[Span], place: usize, acts: &[u64]) -> bool {
    let Some(before) = spans[..place].iter().rposition(|span| matches!(span.activity, Activity::Blocked { .. })) else {
        return false;
    };
    let awake = &spans[before + 1..place];
    let on_cpu_ns: u64 = awake.iter().filter(|span| span.activity.is_on_cpu()).map(Span::time_ns).sum();
    let (from, until) = (spans[before].end_ns, spans[place].start_ns);
    let has_acted = acts.get(acts.partition_point(|&at| at < from)).is_some_and(|&at| at < until);
    is_timer(&spans[before].activity) && on_cpu_ns <= LOOK_NS && !has_acted
}

/// When the next wait begins.
fn next_wait(spans: &[Span], place: usize) -> Option<u64> {
    let next = spans[place + 1..].iter().find(|span| matches!(span.activity, Activity::Blocked { .. }));
    next.map(|span| span.start_ns)
}

/// When each task woke another, or made one.
fn acts(histories: &Histories) -> Vec<Vec<u64>> {
    let mut acts: Vec<Vec<u64>> = vec![Vec::new(); histories.tasks.len()];
    for (task, history) in histories.tasks.iter().enumerate() {
        for &(at_ns, step) in &history.moves {
            if let Move::Woken(wake) = step
                && wake.cause == Cause::Task
                && let Some(waker) = wake.running.task.filter(|&waker| waker != task)
            {
                acts[waker].push(at_ns);
            }
        }
        if let Some(born) = history.born {
            acts[born.parent].push(born.at_ns);
        }
    }
    acts.iter_mut().for_each(|acts| acts.sort_unstable());
    acts
}

/// When tasks went to sleep of their own will, by process.
struct Sleepers(HashMap<u32, Vec<(u64, usize, bool)>>);

impl Sleepers {
    fn of(tasks: &[History], spans: &[Vec<Span>]) -> Self {
        let resting = numbers(&RESTING);
        let mut sleepers: HashMap<u32, Vec<(u64, usize, bool)>> = HashMap::new();
        for (task, (history, spans)) in tasks.iter().zip(spans).enumerate() {
            let mut by_timer = false;
            for span in spans {
                let Activity::Blocked { within, .. } = span.activity else { continue };
                // One that only looked has done nothing.
                if !by_timer {
                    let rests = within
                        .is_none_or(|within| resting.contains(&within.called.number) || within.called == Called::FAULT);
                    sleepers.entry(history.tgid).or_default().push((span.start_ns, task, rests));
                }
                by_timer = is_timer(&span.activity);
            }
        }
        sleepers.values_mut().for_each(|sleepers| sleepers.sort_unstable());
        Self(sleepers)
    }

    /// The other thread of a process that last went to sleep before an instant: one that is in a call which holds up others rather
    /// than one that rests.
    fn last(&self, task: usize, tgid: u32, at_ns: u64) -> Option<(usize, u64)> {
        /// Sleeps that are looked at.
        const MOST: usize = 64;
        let all = self.0.get(&tgid)?;
        let before = all.partition_point(|&(slept_ns, ..)| slept_ns < at_ns);
        let recent = || all[..before].iter().rev().take(MOST).filter(|(_, other, _)| *other != task);
        let holds = recent().find(|(_, _, rests)| !rests);
        holds.or_else(|| recent().next()).map(|&(slept_ns, other, _)| (other, slept_ns))
    }
}
