//! What it would save if something took no time: the recorded dependencies, replayed without it.
//!
//! Every task does again what it did, for as long as it did, and waits again for what it waited for: a wait ends when who ended it
//! comes to that point, or is none if that was before. Waits for a timer, a disk or somebody outside last as long as before. So the
//! prediction knows what else is on the way, and would be waited for instead. It does not know that tasks who have more CPU to
//! themselves, or a warmer cache, are faster; nor that a timer that was armed for a purpose would be armed anew.

use super::{
    charge::{Category, Charge, Detail},
    graph::{Cursor, End, Graph},
};

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
/// Parts that are taken away at most, the largest; each is one replay, and so is the whole.
const MOST: usize = 24;
/// Replays at a time: they look at the same spans, and most of the time of one goes into waiting for these to come from memory.
const LANES: usize = 5;

/// Something of each of these replays.
type Lanes<T> = [T; LANES];

/// A span among all, and how far into it.
#[derive(Clone, Copy)]
struct At {
    span: u32,
    done_ns: u64,
}

/// What comes before a span.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing that is known: it begins when it began.
    Nothing,
    /// The span before it of the same task, and what was not seen in between, which lasts as long as it did.
    Span { span: u32, gap_ns: u64 },
    /// The birth of the task, at this instant of its parent.
    Birth { parent: At, delay_ns: u64 },
}

/// What the end of a span depends on.
#[derive(Clone, Copy)]
enum How {
    /// On nothing but its beginning.
    Alone,
    /// It is over when another task comes to an instant, and what was on its way then has come.
    Until { other: At, way_ns: u64 },
    /// A monitor finds what another task did at an instant, as long after it as it did. If that was to begin this wait, nobody has
    /// to step in where there is no wait.
    Found { other: At, way_ns: u64, wait: Option<u32> },
}

/// A span as the replay needs it.
#[derive(Clone, Copy)]
struct Step {
    start_ns: u64,
    time_ns: u64,
    before: Before,
    how: How,
    /// What it is charged to: its place among the charges.
    key: u32,
}

/// The spans of all tasks, with what they depend on.
struct Replay<'g, 'a> {
    graph: &'g Graph<'a>,
    /// Where the spans of each task begin among all.
    first: Vec<u32>,
    steps: Vec<Step>,
    /// Beginnings and ends of spans in order: the span, doubled, and one more for a beginning.
    events: Vec<u32>,
    key_of: foldhash::HashMap<Charge, u32>,
}

impl Graph<'_> {
    /// What the largest parts of the path would save, each by itself, and all of a category together; the largest savings first.
    /// `path` is that to the task with this thread number.
    pub fn savings(&self, tid: u32, path: &[super::Element]) -> Vec<Saving> {
        let Some(last) = self.last_task(tid) else { return Vec::new() };
        let mut parts: foldhash::HashMap<Charge, u64> = foldhash::HashMap::default();
        for element in path.iter().filter(|element| element.charge.category != Category::Unattributed) {
            let charge = element.charge.removable();
            let all = Charge { category: charge.category, role: None, within: None, detail: Detail::None, stack: None };
            *parts.entry(charge).or_default() += element.time_ns();
            *parts.entry(all).or_default() += element.time_ns();
        }
        let least = (LEAST_SHARE * (self.end_ns - self.start_ns) as f64) as u64;
        let mut parts: Vec<_> = parts.into_iter().filter(|&(_, time_ns)| time_ns > least).collect();
        parts.sort_unstable_by_key(|&(charge, time_ns)| (std::cmp::Reverse(time_ns), charge));
        parts.truncate(MOST);
        if parts.is_empty() {
            return Vec::new();
        }
        let Some(replay) = Replay::of(self) else { return Vec::new() };
        // First with nothing taken away.
        let taken: Vec<Option<Charge>> =
            std::iter::once(None).chain(parts.iter().map(|&(charge, _)| Some(charge))).collect();
        let mut times = Times(Vec::new());
        let ends_ns: Vec<u64> = taken
            .chunks(LANES)
            .flat_map(|taken| replay.ends_of(last, &replay.gone(taken), &mut times).into_iter().take(taken.len()))
            .collect();
        let saving = |((charge, time_ns), end_ns): ((Charge, u64), &u64)| Saving {
            charge,
            time_ns,
            saves_ns: ends_ns[0].saturating_sub(*end_ns),
        };
        let mut savings: Vec<Saving> = parts.into_iter().zip(&ends_ns[1..]).map(saving).collect();
        savings.sort_by_key(|saving| std::cmp::Reverse(saving.saves_ns));
        savings
    }
}

