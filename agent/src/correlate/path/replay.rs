//! What it would save if something took no time: the recorded dependencies, replayed without it.
//!
//! Every task does again what it did, for as long as it did, and waits again for what it waited for: a wait ends when who ended it
//! comes to that point, or is none if that was before. Waits for a timer, a disk or somebody outside last as long as before. So the
//! prediction knows what else is on the way, and would be waited for instead. It does not know that tasks who have more CPU to
//! themselves, or a warmer cache, are faster; nor that a timer that was armed for a purpose would be armed anew.

use super::{
    charge::{Category, Charge, Detail},
    graph::{End, Graph},
};
use crate::correlate::span::Span;
use std::collections::{BTreeMap, HashMap};

/// What the absence of something would save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saving {
    /// What is taken away; without a role: all of this category.
    pub charge: Charge,
    /// Its time on the path.
    pub time_ns: u64,
    /// By how much the first response would come earlier.
    pub saves_ns: u64,
}

/// A part of the path that is less than this share of it is not taken away: the prediction would say nothing.
const LEAST_SHARE: f64 = 0.01;
/// Parts that are taken away at most, the largest; each is one replay.
const MOST: usize = 24;

/// A span of a task.
#[derive(Clone, Copy)]
struct At {
    task: usize,
    place: usize,
}

/// What the time of a span depends on.
#[derive(Clone, Copy)]
enum How {
    /// On nothing but itself.
    Alone,
    /// It is over when another task comes to this instant, and what was on its way then has come.
    Until { other: At, at_ns: u64 },
    /// A monitor finds what another task did at this instant, as long after it as it did. If that was to begin this wait, nobody has
    /// to step in where there is no wait.
    Found { other: At, at_ns: u64, wait: Option<At> },
}

/// The spans in the order of time, with what they depend on.
struct Replay<'g, 'a> {
    graph: &'g Graph<'a>,
    /// Where the spans of each task begin among all.
    first: Vec<usize>,
    /// Of all spans.
    hows: Vec<How>,
    keys: Vec<usize>,
    /// Beginnings and ends of spans: the instant, whether it is a beginning, and the span. Of one instant the ends come first.
    events: Vec<(u64, bool, At)>,
    /// In which span of its parent, and when, each task was born.
    births: Vec<Option<(At, u64)>>,
    key_of: HashMap<Charge, usize>,
}

impl Graph<'_> {
    /// What the largest parts of the path would save, each by itself, and all of a category together; the largest savings first.
    /// `path` is that to the task with this thread number.
    pub fn savings(&self, tid: u32, path: &[super::Element]) -> Vec<Saving> {
        let Some(last) = self.last_task(tid) else { return Vec::new() };
        let mut parts: BTreeMap<Charge, u64> = BTreeMap::new();
        for element in path.iter().filter(|element| element.charge.category != Category::Unattributed) {
            let charge = element.charge.removable();
            let all = Charge { category: charge.category, role: None, within: None, detail: Detail::None };
            *parts.entry(charge).or_default() += element.time_ns();
            *parts.entry(all).or_default() += element.time_ns();
        }
        let least = (LEAST_SHARE * (self.end_ns - self.start_ns) as f64) as u64;
        let mut parts: Vec<_> = parts.into_iter().filter(|&(_, time_ns)| time_ns > least).collect();
        parts.sort_by_key(|&(_, time_ns)| std::cmp::Reverse(time_ns));
        parts.truncate(MOST);
        if parts.is_empty() {
            return Vec::new();
        }
        let replay = Replay::of(self);
        let whole_ns = replay.end_of(last, |_| false);
        let mut savings: Vec<Saving> = parts
            .into_iter()
            .map(|(charge, time_ns)| {
                let gone: Vec<bool> = replay.gone(&charge);
                let saves_ns = whole_ns.saturating_sub(replay.end_of(last, |key| gone[key]));
                Saving { charge, time_ns, saves_ns }
            })
            .collect();
        savings.sort_by_key(|saving| std::cmp::Reverse(saving.saves_ns));
        savings
    }
}

impl<'g, 'a> Replay<'g, 'a> {
    fn of(graph: &'g Graph<'a>) -> Self {
        let mut replay = Self {
            graph,
            first: Vec::new(),
            hows: Vec::new(),
            keys: Vec::new(),
            events: Vec::new(),
            births: Vec::new(),
            key_of: HashMap::new(),
        };
        for (task, spans) in graph.spans.iter().enumerate() {
            replay.first.push(replay.hows.len());
            for (place, span) in spans.iter().enumerate() {
                replay.hows.push(how(graph, task, place));
                let key = replay.key(graph.charge(task, place).removable());
                replay.keys.push(key);
                let at = At { task, place };
                replay.events.extend([(span.start_ns, true, at), (span.end_ns, false, at)]);
            }
            let born = graph.histories.tasks[task].born.filter(|born| born.at_ns > graph.start_ns);
            replay.births.push(born.and_then(|born| Some((at(graph, born.parent, born.at_ns)?, born.at_ns))));
        }
        replay.events.sort_by_key(|&(at_ns, begins, _)| (at_ns, begins));
        replay
    }

