//! What no figures of a window may say: more CPU time than there are CPUs, a thread with more time than the window has, wake-ups
//! without a cause. It is checked where the sums are made, and what fails is said with them.

use super::Who;
use crate::probe::Snapshot;
use std::collections::BTreeMap;

/// Times are taken thread by thread: none of them at the very same instant as the others.
const TOLERATED: f64 = 0.01;
/// The same, for short windows.
const TOLERATED_NS: u64 = 5_000_000;
/// Wake-ups that may be under way while they are counted.
const UNDER_WAY: u64 = 16;

/// CPUs that are online; `None` where the kernel does not say.
pub(super) fn online_cpus() -> Option<u64> {
    aya::util::online_cpus().ok().map(|cpus| cpus.len() as u64)
}

/// What can't be, each in a sentence.
pub(super) fn doubts(counted: &Snapshot, who: &BTreeMap<u32, Who>, cpus: Option<u64>) -> Vec<String> {
    let mut doubts = Vec::new();
    let span_ns = counted.span_ns;
    let most = |ns: u64| (ns as f64 * (1.0 + TOLERATED)) as u64 + TOLERATED_NS;
    let cpu_ns: u64 = counted.threads.values().map(|thread| thread.on_cpu_ns).sum();
    if let Some(cpus) = cpus.filter(|cpus| cpu_ns > most(span_ns * cpus)) {
        let share = cpu_ns as f64 / span_ns.max(1) as f64 * 100.0;
        doubts.push(format!("{share:.0} % of a CPU is more than the {cpus} CPUs of this host have"));
    }
    let longer = |ns: u64| ns > most(span_ns);
    let single = counted.threads.iter().filter(|(slot, _)| who.get(slot).is_some_and(|who| who.threads == 1));
    let impossible = single.filter(|(_, thread)| longer(thread.on_cpu_ns + thread.runnable_ns + thread.blocked_ns));
    let mut impossible = impossible.map(|(_, thread)| thread.tid);
    if let Some(first) = impossible.next() {
        let count = 1 + impossible.count();
        doubts.push(format!("{count} threads have more time than the window, the first of them {first}"));
    }
    let wakeups: u64 = counted.threads.values().map(|thread| thread.wakeups).sum();
    let named: u64 = counted.wakes.values().map(|wakes| wakes.count).sum();
    let unnamed = wakeups.abs_diff(named);
    if unnamed > counted.shortages.wakes + UNDER_WAY + counted.woken_meanwhile {
        doubts.push(format!("{wakeups} wake-ups have {named} causes"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use sandscope_ebpf::sums::Thread;

    const SECOND: u64 = 1_000_000_000;

    fn window(threads: &[Thread]) -> (Snapshot, BTreeMap<u32, Who>) {
        let mut counted = Snapshot { span_ns: SECOND, ..Snapshot::empty() };
        counted.threads = (1..).zip(threads.iter().copied()).collect();
        let who = |threads| Who { comm: String::new(), role: String::new(), vcpu: None, syscall: None, threads };
        let names = counted.threads.keys().map(|slot| (*slot, who(1))).collect();
        (counted, names)
    }

    fn busy(tid: u32, on_cpu_ns: u64) -> Thread {
        Thread { tid, on_cpu_ns, ..Thread::zeroed() }
    }

    #[test]
    fn a_full_host_is_possible_and_more_than_that_is_not() {
        let (counted, who) = window(&[busy(1, SECOND), busy(2, SECOND)]);
        assert_eq!(doubts(&counted, &who, Some(2)), Vec::<String>::new());
        let (counted, who) = window(&[busy(1, SECOND), busy(2, SECOND), busy(3, SECOND)]);
        let found = doubts(&counted, &who, Some(2));
        assert_eq!(found, ["300 % of a CPU is more than the 2 CPUs of this host have"]);
    }

    #[test]
    fn a_thread_has_no_more_time_than_the_window_but_a_sum_of_threads_may() {
        let (counted, mut who) = window(&[busy(7, SECOND + SECOND / 10)]);
        assert_eq!(doubts(&counted, &who, Some(2)).len(), 1);
        who.get_mut(&1).unwrap().threads = 5;
        assert_eq!(doubts(&counted, &who, Some(2)).len(), 0);
    }

    #[test]
    fn wakeups_have_causes() {
        let thread = Thread { tid: 1, wakeups: 1000, ..Thread::zeroed() };
        let (mut counted, who) = window(&[thread]);
        assert_eq!(doubts(&counted, &who, Some(2)), ["1000 wake-ups have 0 causes"]);
        counted.shortages.wakes = 1000;
        assert_eq!(doubts(&counted, &who, Some(2)), Vec::<String>::new(), "it is told already");
        (counted.shortages.wakes, counted.woken_meanwhile) = (0, 1000);
        assert_eq!(doubts(&counted, &who, Some(2)), Vec::<String>::new(), "they came between the two readings");
    }
}