impl<'g, 'a> Replay<'g, 'a> {
    /// `None` of more spans than can be numbered.
    fn of(graph: &'g Graph<'a>) -> Option<Self> {
        let count = graph.spans.iter().map(Vec::len).sum::<usize>();
        // An event is twice the number of a span.
        u32::try_from(2 * count + 1).ok()?;
        let mut first = Vec::with_capacity(graph.spans.len());
        let mut next = 0;
        for spans in &graph.spans {
            first.push(next);
            next += u32::try_from(spans.len()).ok()?;
        }
        let steps = Vec::with_capacity(count);
        let mut replay = Self { graph, first, steps, events: Vec::new(), key_of: foldhash::HashMap::default() };
        let (mut events, mut cursor) = (Vec::with_capacity(2 * count), graph.cursor());
        for (task, spans) in graph.spans.iter().enumerate() {
            for (place, span) in spans.iter().enumerate() {
                let number = replay.number(task, place);
                // Of one instant the ends come first.
                events.extend([(span.start_ns, true, number), (span.end_ns, false, number)]);
                let key = replay.key(graph.charge(task, place).removable());
                let (before, how) = (replay.before(&mut cursor, task, place), replay.how(&mut cursor, task, place));
                replay.steps.push(Step { start_ns: span.start_ns, time_ns: span.time_ns(), before, how, key });
            }
        }
        // Those of a task are in order already, which a stable sort makes use of.
        events.sort();
        replay.events = events.into_iter().map(|(_, begins, number)| 2 * number + u32::from(begins)).collect();
        Some(replay)
    }

    fn number(&self, task: usize, place: usize) -> u32 {
        // It was checked that all have one.
        self.first[task] + place as u32
    }

    /// The span in which a task is right before an instant.
    fn at(&self, cursor: &mut Cursor<'_>, task: usize, at_ns: u64) -> Option<At> {
        let (place, span) = cursor.span_before(task, at_ns)?;
        Some(At { span: self.number(task, place), done_ns: at_ns.saturating_sub(span.start_ns) })
    }

    fn before(&self, cursor: &mut Cursor<'_>, task: usize, place: usize) -> Before {
        let (graph, span) = (self.graph, &self.graph.spans[task][place]);
        if let Some(before) = place.checked_sub(1) {
            let gap_ns = span.start_ns - graph.spans[task][before].end_ns;
            return Before::Span { span: self.number(task, before), gap_ns };
        }
        let born = graph.histories.tasks[task].born.filter(|born| born.at_ns > graph.start_ns);
        let birth = born.and_then(|born| {
            let delay_ns = span.start_ns.saturating_sub(born.at_ns);
            Some(Before::Birth { parent: self.at(cursor, born.parent, born.at_ns)?, delay_ns })
        });
        birth.unwrap_or(Before::Nothing)
    }

    fn how(&self, cursor: &mut Cursor<'_>, task: usize, place: usize) -> How {
        let (graph, span) = (self.graph, &self.graph.spans[task][place]);
        let how = match graph.end_of(task, place) {
            End::By { task, at_ns } if at_ns > span.start_ns => {
                self.at(cursor, task, at_ns).map(|other| How::Until { other, way_ns: span.end_ns - at_ns })
            }
            End::Found { task, at_ns, wait, .. } if at_ns > graph.start_ns => {
                let wait = wait.map(|place| self.number(task, place));
                self.at(cursor, task, at_ns).map(|other| How::Found { other, way_ns: span.end_ns - at_ns, wait })
            }
            _ => None,
        };
        how.unwrap_or(How::Alone)
    }

