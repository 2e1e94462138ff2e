//! Sums over threads that have ended and whose places others have: one for each name and role, so that an hour of a shell that starts
//! fifty processes a second needs no more room than a minute of it.

use super::Who;
use crate::probe::{Ended, Snapshot, add_thread};
use bytemuck::Zeroable as _;
use sandscope_ebpf::{
    event::COMM_BYTES,
    sums::{PreemptionKey, Preemptions, State, Thread, WakeKey, Wakes},
};
use std::collections::{BTreeMap, HashMap};

/// The first number that stands for a sum. Threads have smaller ones: [`crate::probe::Limits`].
pub(super) const FIRST_SLOT: u32 = 0x8000;
/// Names that have sums of their own; the others are in one.
const MOST_NAMES: usize = 4096;
/// The name of the sum of those.
const OTHERS: &str = "(others)";
/// The first number that stands for all wakers of one name that have ended; no thread has one as large (`PID_MAX_LIMIT`).
const FIRST_WAKER: u32 = 1 << 31;

/// Whether a number stands for several threads of one name, and not for one.
pub(super) fn is_several(tid: u32) -> bool {
    tid >= FIRST_WAKER
}

/// What is known of those that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    slots: BTreeMap<(String, String), u32>,
    threads: BTreeMap<u32, (Thread, Who)>,
    wakers: HashMap<[u8; COMM_BYTES], u32>,
    wakes: HashMap<WakeKey, Wakes>,
    preemptions: HashMap<PreemptionKey, Preemptions>,
}

impl Sums {
    /// Adds what has ended, of those threads that have a name, by their slots.
    pub(super) fn add(&mut self, ended: &Ended, names: &HashMap<u32, Who>) {
        let mut slots = HashMap::new();
        for (slot, thread) in &ended.threads {
            if let Some(who) = names.get(slot) {
                slots.insert(*slot, self.add_thread(thread, who.clone()));
            }
        }
        self.follow(&slots);
        // Nothing of those that have ended and are not counted; and what is done to one that lives stays with it.
        let new = |slot: u32| match slots.get(&slot) {
            Some(sum) => Some(*sum),
            None => (!ended.threads.contains_key(&slot)).then_some(slot),
        };
        for (key, wakes) in &ended.wakes {
            let Some(slot) = new(key.slot.into()) else { continue };
            let waker_tid = if key.waker_tid == 0 { 0 } else { self.waker(wakes.waker_comm) };
            self.add_wakes(WakeKey { waker_tid, slot: narrow(slot), ..*key }, wakes);
        }
        for (key, preemptions) in &ended.preemptions {
            let Some(slot) = new(key.slot) else { continue };
            let by_tid = if key.by_tid == 0 { 0 } else { self.waker(preemptions.by_comm) };
            self.add_preemptions(PreemptionKey { slot, by_tid }, preemptions);
        }
    }

    /// What was done to these by others that had ended before goes with them: their slots will be those of others.
    fn follow(&mut self, slots: &HashMap<u32, u32>) {
        let moved: Vec<_> = self.wakes.extract_if(|key, _| slots.contains_key(&key.slot.into())).collect();
        for (key, wakes) in moved {
            self.add_wakes(WakeKey { slot: narrow(slots[&key.slot.into()]), ..key }, &wakes);
        }
        let moved: Vec<_> = self.preemptions.extract_if(|key, _| slots.contains_key(&key.slot)).collect();
        for (key, preemptions) in moved {
            self.add_preemptions(PreemptionKey { slot: slots[&key.slot], ..key }, &preemptions);
        }
    }

    fn add_wakes(&mut self, key: WakeKey, wakes: &Wakes) {
        let sum = self.wakes.entry(key).or_insert(Wakes { count: 0, slept_ns: 0, on_cpu_after_ns: 0, ..*wakes });
        sum.count += wakes.count;
        sum.slept_ns += wakes.slept_ns;
        sum.on_cpu_after_ns += wakes.on_cpu_after_ns;
    }

    fn add_preemptions(&mut self, key: PreemptionKey, preemptions: &Preemptions) {
        self.preemptions.entry(key).or_insert(Preemptions { count: 0, ..*preemptions }).count += preemptions.count;
    }

    /// The snapshot with these sums in it, and who they are.
    pub(super) fn add_to(&self, counted: &mut Snapshot, who: &mut BTreeMap<u32, Who>) {
        for (&slot, (thread, name)) in &self.threads {
            counted.threads.insert(slot, *thread);
            who.insert(slot, name.clone());
        }
        let lives = |slot: u32, counted: &Snapshot| counted.threads.contains_key(&slot);
        for (key, wakes) in &self.wakes {
            if lives(key.slot.into(), counted) {
                counted.wakes.insert(*key, *wakes);
            }
        }
        for (key, preemptions) in &self.preemptions {
            if lives(key.slot, counted) {
                counted.preemptions.insert(*key, *preemptions);
            }
        }
    }

    fn add_thread(&mut self, thread: &Thread, mut who: Who) -> u32 {
        if self.slots.len() >= MOST_NAMES && !self.slots.contains_key(&(who.comm.clone(), who.role.clone())) {
            OTHERS.clone_into(&mut who.comm);
            OTHERS.clone_into(&mut who.role);
        }
        let next = FIRST_SLOT + self.slots.len() as u32;
        let slot = *self.slots.entry((who.comm.clone(), who.role.clone())).or_insert(next);
        let (sum, known) = self.threads.entry(slot).or_insert_with(|| {
            let empty = Thread { membership: thread.membership, state: State::Dead as u32, ..Thread::zeroed() };
            (empty, Who { threads: 0, syscall: None, ..who })
        });
        add_thread(sum, thread);
        known.threads += 1;
        slot
    }

