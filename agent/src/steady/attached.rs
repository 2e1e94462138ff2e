//! Attaches to what runs: its threads come into scope where they are, and nothing of it is restarted or stopped.
//!
//! Who is made by a member is one, and who joins a control group that is followed is seen to (`probe::aggregate`). What no event tells,
//! such as the other threads of a process that joins, is found by looking again from time to time.

use super::{Found, Opening, Subject, Window};
use crate::probe::{Aggregate, Followed};
use anyhow::{Context, Result, ensure};
use sandscope_ebpf::map::Membership;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Time between two looks: as long as that while little happens, and as short when threads come and go quickly.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// The first.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Part of the places for threads that may be taken between two looks.
const CALM: f64 = 0.1;

/// Targets that are being watched. Detached when it is dropped.
pub struct Attached {
    aggregate: Aggregate,
    targets: Vec<Watched>,
    until_next_look: Duration,
}

struct Watched {
    found: Found,
    scope: u16,
    /// Threads that were in its control groups at the last look.
    known: BTreeSet<u32>,
    opening: Opening,
}

impl Attached {
    /// Attaches to targets, each in a scope of its own.
    ///
    /// # Errors
    /// When there are more than can be told apart, or the kernel refuses.
    pub fn to(found: Vec<Found>, mut aggregate: Aggregate) -> Result<Self> {
        ensure!(found.len() <= usize::from(Membership::MAX_SCOPE), "{} targets are too many", found.len());
        let scopes = || (1..).zip(&found);
        let groups = scopes().flat_map(|(scope, found)| {
            let named = found.members.groups.iter().filter_map(|group| Some((group.hierarchy, group.path.clone()?)));
            named.map(move |(hierarchy, path)| Followed { scope, hierarchy, path })
        });
        let refused = aggregate.follow(groups.collect())?;
        if !refused.is_empty() {
            tracing::info!("who joins these is found by looking alone: {refused:?}");
        }
        aggregate.attach().context("can't attach the probes")?;
        let mut targets = Vec::new();
        for (scope, found) in (1..).zip(found) {
            let mut known = BTreeSet::new();
            // Until a whole look finds none that is new: what a thread makes before it is in scope is not followed.
            loop {
                let mut threads = found.members.threads();
                threads.retain(|tid, _| !known.contains(tid));
                if threads.is_empty() {
                    break;
                }
                known.extend(threads.keys());
                seed(threads, scope, &mut aggregate)?;
            }
            let subject = Subject { name: found.name.clone(), scope, roles: &[], thread_roles: &[] };
            let processes = found.members.processes().into_iter().map(i32::cast_unsigned).collect();
            let opening = Opening::open(subject, &processes, &aggregate)?;
            targets.push(Watched { found, scope, known, opening });
        }
        Ok(Self { aggregate, targets, until_next_look: FIRST_LOOK })
    }

    /// Looks who is there: takes in who has joined, lets go who has left, and makes room for more. Says how long it may be until the
    /// next look, and whether any of the targets still has a thread.
    ///
    /// # Errors
    /// When the kernel refuses to change a map.
    pub fn look(&mut self) -> Result<(Duration, bool)> {
        let filled = self.aggregate.fill();
        let (ended, living) = self.aggregate.take_ended()?;
        let grown = self.aggregate.fill() - if ended.threads.is_empty() { filled } else { 0.0 };
        let (shortest, longest) = LOOKS;
        let next = if grown > CALM { self.until_next_look / 2 } else { self.until_next_look * 2 };
        self.until_next_look = next.clamp(shortest, longest);
        let mut is_alive = false;
        for Watched { found, scope, known, opening } in &mut self.targets {
            if !ended.is_empty() {
                opening.note_ended(&ended);
            }
            let joined = found.members.joined(known);
            is_alive |= living.contains(scope) || !joined.is_empty();
            seed(joined, *scope, &mut self.aggregate)?;
        }
        // One to which nothing has happened yet, or for which there was no room, is seen by looking alone.
        let is_alive = is_alive || self.targets.iter().any(|target| !target.found.members.threads().is_empty());
        Ok((self.until_next_look, is_alive))
    }

    /// What the targets did since the last tick, or since they were attached to.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn tick(&mut self) -> Result<Vec<Window>> {
        self.targets.iter_mut().map(|target| target.opening.tick(&self.aggregate)).collect()
    }

    /// What the targets did since they were attached to. They go on as if nobody had looked.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn detach(self) -> Result<Vec<Window>> {
        let Self { aggregate, targets, .. } = self;
        targets.into_iter().map(|target| target.opening.close(&aggregate)).collect()
    }
}

/// Puts threads into a scope that are in none.
fn seed(threads: BTreeMap<u32, u32>, scope: u16, aggregate: &mut Aggregate) -> Result<()> {
    for (tid, pid) in threads {
        // One that a member has made, or that has joined, is in scope and may have counts.
        if !aggregate.membership(tid).is_recorded() {
            aggregate.seed(tid, pid, Membership::member(scope))?;
        }
    }
    Ok(())
}
