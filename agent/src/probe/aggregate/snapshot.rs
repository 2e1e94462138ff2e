//! What the programs have counted at one instant, and the difference of two instants.

use super::{Aggregate, Ended};
use crate::host::clock::monotonic_ns;
use anyhow::Result;
use sandscope_ebpf::{
    histogram::Histogram,
    sums::{Exits, PreemptionKey, Preemptions, Shortages, State, Thread, Vcpu, WakeKey, Wakes},
};
use std::collections::{BTreeMap, HashMap};

/// Counters of the threads of one scope, from their first event to one instant, or between two instants.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was taken, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Length of the time that it is about; 0: since the first event.
    pub span_ns: u64,
    /// Wake-ups of these threads while their causes were read, which is after the threads were; between two instants: at both.
    pub woken_meanwhile: u64,
    /// Threads by their slot; times up to `at_ns`.
    pub threads: BTreeMap<u32, Thread>,
    /// Wake-ups of these threads.
    pub wakes: HashMap<WakeKey, Wakes>,
    /// Preemptions of these threads.
    pub preemptions: HashMap<PreemptionKey, Preemptions>,
    /// Exits of those that are vCPUs, by their place in the kernel's array.
    pub exits: BTreeMap<u16, Exits>,
    /// What found no room, of any scope.
    pub shortages: Shortages,
}

impl Snapshot {
    /// Nothing was counted.
    pub fn empty() -> Self {
        Self {
            at_ns: 0,
            span_ns: 0,
            woken_meanwhile: 0,
            threads: BTreeMap::new(),
            wakes: HashMap::new(),
            preemptions: HashMap::new(),
            exits: BTreeMap::new(),
            shortages: Shortages::default(),
        }
    }

    pub(super) fn read(aggregate: &Aggregate, scope: u16) -> Result<Self> {
        let mut threads: BTreeMap<u32, Thread> = aggregate.slots(scope).collect();
        let at_ns = monotonic_ns();
        let mut exits = BTreeMap::new();
        for thread in threads.values_mut() {
            bring_up_to(thread, at_ns);
            let vcpu = (thread.vcpu != 0).then(|| aggregate.vcpus.read(u32::from(thread.vcpu))).flatten();
            let Some(vcpu) = vcpu else { continue };
            for place in exits_of(&vcpu) {
                if let Some(element) = (place != 0).then(|| aggregate.exits.read(u32::from(place))).flatten() {
                    exits.insert(place, element);
                }
            }
        }
        let of_thread = |slot: u32| threads.contains_key(&slot);
        let wakes = aggregate.hash::<WakeKey, Wakes>("WAKES")?;
        let wakes = wakes.iter().filter_map(Result::ok).filter(|(key, _)| of_thread(key.slot.into())).collect();
        let wakeups: u64 = threads.values().map(|thread| thread.wakeups).sum();
        let woken_meanwhile = aggregate.wakeups(scope).saturating_sub(wakeups);
        let preemptions = aggregate.hash::<PreemptionKey, Preemptions>("PREEMPTIONS")?;
        let preemptions = preemptions.iter().filter_map(Result::ok).filter(|(key, _)| of_thread(key.slot)).collect();
        let shortages = aggregate.shortages()?;
        Ok(Self { at_ns, span_ns: 0, woken_meanwhile, threads, wakes, preemptions, exits, shortages })
    }

    /// What happened after `earlier`. Elements in which nothing happened are left out, save for threads.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        self.span_ns = self.at_ns.saturating_sub(earlier.at_ns);
        self.woken_meanwhile += earlier.woken_meanwhile;
        for (slot, thread) in &mut self.threads {
            if let Some(before) = earlier.threads.get(slot).filter(|before| before.tid == thread.tid) {
                subtract_thread(thread, before);
                if before.state == State::Unseen as u32 && thread.state != State::Unseen as u32 {
                    forget_beginning(thread, earlier.at_ns.saturating_sub(before.since_ns));
                }
            }
        }
        for (key, wakes) in &mut self.wakes {
            if let Some(before) = earlier.wakes.get(key) {
                wakes.count -= before.count;
                wakes.slept_ns -= before.slept_ns;
                wakes.on_cpu_after_ns -= before.on_cpu_after_ns;
            }
        }
        self.wakes.retain(|_, wakes| wakes.count > 0 || wakes.on_cpu_after_ns > 0);
        for (key, preemptions) in &mut self.preemptions {
            if let Some(before) = earlier.preemptions.get(key) {
                preemptions.count -= before.count;
            }
        }
        self.preemptions.retain(|_, preemptions| preemptions.count > 0);
        for (place, exits) in &mut self.exits {
            if let Some(before) = earlier.exits.get(place) {
                subtract_exits(exits, before);
            }
        }
        self.exits.retain(|_, exits| exits.count > 0);
        self.shortages = subtract_shortages(self.shortages, earlier.shortages);
        self
    }

    /// Subtracts from what has ended since what was counted of it here, and forgets that: its places are now those of others.
    pub fn give_up(&mut self, ended: &mut Ended) {
        for (slot, thread) in &mut ended.threads {
            if let Some(before) = self.threads.remove(slot).filter(|before| before.tid == thread.tid) {
                subtract_thread(thread, &before);
            }
        }
        for (key, wakes) in &mut ended.wakes {
            if let Some(before) = self.wakes.remove(key) {
                wakes.count -= before.count;
                wakes.slept_ns -= before.slept_ns;
                wakes.on_cpu_after_ns -= before.on_cpu_after_ns;
            }
        }
        for (key, preemptions) in &mut ended.preemptions {
            if let Some(before) = self.preemptions.remove(key) {
                preemptions.count -= before.count;
            }
        }
    }

    /// Seconds that it is about.
    pub fn seconds(&self) -> f64 {
        self.span_ns as f64 / 1e9
    }
}