    /// The number that stands for all wakers of that name.
    fn waker(&mut self, comm: [u8; COMM_BYTES]) -> u32 {
        let next = FIRST_WAKER + u32::try_from(self.wakers.len().min(MOST_NAMES)).unwrap_or(0);
        *self.wakers.entry(comm).or_insert(next)
    }
}

/// A slot as the kernel's keys have it: all are below [`FIRST_SLOT`] and [`MOST_NAMES`] more.
fn narrow(slot: u32) -> u16 {
    u16::try_from(slot).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(comm: &str) -> Who {
        Who { comm: comm.to_owned(), role: comm.to_owned(), vcpu: None, syscall: None, threads: 1 }
    }

    fn ended(slot: u32, on_cpu_ns: u64, waker: &[u8]) -> Ended {
        let thread = Thread { tid: slot + 100, on_cpu_ns, wakeups: 1, ..Thread::zeroed() };
        let mut waker_comm = [0; COMM_BYTES];
        waker_comm[..waker.len()].copy_from_slice(waker);
        let key = WakeKey { detail: 0, waker_tid: slot + 200, slot: slot as u16, cause: 0 };
        let wakes = Wakes { count: 1, slept_ns: 5, on_cpu_after_ns: 2, waker_scope: 1, padding: [0; 3], waker_comm };
        let preemption = (PreemptionKey { slot, by_tid: slot + 300 }, Preemptions { count: 1, by_comm: waker_comm });
        Ended { threads: [(slot, thread)].into(), wakes: [(key, wakes)].into(), preemptions: [preemption].into() }
    }

    #[test]
    fn a_hundred_thousand_of_one_name_are_one_row_and_none_of_their_time_is_lost() {
        let mut sums = Sums::default();
        for number in 0..100_000 {
            sums.add(&ended(number % 1000, 300, b"sh"), &[(number % 1000, who("true"))].into());
        }
        let mut counted = Snapshot::empty();
        let mut names = BTreeMap::new();
        sums.add_to(&mut counted, &mut names);
        let [(slot, thread)] = counted.threads.iter().collect::<Vec<_>>()[..] else { panic!("one row") };
        assert_eq!((thread.on_cpu_ns, thread.wakeups, names[slot].threads), (30_000_000, 100_000, 100_000));
        let [(key, wakes)] = counted.wakes.iter().collect::<Vec<_>>()[..] else { panic!("one cause") };
        assert_eq!((u32::from(key.slot), wakes.count, wakes.slept_ns), (*slot, 100_000, 500_000));
        assert!(is_several(key.waker_tid) && !is_several(4_194_304));
        assert_eq!(counted.preemptions.values().map(|preemptions| preemptions.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn names_without_end_share_one_row() {
        let mut sums = Sums::default();
        for number in 0..10_000u32 {
            sums.add(&ended(1, 7, &number.to_le_bytes()), &[(1, who(&format!("n{number}")))].into());
        }
        assert_eq!(sums.threads.len(), MOST_NAMES + 1);
        assert_eq!(sums.threads.values().map(|(thread, _)| thread.on_cpu_ns).sum::<u64>(), 70_000);
        assert!(sums.threads.keys().all(|slot| u16::try_from(*slot).is_ok()));
    }

    #[test]
    fn what_wakers_that_have_ended_did_to_one_that_lives_stays_with_it() {
        let mut sums = Sums::default();
        let mut of_living = ended(3, 0, b"cron");
        of_living.threads.clear();
        sums.add(&of_living, &HashMap::new());
        let mut counted = Snapshot::empty();
        counted.threads.insert(3, Thread::zeroed());
        sums.add_to(&mut counted, &mut BTreeMap::new());
        assert_eq!(counted.wakes.keys().map(|key| key.slot).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn it_goes_with_that_one_when_it_ends_and_not_to_who_has_its_slot_then() {
        let mut sums = Sums::default();
        let mut of_living = ended(3, 0, b"cron");
        of_living.threads.clear();
        sums.add(&of_living, &HashMap::new());
        sums.add(&ended(3, 10, b"cron"), &[(3, who("sh"))].into());
        let mut counted = Snapshot::empty();
        counted.threads.insert(3, Thread::zeroed());
        sums.add_to(&mut counted, &mut BTreeMap::new());
        let [(key, wakes)] = counted.wakes.iter().collect::<Vec<_>>()[..] else { panic!("one row") };
        assert_eq!((u32::from(key.slot), wakes.count), (FIRST_SLOT, 2));
        assert_eq!(counted.preemptions.keys().map(|key| key.slot).collect::<Vec<_>>(), [FIRST_SLOT]);
    }

    #[test]
    fn of_those_that_are_not_counted_nothing_is_kept() {
        let mut sums = Sums::default();
        sums.add(&ended(3, 10, b"cron"), &HashMap::new());
        let mut counted = Snapshot::empty();
        counted.threads.insert(3, Thread::zeroed());
        sums.add_to(&mut counted, &mut BTreeMap::new());
        assert!(counted.wakes.is_empty() && counted.preemptions.is_empty());
    }
}
