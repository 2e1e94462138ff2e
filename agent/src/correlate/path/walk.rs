//! The walk back from the first response to the launch.

use super::{
    charge::{Category, Charge, Detail},
    graph::{Cursor, End, Graph},
};
use crate::correlate::span::{Activity, Span};

/// A stretch of the path. Those of a path follow each other without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Beginning, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// End; later than the beginning.
    pub end_ns: u64,
    /// The task that is on the path, as a place among the histories.
    pub task: Option<usize>,
    /// What the time was spent on.
    pub charge: Charge,
}

impl Element {
    /// Nanoseconds.
    pub fn time_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// Where the walk is: right before this instant, at this task.
struct Walk<'g, 'a> {
    graph: &'g Graph<'a>,
    cursor: Cursor<'g>,
    task: usize,
    at_ns: u64,
    /// The last first.
    elements: Vec<Element>,
    /// Hand-overs at the same instant: tasks can't have woken each other in a circle, but records can say so.
    hand_overs: usize,
    /// Tasks to return to, each when the walk comes to this instant: the innermost last.
    returns: Vec<(usize, u64)>,
}

impl Graph<'_> {
    /// The path to the instant at which the graph ends, which the task of this thread number saw.
    pub fn path(&self, tid: u32) -> Vec<Element> {
        let Some(task) = self.last_task(tid) else {
            return self.unknown(None, "the thread that saw the response was not recorded");
        };
        let mut walk = Walk {
            graph: self,
            cursor: self.cursor(),
            task,
            at_ns: self.end_ns,
            elements: Vec::new(),
            hand_overs: 0,
            returns: Vec::new(),
        };
        while walk.at_ns > self.start_ns {
            walk.step();
        }
        walk.elements.reverse();
        join(&mut walk.elements);
        walk.elements
    }

    /// The task that has a thread number at the end.
    pub(super) fn last_task(&self, tid: u32) -> Option<usize> {
        self.histories.tasks.iter().rposition(|task| task.tid == tid && task.lives_at(self.end_ns))
    }

    fn unknown(&self, task: Option<usize>, why: &'static str) -> Vec<Element> {
        let charge = Charge::unseen(None, why);
        let element = Element { start_ns: self.start_ns, end_ns: self.end_ns, task, charge };
        if self.start_ns < self.end_ns { vec![element] } else { Vec::new() }
    }
}

impl Walk<'_, '_> {
    /// Charges the time back to an instant and goes there.
    fn charge(&mut self, start_ns: u64, charge: Charge) {
        let until_ns = self.returns.last().map_or(0, |&(_, at_ns)| at_ns);
        let start_ns = start_ns.max(self.graph.start_ns).max(until_ns);
        if start_ns < self.at_ns {
            self.elements.push(Element { start_ns, end_ns: self.at_ns, task: Some(self.task), charge });
            self.hand_overs = 0;
            self.at_ns = start_ns;
        }
    }

    fn charge_unseen(&mut self, start_ns: u64, why: &'static str) {
        let role = Some(self.graph.histories.tasks[self.task].role_at(self.at_ns));
        self.charge(start_ns, Charge::unseen(role, why));
    }

    /// Goes on at another task, at an instant that is not later.
    fn hand_over(&mut self, task: usize, at_ns: u64) {
        // Where that is before the instant at which the walk is to return, nothing is left to be followed.
        if let Some(&(_, return_ns)) = self.returns.last()
            && at_ns < return_ns
        {
            self.at_ns = return_ns;
            return;
        }
        self.hand_overs = if at_ns < self.at_ns { 0 } else { self.hand_overs + 1 };
        (self.task, self.at_ns) = (task, at_ns.min(self.at_ns));
    }

    fn step(&mut self) {
        if let Some(&(task, at_ns)) = self.returns.last()
            && self.at_ns <= at_ns
        {
            self.returns.pop();
            (self.task, self.hand_overs) = (task, 0);
        }
        let tasks = &self.graph.histories.tasks;
        let Some((place, &span)) = self.cursor.span_before(self.task, self.at_ns) else {
            // Before all that it did: it was born, or nobody saw what it did.
            return match tasks[self.task].born {
                Some(born) if born.at_ns <= self.at_ns && self.hand_overs <= tasks.len() => {
                    // Its spans begin at its birth, so that there is nothing between.
                    self.hand_over(born.parent, born.at_ns);
                }
                _ => self.charge_unseen(self.graph.start_ns, "nothing was seen of this thread so far"),
            };
        };
        if span.end_ns < self.at_ns {
            return self.charge_unseen(span.end_ns, "nothing was seen of this thread meanwhile");
        }
        match span.activity {
            Activity::Blocked { .. } => self.wait(place, &span),
            Activity::Runnable { throttled: false } => self.ready(place, &span),
            _ => self.charge(span.start_ns, self.graph.charge(self.task, place)),
        }
    }

    /// It waited for a CPU, or for its cgroup's limit first.
    fn ready(&mut self, place: usize, span: &Span) {
        let mut charge = self.graph.charge(self.task, place);
        let until = self.graph.throttled.until(self.graph.histories, self.task, span.start_ns, span.end_ns);
        let limited_until = until.unwrap_or(span.start_ns).min(self.at_ns);
        charge.detail = self.graph.occupant(self.task, span);
        self.charge(limited_until, charge);
        self.charge(span.start_ns, Charge { category: Category::Throttled, detail: Detail::None, ..charge });
    }

    /// It waited: what ended that is on the path, or else the wait.
    fn wait(&mut self, place: usize, span: &Span) {
        // Somebody was woken by a task that seems to wait itself, or by one that he had woken at the same instant.
        if span.end_ns > self.at_ns {
            return self.charge_unseen(span.start_ns, "it acted while it seemed to wait");
        }
        if self.hand_overs > self.graph.histories.tasks.len() {
            return self.charge_unseen(span.start_ns, "tasks seem to have woken each other");
        }
        match self.graph.end_of(self.task, place) {
            End::By { task, at_ns } => {
                // A packet on its way.
                self.charge(at_ns.max(span.start_ns), self.graph.charge(self.task, place));
                if at_ns > span.start_ns {
                    self.hand_over(task, at_ns);
                } else {
                    // It was sent before the wait began: it is the way, not the sender, that was waited for.
                    self.at_ns = span.start_ns;
                }
            }
            End::Found { task, at_ns, wait, .. } => {
                // A monitor steps in for a thread that holds others up by its own wait: while that lasts, it is the cause.
                if let Some(held) = wait.filter(|&held| self.graph.is_held_up(task, held)) {
                    self.charge(self.graph.spans[task][held].end_ns, self.graph.charge(self.task, place));
                    self.task = task;
                    self.charge(at_ns, self.graph.charge(task, held));
                } else {
                    self.charge(at_ns, self.graph.charge(self.task, place));
                }
                self.hand_over(task, at_ns);
            }
            End::Ordered { task } => {
                self.returns.push((self.task, span.start_ns));
                self.hand_over(task, span.end_ns);
            }
            End::Wait(..) => self.charge(span.start_ns, self.graph.charge(self.task, place)),
        }
    }
}

/// Joins neighbours that are the same, except for where the path has been elsewhere in between.
fn join(elements: &mut Vec<Element>) {
    elements.dedup_by(|next, last| {
        let same = next.charge == last.charge && next.task == last.task;
        if same {
            last.end_ns = next.end_ns;
        }
        same
    });
}