/// Takes away what a thread did between being put into scope and the first look: `ns` of the state that its first event told of, which
/// is the longest one but where the two are far apart.
fn forget_beginning(thread: &mut Thread, ns: u64) {
    let times = [&mut thread.on_cpu_ns, &mut thread.runnable_ns, &mut thread.blocked_ns];
    if let Some(longest) = times.into_iter().max() {
        *longest = longest.saturating_sub(ns);
    }
}

/// Places of everything that is counted of the exits of a vCPU; 0 is none.
pub(super) fn exits_of(vcpu: &Vcpu) -> impl Iterator<Item = u16> {
    let by_code = vcpu.exits.iter().chain(&vcpu.returns).chain(&vcpu.devices);
    by_code.chain([&vcpu.halts]).chain(&vcpu.timers).copied()
}

/// Adds what a thread did to the sums of others.
pub fn add_thread(sum: &mut Thread, thread: &Thread) {
    sum.on_cpu_ns += thread.on_cpu_ns;
    sum.runnable_ns += thread.runnable_ns;
    sum.blocked_ns += thread.blocked_ns;
    sum.switches += thread.switches;
    sum.preemptions += thread.preemptions;
    sum.sleeps += thread.sleeps;
    sum.wakeups += thread.wakeups;
    sum.migrations += thread.migrations;
    sum.causes_ns += thread.causes_ns;
    for (count, more) in sum.latency.0.iter_mut().zip(&thread.latency.0) {
        *count = count.saturating_add(*more);
    }
}

/// Adds the state that a thread is in to the sums of its times.
fn bring_up_to(thread: &mut Thread, at_ns: u64) {
    let open = at_ns.saturating_sub(thread.since_ns);
    match thread.state {
        state if state == State::Running as u32 => thread.on_cpu_ns += open,
        state if state == State::Runnable as u32 => thread.runnable_ns += open,
        state if state == State::Blocked as u32 => thread.blocked_ns += open,
        _ => {}
    }
}

fn subtract_thread(thread: &mut Thread, before: &Thread) {
    // A thread that was seen running may have been on its way to sleep: its times differ by less than a switch takes.
    let times = [
        (&mut thread.on_cpu_ns, before.on_cpu_ns),
        (&mut thread.runnable_ns, before.runnable_ns),
        (&mut thread.blocked_ns, before.blocked_ns),
    ];
    for (time, before) in times {
        *time = time.saturating_sub(before);
    }
    thread.switches -= before.switches;
    thread.preemptions -= before.preemptions;
    thread.sleeps -= before.sleeps;
    thread.wakeups -= before.wakeups;
    thread.migrations -= before.migrations;
    thread.causes_ns -= before.causes_ns;
    subtract_histogram(&mut thread.latency, &before.latency);
}

fn subtract_exits(exits: &mut Exits, before: &Exits) {
    exits.count -= before.count;
    exits.total_ns -= before.total_ns;
    exits.vmm_ns -= before.vmm_ns;
    exits.blocked_ns -= before.blocked_ns;
    exits.polled_ns -= before.polled_ns;
    exits.runnable_ns -= before.runnable_ns;
    exits.other_addresses -= before.other_addresses;
    for (address, before) in exits.addresses.iter_mut().zip(&before.addresses) {
        address.count -= before.count;
    }
    subtract_histogram(&mut exits.duration, &before.duration);
}

fn subtract_histogram(histogram: &mut Histogram, before: &Histogram) {
    for (count, before) in histogram.0.iter_mut().zip(&before.0) {
        *count = count.wrapping_sub(*before);
    }
}

fn subtract_shortages(now: Shortages, before: Shortages) -> Shortages {
    Shortages {
        threads: now.threads - before.threads,
        vcpus: now.vcpus - before.vcpus,
        exits: now.exits - before.exits,
        wakes: now.wakes - before.wakes,
        preemptions: now.preemptions - before.preemptions,
    }
}
