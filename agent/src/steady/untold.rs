//! What no event has told of a thread, by the kernel's own count of its CPU time: nothing has happened to it since it was looked at, or
//! some kernel has not told that it left a CPU or got one.

use crate::{measure::run_time, probe::Snapshot};
use sandscope_ebpf::sums::{State, Thread};

/// A thread that has a CPU, or waits for one, for longer without a switch is asked for.
pub(super) const LONG_NS: u64 = 10_000_000;

/// Threads that wait for a CPU as far as events tell, and have got one: what they ran is taken out of their waiting.
pub(super) fn arrivals(counts: &mut Snapshot) {
    let at_ns = counts.at_ns;
    let waits = |thread: &&mut Thread| {
        thread.state == State::Runnable as u32 && thread.exec_ns > 0 && at_ns.saturating_sub(thread.since_ns) > LONG_NS
    };
    for thread in counts.threads.values_mut().filter(waits) {
        if let Some(run_ns) = run_time::run_ns(thread.tid) {
            arrived(thread, run_ns, at_ns.saturating_sub(thread.since_ns));
        }
    }
}

/// Of `open_ns` of waiting, which are in its sums, a thread ran what the kernel has counted since it left a CPU the last time.
fn arrived(thread: &mut Thread, run_ns: u64, open_ns: u64) {
    let ran_ns = run_ns.saturating_sub(thread.exec_ns).min(open_ns).min(thread.runnable_ns);
    thread.runnable_ns -= ran_ns;
    thread.on_cpu_ns += ran_ns;
}

/// Time on a CPU, and the rest, of a thread that has spent `open_ns` in a state that no event tells; `letter` is the state that it is in
/// now, `run_ns` how much of the window the kernel says that it ran, as of the last tick.
pub(super) fn settled(letter: char, run_ns: Option<u64>, open_ns: u64) -> (u64, u64) {
    let ran_ns = run_ns.map(|ns| ns.min(open_ns));
    let on_cpu_ns = match (letter, ran_ns) {
        // Without an event it ran all the time or none of it; ticks are some milliseconds.
        ('R', Some(ran_ns)) if ran_ns * 2 < open_ns => 0,
        ('R', _) => open_ns,
        (_, ran_ns) => ran_ns.unwrap_or(0),
    };
    (on_cpu_ns, open_ns - on_cpu_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_thread_without_events_is_what_the_kernel_says() {
        assert_eq!(settled('R', Some(SECOND - 4_000_000), SECOND), (SECOND, 0), "it ran all the time");
        assert_eq!(settled('R', Some(0), SECOND), (0, SECOND), "it waited for a CPU all the time");
        assert_eq!(settled('R', None, SECOND), (SECOND, 0));
        assert_eq!(settled('S', Some(0), SECOND), (0, SECOND));
        assert_eq!(settled('S', Some(300), SECOND), (300, SECOND - 300), "its switch was not told");
    }

    #[test]
    fn who_got_a_cpu_without_an_event_has_run_what_the_kernel_counts() {
        let waiting = Thread { exec_ns: 5 * SECOND, on_cpu_ns: 7, runnable_ns: 2 * SECOND, ..Thread::zeroed() };
        for (run_ns, ran_ns) in [(5 * SECOND, 0), (5 * SECOND + 300, 300), (9 * SECOND, SECOND), (SECOND, 0)] {
            let mut thread = waiting;
            arrived(&mut thread, run_ns, SECOND);
            assert_eq!((thread.on_cpu_ns, thread.runnable_ns), (7 + ran_ns, 2 * SECOND - ran_ns), "{run_ns}");
        }
    }
}
