//! Who had the CPU while a thread waited for one.

use super::charge::Detail;
use crate::correlate::{
    history::Move,
    reading::{Histories, Occupant},
    span::Activity,
    span::Span,
};
use std::collections::BTreeMap;

/// The CPU that a task got at an instant.
fn got_at(histories: &Histories, task: usize, at_ns: u64) -> Option<u16> {
    let moves = &histories.tasks[task].moves;
    let from = moves.partition_point(|&(at, _)| at < at_ns);
    let at_that_instant = moves[from..].iter().take_while(|&&(at, _)| at == at_ns);
    at_that_instant.filter_map(|(_, step)| if let Move::In { cpu } = step { Some(*cpu) } else { None }).next()
}

/// Who had the CPU for most of the time in which a task waited for it.
pub(super) fn occupant(histories: &Histories, task: usize, start_ns: u64, end_ns: u64) -> Detail {
    let Some(cpu) = got_at(histories, task, end_ns) else { return Detail::None };
    let changes = histories.cpus.get(&cpu).map_or(&[][..], Vec::as_slice);
    let first = changes.partition_point(|&(at, _)| at <= start_ns).saturating_sub(1);
    let mut times: BTreeMap<Detail, u64> = BTreeMap::new();
    for (index, &(from, occupant)) in changes.iter().enumerate().skip(first) {
        if from >= end_ns {
            break;
        }
        let until = changes.get(index + 1).map_or(end_ns, |&(at, _)| at.min(end_ns));
        let who = match occupant {
            Occupant::Task(other) => Detail::Who(histories.tasks[other].role_at(from)),
            Occupant::Others(Some(name)) if histories.texts.get(name).starts_with("swapper") => Detail::Idle,
            Occupant::Others(Some(name)) => Detail::Who(name),
            Occupant::Others(None) => Detail::None,
        };
        *times.entry(who).or_default() += until.saturating_sub(from.max(start_ns));
    }
    times.into_iter().max_by_key(|&(_, time_ns)| time_ns).map_or(Detail::None, |(who, _)| who)
}

/// When, on which CPU, the CPU limit of the sandbox's cgroup kept a thread of it from running.
pub(super) struct Throttled(BTreeMap<u16, Vec<(u64, u64)>>);

impl Throttled {
    pub(super) fn of(histories: &Histories, spans: &[Vec<Span>]) -> Self {
        let mut all: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
        for (task, spans) in spans.iter().enumerate() {
            for span in spans.iter().filter(|span| span.activity == Activity::Runnable { throttled: true }) {
                if let Some(cpu) = got_at(histories, task, span.end_ns) {
                    all.entry(cpu).or_default().push((span.start_ns, span.end_ns));
                }
            }
        }
        Self(all)
    }

    /// Of the time in which a task that was woken meanwhile waited for a CPU, the instant until which the limit kept it from running:
    /// it is let go together with the others.
    pub(super) fn until(&self, histories: &Histories, task: usize, start_ns: u64, end_ns: u64) -> Option<u64> {
        // Where there is no limit nobody has to be looked for.
        if self.0.is_empty() {
            return None;
        }
        let cpu = got_at(histories, task, end_ns)?;
        let during = self.0.get(&cpu)?.iter().filter(|&&(from, until)| from < end_ns && until > start_ns);
        during.map(|&(_, until)| until.min(end_ns)).max()
    }
}
