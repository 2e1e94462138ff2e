//! A window in a few lines: what it cost, what woke the sandbox, why it left the guest.

use super::{HELPER, Translators, Window};
use crate::correlate;
use sandscope_ebpf::{
    histogram::{BUCKETS, middle},
    sums::Source,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows shown of each kind.
const TOP: usize = 8;

/// What a window cost. Times in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// CPU time of the sandbox's threads.
    pub cpu_ns: u64,
    /// Run time of the interrupts and timers that woke them.
    pub causes_ns: u64,
    /// CPU time of the kernel's threads that work for the sandbox.
    pub helpers_ns: u64,
    /// All of it, `ksmd`'s share included, as a share of one CPU.
    pub ratio: f64,
}

/// A window in a few lines.
#[derive(Debug, Clone, Serialize)]
pub struct WindowSummary {
    /// Who was watched.
    pub target: String,
    /// Length of the window.
    pub seconds: f64,
    /// What it cost.
    pub cost: Cost,
    /// Wake-ups per second.
    pub wakeups_per_s: f64,
    /// Who used the CPU most.
    pub busiest: Vec<Busy>,
    /// What woke it most often.
    pub causes: Vec<Cause>,
    /// Why it left the guest most often.
    pub exits: Vec<ExitRate>,
    /// Where in the guest it was then most often.
    pub places: Vec<Place>,
    /// Run-queue latency that 99 % stay below, in nanoseconds; `None` when nobody had to wait.
    pub run_queue_p99_ns: Option<u64>,
    /// Time in which CPU limits kept it from running, in nanoseconds; `None` where nothing counts it.
    pub throttled_ns: Option<u64>,
    /// Events that found no room.
    pub unrecorded_count: u64,
    /// What in these figures can't be.
    pub doubts: Vec<String>,
}

/// Somebody who used the CPU.
#[derive(Debug, Clone, Serialize)]
pub struct Busy {
    /// Its role.
    pub role: String,
    /// Name of the thread, or of the threads.
    pub comm: String,
    /// The thread; `None` for the sum of those that have ended.
    pub tid: Option<u32>,
    /// How many threads.
    pub threads_count: u64,
    /// CPU time as a share of one CPU.
    pub cpu_ratio: f64,
    /// Wake-ups per second.
    pub wakeups_per_s: f64,
    /// The system call that it was seen in.
    pub syscall: Option<String>,
    /// Where it was found most often while it had a CPU.
    pub found_in: Option<String>,
}

/// A cause of wake-ups.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// Role of those that it woke.
    pub role: String,
    /// `task`, `hrtimer`, `irq`, `timer` or `softirq`.
    pub cause: &'static str,
    /// The function, interrupt, softirq, or name of the waking task.
    pub detail: String,
    /// How often per second.
    pub per_s: f64,
    /// CPU time after these wake-ups, as a share of one CPU.
    pub cpu_ratio: f64,
}

/// Where the guest left off.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// As in the table `guest_addresses`.
    pub reason: String,
    /// Function, or address in hexadecimal.
    pub place: String,
    /// How often per second.
    pub per_s: f64,
}

/// Exits for one reason, of all vCPUs.
#[derive(Debug, Clone, Serialize)]
pub struct ExitRate {
    /// As in the table `exits`.
    pub reason: String,
    /// How often per second.
    pub per_s: f64,
    /// Time until the guest went on, mean in nanoseconds.
    pub mean_ns: f64,
}

impl Window {
    /// What it cost.
    pub fn cost(&self) -> Cost {
        let cpu_ns = self.cpu_ns(|who| who.role != HELPER);
        let helpers_ns = self.cpu_ns(|who| who.role == HELPER);
        let causes_ns = self.counted.threads.values().map(|thread| thread.causes_ns).sum::<u64>();
        let all = cpu_ns + causes_ns + helpers_ns + self.ksmd_ns.unwrap_or(0);
        let ratio = if self.counted.span_ns == 0 { 0.0 } else { all as f64 / self.counted.span_ns as f64 };
        Cost { cpu_ns, causes_ns, helpers_ns, ratio }
    }

