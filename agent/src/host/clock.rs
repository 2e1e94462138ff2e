//! The clock that user space shares with the BPF programs.

use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the rate of the time stamp counter is measured: the error of both readings, some hundred nanoseconds, is then below
/// what crystals differ by.
const TSC_WINDOW: Duration = Duration::from_millis(20);

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns` returns.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both parts are non-negative on this clock, and 2^64 ns are 584 years of uptime.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Wall-clock time in nanoseconds since 1970; 0 if the clock is set before that.
pub fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// How fast the CPU's time stamp counter runs, in kHz, measured once; `None` on a machine without one.
pub fn tsc_khz() -> Option<u64> {
    static RATE: OnceLock<Option<u64>> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start_ticks, start_ns) = (ticks()?, monotonic_ns());
        std::thread::sleep(TSC_WINDOW);
        let (ticks, ns) = (ticks()?.checked_sub(start_ticks)?, monotonic_ns() - start_ns);
        u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(ns)).ok().filter(|khz| *khz > 0)
    })
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: reads a register that every x86-64 CPU has and that user space may read; no safe interface does so.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_the_time_stamp_counter_is_that_of_a_cpu() {
        if let Some(khz) = tsc_khz() {
            assert!((100_000..10_000_000).contains(&khz), "{khz}");
            assert_eq!(tsc_khz(), Some(khz));
        }
    }
}
