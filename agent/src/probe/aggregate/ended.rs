//! Gives the places of threads that have ended to others, so that any number of them may come and go while somebody watches.
//!
//! The kernel keeps a thread's counts until they are taken. As long as places are left nobody takes them; then everything that is
//! known of those that have ended is taken at once, and their places, wake-ups and preemptions are free again.

use super::Aggregate;
use crate::{host::clock::monotonic_ns, probe::loader::push};
use anyhow::Result;
use bytemuck::Zeroable;
use sandscope_ebpf::{
    map::Membership,
    sums::{PreemptionKey, Preemptions, State, Thread, WakeKey, Wakes},
};
use std::collections::{BTreeSet, HashMap};

/// A thread is taken when it has ended this long ago: its last event is over by then.
const OVER_NS: u64 = 1_000_000;

/// Time between two looks at the maps of wake-ups and preemptions where no thread has ended.
const BETWEEN_LOOKS_NS: u64 = 10_000_000_000;

/// Elements of the maps of wake-ups and preemptions that may be in use before those are taken whose other side has ended.
const ROOM: usize = 8192;

/// What is known of a thread that has ended, or of what threads that have ended did to one that lives.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// The threads, by the slots that they had.
    pub threads: HashMap<u32, Thread>,
    /// Their wake-ups, and those of others by wakers that have ended.
    pub wakes: HashMap<WakeKey, Wakes>,
    /// Their preemptions, and those of others by threads that have ended.
    pub preemptions: HashMap<PreemptionKey, Preemptions>,
}

impl Ended {
    /// Those of one scope; the threads of that scope that live are `of_scope`.
    #[must_use]
    pub fn of_scope(&self, scope: u16, lives: impl Fn(u32) -> bool) -> Self {
        let threads: HashMap<u32, Thread> = self
            .threads
            .iter()
            .filter(|(_, thread)| Membership(thread.membership).scope() == scope)
            .map(|(slot, thread)| (*slot, *thread))
            .collect();
        let concerns = |slot: u32| threads.contains_key(&slot) || !self.threads.contains_key(&slot) && lives(slot);
        let wakes = self.wakes.iter().filter(|(key, _)| concerns(key.slot.into())).map(|(key, wakes)| (*key, *wakes));
        let (wakes, preemptions) = (
            wakes.collect(),
            self.preemptions.iter().filter(|(key, _)| concerns(key.slot)).map(|(key, value)| (*key, *value)).collect(),
        );
        Self { threads, wakes, preemptions }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.wakes.is_empty() && self.preemptions.is_empty()
    }
}

impl Aggregate {
    /// Takes what is known of threads that have ended when places become rare. vCPUs stay. Also says which scopes have a thread that has
    /// not ended.
    ///
    /// # Errors
    /// When the kernel refuses to change a map.
    pub fn take_ended(&mut self) -> Result<(Ended, BTreeSet<u16>)> {
        let now = monotonic_ns();
        let mut ended = HashMap::new();
        let mut living = BTreeSet::new();
        let mut in_use = 0;
        for slot in 1..self.threads.len() {
            let Some((_, membership, state)) = self.state_of(slot).filter(|(tid, ..)| *tid != 0) else { continue };
            in_use += 1;
            if state != State::Dead as u32 {
                // A bystander may outlive what it works for.
                living.extend((!membership.is_bystander()).then_some(membership.scope()));
            } else if let Some(thread) = self.threads.read(slot)
                && thread.vcpu == 0
                && now.saturating_sub(thread.since_ns) > OVER_NS
            {
                ended.insert(slot, thread);
            }
        }
        self.in_use = in_use;
        if ended.len() < usize::from(self.limits.threads) / 4 {
            ended.clear();
        }
        let is_gone = |slot: u32| ended.contains_key(&slot);
        let (mut wakes, mut preemptions) = (HashMap::new(), HashMap::new());
        // Each element is a system call: not at every look, where nothing has ended.
        if !ended.is_empty() || now.saturating_sub(self.maps_looked_at_ns) > BETWEEN_LOOKS_NS {
            self.maps_looked_at_ns = now;
            wakes = self.take_wakes(is_gone)?;
            preemptions = self.take_preemptions(is_gone)?;
        }
        for &slot in ended.keys() {
            self.threads.write(slot, Thread::zeroed());
            if let Ok(slot) = u16::try_from(slot) {
                push(&mut self.programs.ebpf, "FREE_SLOTS", slot)?;
            }
        }
        self.in_use -= ended.len();
        Ok((Ended { threads: ended, wakes, preemptions }, living))
    }

    /// Part of the places for threads that were in use at the last look.
    pub fn fill(&self) -> f64 {
        self.in_use as f64 / f64::from(self.limits.threads.max(1))
    }

    fn take_wakes(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<HashMap<WakeKey, Wakes>> {
        let mut map = self.hash_mut::<WakeKey, Wakes>("WAKES")?;
        let keys: Vec<WakeKey> = map.keys().filter_map(Result::ok).collect();
        let is_full = keys.len() > ROOM;
        let mut taken = HashMap::new();
        for key in keys {
            if (is_gone(key.slot.into()) || is_full && key.waker_tid != 0 && has_ended(key.waker_tid))
                && let Ok(wakes) = map.get(&key, 0)
                && map.remove(&key).is_ok()
            {
                taken.insert(key, wakes);
            }
        }
        Ok(taken)
    }

    fn take_preemptions(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<HashMap<PreemptionKey, Preemptions>> {
        let mut map = self.hash_mut::<PreemptionKey, Preemptions>("PREEMPTIONS")?;
        let keys: Vec<PreemptionKey> = map.keys().filter_map(Result::ok).collect();
        let is_full = keys.len() > ROOM;
        let mut taken = HashMap::new();
        for key in keys {
            if (is_gone(key.slot) || is_full && key.by_tid != 0 && has_ended(key.by_tid))
                && let Ok(preemptions) = map.get(&key, 0)
                && map.remove(&key).is_ok()
            {
                taken.insert(key, preemptions);
            }
        }
        Ok(taken)
    }

    /// Number, membership and state of the thread that has a slot.
    fn state_of(&self, slot: u32) -> Option<(u32, Membership, u32)> {
        let element = self.threads.at(slot)?.as_ptr();
        // SAFETY: inside of the element.
        let tid = unsafe { &raw const (*element).tid };
        // SAFETY: as above.
        let membership = unsafe { &raw const (*element).membership };
        // SAFETY: as above.
        let state = unsafe { &raw const (*element).state };
        // SAFETY: aligned and valid as long as `self`; a word that programs write as a whole.
        let tid = unsafe { tid.read_volatile() };
        // SAFETY: as above.
        let membership = unsafe { membership.read_volatile() };
        // SAFETY: as above.
        let state = unsafe { state.read_volatile() };
        Some((tid, Membership(membership), state))
    }
}

fn has_ended(tid: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{tid}")).exists()
}
