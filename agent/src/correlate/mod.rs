//! From records to explanations: which task was in which state, and where every nanosecond of wall time went.
//!
//! ```text
//! records ──► history (one per task) ──► spans (what the task did, gap-free) ──► attribution (one category per nanosecond)
//!        └──► markers ──► phases ─────────────────────────────────────────────────┘
//!        ├──► counts (exits, wake-ups, system calls, faults, block requests)
//!        └──► timeline (single events: vCPU slices, wake-up flows, counters)
//! ```
//!
//! Everything here is pure: it reads records and returns rows, so that it is tested with written-down records on any machine.

mod attribution;
mod counts;
mod file_calls;
mod history;
mod marker;
mod phase;
mod span;
mod states;
mod timeline;

pub use attribution::{Account, Category, Share, attribute};
pub use counts::{
    CallCount, ExitCount, ExitEvent, FaultCount, ThreadTotals, Timing, WakeCount, calls, each_exit, exits, faults,
    threads, wakeups,
};
pub use file_calls::{FileCalls, file_calls};
pub use history::{Bystander, Duty, Histories, History, NamedThread, Names, cause_name};
pub use marker::{Marker, markers_of_records, undelay};
pub use phase::{Phase, phases};
pub use span::{Activity, Span};
pub use states::states;
pub use timeline::{Counter, Flow, VcpuSlice, counters, flows, vcpu_slices};

#[cfg(test)]
mod tests;
