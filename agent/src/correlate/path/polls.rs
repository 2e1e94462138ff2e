//! Threads that look again and again whether there is something to do: what they found is on the path, not how often they looked.
//!
//! Such a thread (the Go runtime's monitor is one) sleeps on a timer, looks, and sleeps again. When it finds something and wakes
//! somebody, its earlier looks have no part in that: the path goes to who has done what it found, and only the time since then was
//! waited for its next look. A ticker has something to do each time; where it wakes, or is itself, an idle thread of its runtime, the
//! work may be another thread's.

use super::{doings::Doings, packets::Packets};
use crate::correlate::{
    history::Move,
    names::Cause,
    reading::Histories,
    span::{Activity, Span},
};
use foldhash::{HashMap, HashSet};
use syscalls::Sysno;

/// A look takes less CPU time than this.
pub(super) const LOOK_NS: u64 = 200_000;
/// What it then does is not far from its wake-up, and takes less CPU time than this.
const ACT_NS: u64 = 500_000;
/// Timers wake a thread again and again if they did so as often as this.
const TICKS: usize = 8;

/// Calls that tell whether there is something to do.
const POLLING: [&str; 7] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"];

pub(super) fn numbers(names: &[&str]) -> HashSet<i32> {
    names.iter().filter_map(|name| name.parse::<Sysno>().ok().map(|call| call.id())).collect()
}

/// What threads did that look again and again.
pub(super) struct Polls {
    /// Looks that found something, by task and place of the wait before: who had done it, and when.
    found: HashMap<(usize, usize), (usize, u64)>,
    /// When timers woke those tasks that they wake again and again.
    ticks: HashMap<usize, Vec<u64>>,
    /// The tasks of each process.
    threads: HashMap<u32, Vec<usize>>,
    resting: HashSet<i32>,
}

impl Polls {
    pub(super) fn of(histories: &Histories, spans: &[Vec<Span>], packets: &Packets) -> Self {
        let acts = acts(histories);
        let doings = Doings::of(&histories.tasks, spans);
        let polling = numbers(&POLLING);
        let (mut found, mut ticks) = (HashMap::default(), HashMap::default());
        for (task, spans) in spans.iter().enumerate() {
            let looks = looks(spans, &acts[task]);
            if looks.len() >= TICKS {
                ticks.insert(task, looks.iter().map(|look| spans[look.place].end_ns).collect());
            }
            let is_monitor = is_monitor(&looks);
            if !is_monitor && looks.len() < TICKS {
                continue;
            }
            for look in looks {
                let (place, span) = (look.place, &spans[look.place]);
                if let Some(by) = doings.left(task, &look, span) {
                    found.insert((task, place), by);
                    continue;
                }
                if !is_monitor {
                    continue;
                }
                let Some(act_ns) = look.act_ns.filter(|_| look.on_cpu_ns <= ACT_NS) else { continue };
                let history = &histories.tasks[task];
                let first_call = history.calls.partition_point(|call| call.start_ns < span.end_ns);
                let mut calls = history.calls[first_call..].iter().take_while(|call| call.end_ns <= act_ns);
                let has_polled = calls
                    .any(|call| polling.contains(&call.called.number) && call.result.is_some_and(|result| result > 0));
                let sent = packets
                    .last_sent(task, span.end_ns)
                    .filter(|&(_, sent_ns)| has_polled && sent_ns >= look.before_ns);
                let by = sent.or_else(|| doings.found(task, &look, span));
                found.extend(by.map(|by| ((task, place), by)));
            }
        }
        let Doings { threads, resting, .. } = doings;
        Self { found, ticks, threads, resting }
    }

    /// Who had done, and when, what a task found when this wait for a timer was over.
    pub(super) fn found(&self, task: usize, place: usize) -> Option<(usize, u64)> {
        self.found.get(&(task, place)).copied()
    }

    /// Who else may have had the work that a task was woken for from its rest, by a thread of its process that a timer had just woken,
    /// as it does again and again: the threads of such a runtime take work from each other, and nobody has to be woken for that. It is
    /// the thread that something else than a timer had woken last, and that was still awake.
    pub(super) fn had_work(
        &self,
        histories: &Histories,
        spans: &[Vec<Span>],
        (task, waker): (usize, usize),
        wait: &Span,
    ) -> Option<usize> {
        let Activity::Blocked { within: Some(within), .. } = wait.activity else { return None };
        let tgid = histories.tasks[task].tgid;
        if histories.tasks[waker].tgid != tgid || !self.resting.contains(&within.called.number) {
            return None;
        }
        let ticks = self.ticks.get(&waker)?;
        let last = ticks.partition_point(|&at| at <= wait.end_ns).checked_sub(1)?;
        if ticks[last] + ACT_NS < wait.end_ns {
            return None;
        }
        let awake_since = |other: usize| {
            let before = &spans[other][..spans[other].partition_point(|span| span.start_ns < wait.end_ns)];
            let now = before.last().filter(|span| span.end_ns >= wait.end_ns)?;
            let is_awake = !matches!(now.activity, Activity::Blocked { .. });
            let slept = before.iter().rfind(|span| matches!(span.activity, Activity::Blocked { .. }))?;
            (is_awake && !is_timer(&slept.activity)).then_some(slept.end_ns)
        };
        let others = self.threads.get(&tgid)?.iter().filter(|&&other| other != task && other != waker);
        let awake = others.filter_map(|&other| Some((awake_since(other)?, other)));
        awake.max().map(|(_, other)| other)
    }
}

pub(super) fn is_timer(activity: &Activity) -> bool {
    matches!(activity, Activity::Blocked { woken: Some(wake), .. } if matches!(wake.cause, Cause::Hrtimer(_)))
}

/// A wait for a timer, and what came after it.
pub(super) struct Look {
    /// Of the wait.
    pub(super) place: usize,
    /// When the task was last woken by anything but a timer: since then it looks.
    pub(super) since_ns: u64,
    /// When the wait before this one began: what was there by then it has seen twice.
    pub(super) before_ns: u64,
    /// When it first woke somebody or made one, before its next wait.
    act_ns: Option<u64>,
    /// CPU time until the next wait.
    on_cpu_ns: u64,
}

/// The waits for a timer of a task that acts at these instants.
fn looks(spans: &[Span], acts: &[u64]) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::new();
    let (mut since_ns, mut before_ns, mut next_act) = (0, 0, 0);
    let mut waits = spans.iter().enumerate().filter(|(_, span)| matches!(span.activity, Activity::Blocked { .. }));
    let mut next = waits.next();
    while let Some((place, span)) = next {
        next = waits.next();
        let (until, until_ns) = next.map_or((spans.len(), u64::MAX), |(place, span)| (place, span.start_ns));
        if is_timer(&span.activity) {
            while acts.get(next_act).is_some_and(|&at| at < span.end_ns) {
                next_act += 1;
            }
            let act_ns = acts.get(next_act).copied().filter(|&at| at < until_ns);
            let awake = spans[place + 1..until].iter().filter(|span| span.activity.is_on_cpu());
            let on_cpu_ns = awake.map(Span::time_ns).sum();
            looks.push(Look { place, since_ns, before_ns, act_ns, on_cpu_ns });
        } else {
            since_ns = span.end_ns;
        }
        before_ns = span.start_ns;
    }
    looks
}

/// Whether a task looks in vain time and again: who sleeps to do something then does it each time.
fn is_monitor(looks: &[Look]) -> bool {
    let in_vain = looks.iter().filter(|look| look.act_ns.is_none() && look.on_cpu_ns <= LOOK_NS).count();
    4 * in_vain > looks.len()
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