    fn key(&mut self, charge: Charge) -> usize {
        let next = self.key_of.len();
        *self.key_of.entry(charge).or_insert(next)
    }

    /// Which keys are of what is taken away.
    fn gone(&self, what: &Charge) -> Vec<bool> {
        let mut gone = vec![false; self.key_of.len()];
        for (charge, &key) in &self.key_of {
            gone[key] = charge == what || what.role.is_none() && charge.category == what.category;
        }
        gone
    }

    /// When the last task would have come to the end.
    fn end_of(&self, last: usize, is_gone: impl Fn(usize) -> bool) -> u64 {
        // When each span begins in the replay, and how long it lasts.
        let (mut begins, mut lasts) = (vec![0_u64; self.hows.len()], vec![0_u64; self.hows.len()]);
        for &(_, is_beginning, at) in &self.events {
            let index = self.first[at.task] + at.place;
            let span = &self.graph.spans[at.task][at.place];
            if is_beginning {
                begins[index] = self.begin(&begins, &lasts, at, span);
                lasts[index] = match self.hows[index] {
                    How::Alone if is_gone(self.keys[index]) => 0,
                    _ => span.time_ns(),
                };
                continue;
            }
            let comes = |other, at_ns, way_is_gone| {
                let way_ns = if way_is_gone { 0 } else { span.end_ns - at_ns };
                self.comes(&begins, &lasts, other, at_ns) + way_ns
            };
            let this_is_gone = is_gone(self.keys[index]);
            match self.hows[index] {
                How::Alone => {}
                How::Until { other, at_ns } => {
                    lasts[index] = comes(other, at_ns, this_is_gone).saturating_sub(begins[index]);
                }
                How::Found { other, at_ns, wait } => {
                    let is_needless = |wait: At| is_gone(self.keys[self.first[wait.task] + wait.place]);
                    let come_ns = comes(other, at_ns, this_is_gone || wait.is_some_and(is_needless));
                    // Its earlier looks have no part in it: there are as many as it takes.
                    begins[index] = begins[index].min(come_ns);
                    lasts[index] = come_ns - begins[index];
                }
            }
        }
        match at(self.graph, last, self.graph.end_ns) {
            Some(last) => self.comes(&begins, &lasts, last, self.graph.end_ns),
            None => self.graph.end_ns,
        }
    }

    fn begin(&self, begins: &[u64], lasts: &[u64], at: At, span: &Span) -> u64 {
        if let Some(before) = at.place.checked_sub(1) {
            let index = self.first[at.task] + before;
            // What was not seen in between lasts as long as it did.
            return begins[index] + lasts[index] + (span.start_ns - self.graph.spans[at.task][before].end_ns);
        }
        match self.births[at.task] {
            Some((parent, born_ns)) => {
                self.comes(begins, lasts, parent, born_ns) + span.start_ns.saturating_sub(born_ns)
            }
            None => span.start_ns,
        }
    }

    /// When a task comes, in the replay, to an instant of the recording that lies in this span of it.
    fn comes(&self, begins: &[u64], lasts: &[u64], at: At, at_ns: u64) -> u64 {
        let span = &self.graph.spans[at.task][at.place];
        let index = self.first[at.task] + at.place;
        let (done_ns, lasts_ns) = (at_ns.saturating_sub(span.start_ns), lasts[index]);
        // A span is done as it was, or not at all; a wait that became shorter is over then.
        begins[index] + done_ns.min(lasts_ns)
    }
}

/// The span in which a task is right before an instant.
fn at(graph: &Graph<'_>, task: usize, at_ns: u64) -> Option<At> {
    graph.span_before(task, at_ns).map(|(place, _)| At { task, place })
}

fn how(graph: &Graph<'_>, task: usize, place: usize) -> How {
    let span = &graph.spans[task][place];
    let how = match graph.end_of(task, place) {
        End::By { task, at_ns } if at_ns > span.start_ns => {
            at(graph, task, at_ns).map(|other| How::Until { other, at_ns })
        }
        End::Found { task, at_ns, wait, .. } if at_ns > graph.start_ns => {
            let wait = wait.map(|place| At { task, place });
            at(graph, task, at_ns).map(|other| How::Found { other, at_ns, wait })
        }
        _ => None,
    };
    how.unwrap_or(How::Alone)
}
