//! A window of a sandbox on the terminal: what it costs, what wakes it, why it leaves the guest.

use crate::{
    experiment::idle::{Interval, SandboxSummary, Summary},
    steady::{Busy, WindowSummary},
};
use std::fmt::{self, Display, Formatter};

/// Part of a CPU from which on somebody who uses it is shown.
const SHOWN: f64 = 0.000_1;

/// A run of `idle`, laid out for a terminal.
pub struct IdleReport<'a>(pub &'a Summary);

/// One window, laid out for a terminal.
pub struct WindowReport<'a>(pub &'a WindowSummary);

impl Display for IdleReport<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.0.sandboxes.iter().try_for_each(|sandbox| write_sandbox(out, sandbox))
    }
}

impl Display for WindowReport<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let window = self.0;
        writeln!(
            out,
            "{}  {:.3} % of a CPU, {:.1} wake-ups/s over {:.1} s",
            window.target,
            window.cost.ratio * 100.0,
            window.wakeups_per_s,
            window.seconds
        )?;
        write_details(out, window)
    }
}

fn write_sandbox(out: &mut Formatter<'_>, sandbox: &SandboxSummary) -> fmt::Result {
    write!(out, "{}", sandbox.sandbox)?;
    match (sandbox.cost_ratio, sandbox.wakeups_per_s) {
        (Some(cost), Some(wakeups)) => {
            let cost = Interval { median: cost.median * 100.0, p5: cost.p5 * 100.0, p95: cost.p95 * 100.0 };
            write!(out, "  {:.3} % of a CPU [{:.3} to {:.3}]", cost.median, cost.p5, cost.p95)?;
            write!(out, ", {:.1} wake-ups/s [{:.1} to {:.1}]", wakeups.median, wakeups.p5, wakeups.p95)?;
        }
        _ => write!(out, "  not watched")?,
    }
    writeln!(out, ", {} ok, {} failed", sandbox.ok_count, sandbox.failed_count)?;
    if let Some(error) = &sandbox.first_error {
        writeln!(out, "  first failure: {error}")?;
    }
    if let Some(window) = &sandbox.typical {
        write_details(out, window)?;
    }
    writeln!(out)
}

fn write_details(out: &mut Formatter<'_>, window: &WindowSummary) -> fmt::Result {
    let ms_per_s = |ns: u64| ns as f64 / window.seconds.max(f64::MIN_POSITIVE) / 1e6;
    writeln!(
        out,
        "  CPU {:.3} ms/s · interrupts and timers that wake it {:.3} ms/s · helper threads {:.3} ms/s",
        ms_per_s(window.cost.cpu_ns),
        ms_per_s(window.cost.causes_ns),
        ms_per_s(window.cost.helpers_ns)
    )?;
    for busy in window.busiest.iter().filter(|busy| busy.cpu_ratio >= SHOWN) {
        writeln!(out, "  {:>9.3} %  {}", busy.cpu_ratio * 100.0, Somebody(busy))?;
    }
    for cause in &window.causes {
        writeln!(
            out,
            "  {:>9.1}/s  {} woken by {} {}, then {:.3} % of a CPU",
            cause.per_s,
            cause.role,
            cause.cause,
            cause.detail,
            cause.cpu_ratio * 100.0
        )?;
    }
    for exit in &window.exits {
        writeln!(out, "  {:>9.1}/s  exits: {}, {:.1} µs each", exit.per_s, exit.reason, exit.mean_ns / 1e3)?;
    }
    for place in &window.places {
        writeln!(out, "  {:>9.1}/s  guest at {}: {}", place.per_s, place.place, place.reason)?;
    }
    if let Some(latency) = window.run_queue_p99_ns {
        writeln!(out, "  run queue: 99 % wait less than {:.1} µs", latency as f64 / 1e3)?;
    }
    if let Some(throttled_ns) = window.throttled_ns.filter(|&ns| ns > 0) {
        writeln!(out, "  throttled by its CPU limit: {:.1} ms/s", ms_per_s(throttled_ns))?;
    }
    for doubt in &window.doubts {
        writeln!(out, "  these figures can't be right: {doubt}")?;
    }
    match window.unrecorded_count {
        0 => Ok(()),
        lost => writeln!(out, "  {lost} events found no room: these figures are lower bounds"),
    }
}

/// Who used a CPU, in a few words.
struct Somebody<'a>(&'a Busy);

impl Display for Somebody<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Busy { role, comm, tid, threads_count, .. } = self.0;
        match tid {
            Some(tid) => write!(out, "{comm} (thread {tid}")?,
            None => write!(out, "{comm} ({threads_count} threads that have ended")?,
        }
        if role != comm {
            write!(out, ", {role}")?;
        }
        out.write_str(")")?;
        match (&self.0.found_in, &self.0.syscall) {
            (Some(places), _) => write!(out, ", on the CPU in {places}"),
            (None, Some(call)) => write!(out, ", waits in {call}"),
            (None, None) => Ok(()),
        }
    }
}