    fn key(&mut self, charge: Charge) -> u32 {
        let next = self.key_of.len() as u32;
        *self.key_of.entry(charge).or_insert(next)
    }

    /// Whether what has a key is taken away, by replay; where nothing is said, nothing is.
    fn gone(&self, taken: &[Option<Charge>]) -> Vec<Lanes<bool>> {
        let mut gone = vec![[false; LANES]; self.key_of.len()];
        for (charge, &key) in &self.key_of {
            for (gone, what) in gone[key as usize].iter_mut().zip(taken) {
                *gone =
                    what.is_some_and(|what| *charge == what || what.role.is_none() && charge.category == what.category);
            }
        }
        gone
    }

    /// When the last task would have come to the end, without what is gone. What is in `times` does not matter.
    fn ends_of(&self, last: usize, gone: &[Lanes<bool>], times: &mut Times) -> Lanes<u64> {
        times.0.clear();
        times.0.resize(self.steps.len(), [(0, 0); LANES]);
        let is_gone = |step: &Step| gone[step.key as usize];
        for &event in &self.events {
            let number = (event / 2) as usize;
            let step = &self.steps[number];
            if event % 2 == 1 {
                let (begins_ns, is_gone) = (times.begin(step), is_gone(step));
                let vanishes = matches!(step.how, How::Alone);
                for (lane, time) in times.0[number].iter_mut().enumerate() {
                    *time = (begins_ns[lane], if vanishes && is_gone[lane] { 0 } else { step.time_ns });
                }
                continue;
            }
            match step.how {
                How::Alone => {}
                How::Until { other, way_ns } => {
                    let (come_ns, is_gone) = (times.comes(other), is_gone(step));
                    for (lane, (begins_ns, lasts_ns)) in times.0[number].iter_mut().enumerate() {
                        let come_ns = come_ns[lane] + if is_gone[lane] { 0 } else { way_ns };
                        *lasts_ns = come_ns.saturating_sub(*begins_ns);
                    }
                }
                How::Found { other, way_ns, wait } => {
                    let (come_ns, is_gone_itself) = (times.comes(other), is_gone(step));
                    let needless = wait.map_or([false; LANES], |wait| is_gone(&self.steps[wait as usize]));
                    for (lane, (begins_ns, lasts_ns)) in times.0[number].iter_mut().enumerate() {
                        let come_ns = come_ns[lane] + if needless[lane] || is_gone_itself[lane] { 0 } else { way_ns };
                        // Its earlier looks have no part in it: there are as many as it takes.
                        *begins_ns = (*begins_ns).min(come_ns);
                        *lasts_ns = come_ns - *begins_ns;
                    }
                }
            }
        }
        let end = self.at(&mut self.graph.cursor(), last, self.graph.end_ns);
        end.map_or([self.graph.end_ns; LANES], |at| times.comes(at))
    }
}

/// When each span begins in the replays, and how long it lasts.
struct Times(Vec<Lanes<(u64, u64)>>);

impl Times {
    fn begin(&self, step: &Step) -> Lanes<u64> {
        match step.before {
            Before::Nothing => [step.start_ns; LANES],
            Before::Span { span, gap_ns } => {
                self.0[span as usize].map(|(begins_ns, lasts_ns)| begins_ns + lasts_ns + gap_ns)
            }
            Before::Birth { parent, delay_ns } => self.comes(parent).map(|come_ns| come_ns + delay_ns),
        }
    }

    /// When a task comes, in the replays, to an instant of the recording.
    fn comes(&self, at: At) -> Lanes<u64> {
        // A span is done as it was, or not at all; a wait that became shorter is over then.
        self.0[at.span as usize].map(|(begins_ns, lasts_ns)| begins_ns + at.done_ns.min(lasts_ns))
    }
}
