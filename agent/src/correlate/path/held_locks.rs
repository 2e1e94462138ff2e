//! Locks of the kernel that threads of the sandbox held while the path waited for them.
//!
//! The wait itself is not on the path: what the holder did meanwhile is. That both wanted one lock is a cause of its own, since without it
//! the other would not have waited.

use super::{
    Element,
    charge::Category,
    graph::{End, Graph},
};
use crate::correlate::{
    span::{Activity, Within},
    stacks::Stack,
    texts::Text,
};
use std::collections::BTreeMap;

/// Who waited for a lock that somebody else of the sandbox held, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldLock {
    /// Role of the thread that waited.
    pub role: Text,
    /// The system call or page fault in which it did.
    pub within: Option<Within>,
    /// Where in the kernel.
    pub stack: Stack,
    /// Role of the thread that held the lock, and then woke the other.
    pub held_by: Text,
}

/// How much of a path passed meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// How often it was waited for.
    pub count: u64,
    /// Nanoseconds of the path.
    pub time_ns: u64,
}

impl Graph<'_> {
    /// The locks that were waited for on a path. No instant counts twice: a holder's own wait for another lock is a part of the wait for
    /// him.
    pub fn held_locks(&self, path: &[Element]) -> BTreeMap<HeldLock, Held> {
        let mut all: BTreeMap<HeldLock, Held> = BTreeMap::new();
        let mut counted_from_ns = self.end_ns;
        for pair in path.windows(2).rev() {
            let (Some(holder), Some(waiter), at_ns) = (pair[0].task, pair[1].task, pair[0].end_ns) else { continue };
            let Some((lock, since_ns)) = self.handed_over(holder, waiter, at_ns) else { continue };
            let (since_ns, until_ns) = (since_ns.max(self.start_ns), at_ns.min(counted_from_ns));
            if since_ns < until_ns {
                let held = all.entry(lock).or_default();
                held.count += 1;
                held.time_ns += until_ns - since_ns;
                counted_from_ns = since_ns;
            }
        }
        all
    }

    /// The lock that a task handed over to another one at an instant, and since when that one had waited. Whom the lock's holder wakes
    /// may find that somebody else was quicker, and waits again: in one call, all of that is one wait.
    fn handed_over(&self, holder: usize, waiter: usize, at_ns: u64) -> Option<(HeldLock, u64)> {
        let spans = &self.spans[waiter];
        let place = spans.partition_point(|span| span.end_ns < at_ns);
        let span = spans.get(place).filter(|span| span.end_ns == at_ns)?;
        let Activity::Blocked { within, .. } = span.activity else { return None };
        if holder == waiter || self.end_of(waiter, place) != (End::By { task: holder, at_ns }) {
            return None;
        }
        let mut waited = None;
        for span in spans[..=place].iter().rev() {
            match span.activity {
                Activity::Runnable { .. } => {}
                Activity::Kernel(other) if Some(other) == within => {}
                Activity::Blocked { within: other, woken, .. } if other == within => {
                    let stack = woken.and_then(|wake| wake.stack);
                    if stack.is_some_and(|stack| self.waits.get(&stack) != Some(&Category::Lock)) {
                        break;
                    }
                    waited = stack.map(|stack| (stack, span.start_ns)).or(waited);
                }
                _ => break,
            }
        }
        let (stack, since_ns) = waited?;
        let role = |task: usize, at_ns| self.histories.tasks[task].role_at(at_ns);
        let lock = HeldLock { role: role(waiter, since_ns), within, stack, held_by: role(holder, at_ns) };
        Some((lock, since_ns))
    }
}
