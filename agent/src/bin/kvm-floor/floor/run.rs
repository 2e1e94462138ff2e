//! One run of the guest: what it was told, what the VMM served until now, and the report at its end.

use super::statistics::Statistics;
use crate::options::Options;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Exit status: the guest did something that it should not, or KVM could not go on.
const VM_FAILED: i32 = 3;
/// Exit status of a process that a signal stopped is this plus the signal's number, as shells have it.
const STOPPED_BY_SIGNAL: i32 = 128;

/// Shared by the threads of the vCPUs and the main thread.
pub struct Run {
    /// What the guest was told.
    pub options: Options,
    /// What the VMM served.
    pub counts: Counts,
    /// KVM's own statistics of the first vCPU, or why there are none. Empty until the guest has said its first byte.
    pub statistics: OnceLock<anyhow::Result<Statistics>>,
    ending: Mutex<()>,
}

/// Returns of KVM_RUN by what they were for.
#[derive(Default)]
pub struct Counts {
    /// Writes to the console's port.
    pub console: AtomicU64,
    /// Writes to the counted port.
    pub counted: AtomicU64,
    /// Writes to the port that ends the VM.
    pub end: AtomicU64,
    /// Writes to the counted MMIO address.
    pub mmio: AtomicU64,
    /// Returns for a signal, such as SIGSTOP and SIGCONT.
    pub interrupted: AtomicU64,
}

/// The line of JSON.
#[derive(Serialize)]
struct Report<'a> {
    ended: String,
    pio: u64,
    pio_counted: u64,
    console_bytes: u64,
    mmio: u64,
    halts_requested: u32,
    pages_requested: u32,
    spins_requested: u32,
    exits: BTreeMap<&'static str, u64>,
    vcpu_stats: Option<BTreeMap<&'a str, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpu_stats_missing: Option<String>,
}

impl Run {
    /// A run that has not started.
    pub fn new(options: Options) -> Self {
        Self { options, counts: Counts::default(), statistics: OnceLock::new(), ending: Mutex::new(()) }
    }

    /// The guest has ended the VM: reports and ends the process.
    pub fn ended(&self) -> ! {
        self.end("guest".to_owned(), 0)
    }

    /// A signal came: reports and ends the process. For a guest that was told to stay, that is the normal end.
    pub fn stopped_by(&self, signal: i32) -> ! {
        let status = if self.options.stay { 0 } else { STOPPED_BY_SIGNAL + signal };
        self.end(format!("signal {signal}"), status)
    }

    fn end(&self, ended: String, status: i32) -> ! {
        let _only_once = self.begin_end();
        let line = serde_json::to_string(&self.report(ended)).expect("string keys and numbers are valid JSON");
        let told = writeln!(io::stderr(), "{line}");
        process::exit(if told.is_ok() { status } else { VM_FAILED })
    }

    /// The VM can't go on: says why and ends the process.
    pub fn failed(&self, error: &anyhow::Error) -> ! {
        let _only_once = self.begin_end();
        // Whether anybody reads the message or not, the status tells.
        let _ = writeln!(io::stderr(), "sandscope-kvm-floor: {error:#}");
        process::exit(VM_FAILED)
    }

    /// Lets one thread end the process; others wait here until the process is gone.
    fn begin_end(&self) -> MutexGuard<'_, ()> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, ended: String) -> Report<'_> {
        let load = |count: &AtomicU64| count.load(Relaxed);
        let (console_bytes, pio_counted) = (load(&self.counts.console), load(&self.counts.counted));
        let (mmio, interrupted) = (load(&self.counts.mmio), load(&self.counts.interrupted));
        let pio = console_bytes + pio_counted + load(&self.counts.end);
        let missing = |reason: &dyn std::fmt::Display| (None, Some(reason.to_string()));
        let (vcpu_stats, vcpu_stats_missing) = match self.statistics.get() {
            Some(Ok(statistics)) => match statistics.read() {
                Ok(values) => (Some(values), None),
                Err(error) => missing(&error),
            },
            Some(Err(error)) => missing(&format!("{error:#}")),
            None => missing(&"the guest has not written to its console"),
        };
        Report {
            ended,
            pio,
            pio_counted,
            console_bytes,
            mmio,
            halts_requested: self.options.hlt,
            pages_requested: self.options.touch,
            spins_requested: self.options.spin,
            exits: BTreeMap::from([("io", pio), ("mmio", mmio), ("interrupted", interrupted)]),
            vcpu_stats,
            vcpu_stats_missing,
        }
    }
}
