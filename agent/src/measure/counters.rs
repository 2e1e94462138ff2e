//! Counters of the kernel and the processor over the threads of a sandbox, by `perf_event_open`. What this machine does not have
//! is not measured, and says why; it is never zero.

use perf_event::{
    Builder, Counter, ReadFormat,
    events::{Hardware, Software},
};
use std::{collections::BTreeSet, io};

/// A counter and the mode in which it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    mode: &'static str,
    event: Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// `guest`: inside of the guest only, else on the host only.
    Hardware {
        event: Hardware,
        guest: bool,
    },
    Software(Software),
}

const KINDS: [Kind; 7] = [
    Kind { name: "instructions", mode: "guest", event: Event::Hardware { event: Hardware::INSTRUCTIONS, guest: true } },
    Kind { name: "instructions", mode: "host", event: Event::Hardware { event: Hardware::INSTRUCTIONS, guest: false } },
    Kind { name: "cycles", mode: "guest", event: Event::Hardware { event: Hardware::CPU_CYCLES, guest: true } },
    Kind { name: "cycles", mode: "host", event: Event::Hardware { event: Hardware::CPU_CYCLES, guest: false } },
    Kind { name: "task_clock_ns", mode: "all", event: Event::Software(Software::TASK_CLOCK) },
    Kind { name: "context_switches", mode: "all", event: Event::Software(Software::CONTEXT_SWITCHES) },
    Kind { name: "page_faults", mode: "all", event: Event::Software(Software::PAGE_FAULTS) },
];

/// Counters that run.
pub struct Counters {
    running: Vec<(Kind, Result<Vec<Counter>, String>)>,
}

/// What a counter came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Such as `instructions`.
    pub name: &'static str,
    /// `guest`, `host` or `all`.
    pub mode: &'static str,
    /// Its value, scaled up to the whole window, and the share of the window that it was on the processor; or why it was not
    /// measured.
    pub value: Result<(u64, f64), String>,
}

impl Counters {
    /// Begins to count what these threads do, and what those do that they make.
    pub fn start(threads: &BTreeSet<u32>) -> Self {
        let running = KINDS.map(|kind| (kind, start(kind, threads).map_err(|error| reason(kind, &error))));
        Self { running: running.into() }
    }

    /// None at all.
    pub fn none() -> Self {
        Self { running: Vec::new() }
    }

    /// What they came to.
    pub fn stop(self) -> Vec<Value> {
        let value = |(kind, counters): (Kind, Result<Vec<Counter>, String>)| Value {
            name: kind.name,
            mode: kind.mode,
            value: counters.and_then(|counters| sum(counters).map_err(|error| reason(kind, &error))),
        };
        self.running.into_iter().map(value).collect()
    }
}

fn start(kind: Kind, threads: &BTreeSet<u32>) -> io::Result<Vec<Counter>> {
    let mut counters = Vec::new();
    for &tid in threads {
        let mut builder = match kind.event {
            Event::Hardware { event, .. } => Builder::new(event),
            Event::Software(event) => Builder::new(event),
        };
        if let Event::Hardware { guest, .. } = kind.event {
            builder.exclude_host(guest).exclude_guest(!guest);
        }
        builder
            .observe_pid(tid.cast_signed())
            .any_cpu()
            .inherit(true)
            .include_kernel()
            .read_format(ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING);
        match builder.build() {
            Ok(mut counter) => {
                counter.enable()?;
                counters.push(counter);
            }
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(counters)
}

fn sum(counters: Vec<Counter>) -> io::Result<(u64, f64)> {
    let (mut total, mut enabled, mut running) = (0u64, 0u64, 0u64);
    for mut counter in counters {
        let read = counter.read_count_and_time()?;
        let scale = if read.time_running == 0 { 1.0 } else { read.time_enabled as f64 / read.time_running as f64 };
        total += (read.count as f64 * scale).round() as u64;
        enabled += read.time_enabled;
        running += read.time_running;
    }
    Ok((total, if enabled == 0 { 1.0 } else { running as f64 / enabled as f64 }))
}

fn reason(kind: Kind, error: &io::Error) -> String {
    match (kind.event, error.raw_os_error()) {
        (Event::Hardware { .. }, Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
            format!("this machine shows no such counter ({error})")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs where `perf_event_open` is allowed; elsewhere each value must have a reason.
    #[test]
    fn page_faults_of_a_thread_are_counted_and_what_is_not_has_a_reason() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let counters = Counters::start(&[own].into());
        let touched = std::hint::black_box(vec![1u8; 8 << 20]);
        let values = counters.stop();
        drop(touched);
        assert_eq!(values.len(), KINDS.len());
        for value in &values {
            match &value.value {
                Ok((faults, _)) if value.name == "page_faults" => assert!(*faults > 0, "{values:?}"),
                Ok((_, ratio)) => assert!((0.0..=1.0).contains(ratio), "{value:?}"),
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
    }
}