    /// Run-queue latency that a share of all waits stays below, over all threads.
    fn latency_ns(&self, quantile: f64) -> Option<u64> {
        let mut sums = [0u64; BUCKETS];
        for thread in self.counted.threads.values() {
            for (sum, count) in sums.iter_mut().zip(thread.latency.0) {
                *sum += u64::from(count);
            }
        }
        let total: u64 = sums.iter().sum();
        let rank = (total as f64 * quantile).ceil() as u64;
        let mut below = 0;
        let at = sums.iter().position(|count| {
            below += count;
            total > 0 && below >= rank.max(1)
        })?;
        Some(middle(at))
    }
}

/// The window in a few lines.
pub fn summarise(window: &Window, with: &Translators<'_>) -> WindowSummary {
    let seconds = window.counted.seconds();
    let per_s = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let mut causes: BTreeMap<(String, &'static str, String), (u64, u64)> = BTreeMap::new();
    for (key, wakes) in &window.counted.wakes {
        let Some(who) = window.threads.get(&key.slot.into()) else { continue };
        let cause = correlate::Cause::of(key.cause, key.detail);
        let detail = cause.detail(with.names).unwrap_or_else(|| super::printable(&wakes.waker_comm));
        let sum = causes.entry((who.role.clone(), cause.kind(), detail)).or_default();
        sum.0 += wakes.count;
        sum.1 += wakes.on_cpu_after_ns;
    }
    let span_ns = window.counted.span_ns.max(1) as f64;
    let mut causes: Vec<Cause> = causes
        .into_iter()
        .map(|((role, cause, detail), (count, cpu_ns))| Cause {
            role,
            cause,
            detail,
            per_s: per_s(count),
            cpu_ratio: cpu_ns as f64 / span_ns,
        })
        .collect();
    causes.sort_by(|a, b| b.per_s.total_cmp(&a.per_s));
    causes.truncate(TOP);
    let mut exits: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (_, reason, exit) in window.exits(with).filter(|(_, _, exit)| exit.source != Source::Timer as u32) {
        let sum = exits.entry(reason).or_default();
        sum.0 += exit.count;
        sum.1 += exit.total_ns;
    }
    let mut exits: Vec<ExitRate> = exits
        .into_iter()
        .map(|(reason, (count, time))| ExitRate {
            reason,
            per_s: per_s(count),
            mean_ns: time as f64 / count.max(1) as f64,
        })
        .collect();
    exits.sort_by(|a, b| b.per_s.total_cmp(&a.per_s));
    exits.truncate(TOP);
    let places = window.addresses(with).into_iter().filter_map(|row| {
        Some(Place { reason: row.reason, place: row.symbol.or(row.address)?, per_s: per_s(row.count) })
    });
    let mut places: Vec<Place> = places.collect();
    places.sort_by(|a, b| b.per_s.total_cmp(&a.per_s));
    places.truncate(TOP);
    WindowSummary {
        target: window.subject.name.clone(),
        seconds,
        cost: window.cost(),
        wakeups_per_s: per_s(window.counted.threads.values().map(|thread| thread.wakeups).sum()),
        busiest: busiest(window, seconds, with),
        causes,
        exits,
        places,
        run_queue_p99_ns: window.latency_ns(0.99),
        throttled_ns: window.throttled_ns,
        unrecorded_count: window.counted.shortages.total(),
        doubts: window.doubts.clone(),
    }
}

fn busiest(window: &Window, seconds: f64, with: &Translators<'_>) -> Vec<Busy> {
    let seconds = seconds.max(f64::MIN_POSITIVE);
    let threads = window.counted.threads.iter().filter(|(_, thread)| thread.on_cpu_ns > 0);
    let mut busiest: Vec<Busy> = threads
        .filter_map(|(slot, thread)| {
            let who = window.threads.get(slot)?;
            Some(Busy {
                role: who.role.clone(),
                comm: who.comm.clone(),
                tid: (thread.tid != 0).then_some(thread.tid),
                threads_count: who.threads,
                cpu_ratio: thread.on_cpu_ns as f64 / 1e9 / seconds,
                wakeups_per_s: thread.wakeups as f64 / seconds,
                syscall: who.syscall.clone(),
                found_in: window.found_in(*slot, with),
            })
        })
        .collect();
    busiest.sort_by(|one, other| other.cpu_ratio.total_cmp(&one.cpu_ratio));
    busiest.truncate(TOP);
    busiest
}
