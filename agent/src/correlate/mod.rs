//! From records to explanations: which task was in which state, what waited for what, and where every nanosecond of wall time went.
//!
//! ```text
//! records ──► histories (one per task) ──► spans (what the task did, gap-free) ──► critical path (one element per nanosecond)
//!        └──► markers ──► phases
//!        ├──► counts (exits, wake-ups, system calls, faults, file calls)
//!        └──► timeline (single events: vCPU slices, wake-up flows, counters)
//! ```
//!
//! Everything here is pure: it reads records and returns rows, so that it is tested with written-down records on any machine. What is
//! made of records is made of a [`View`], which holds those of one instance alone.

mod counts;
mod exit_reason;
mod fault_prices;
mod file_calls;
mod history;
mod ioctl;
mod marker;
mod names;
mod path;
mod phase;
mod reading;
mod span;
mod stacks;
mod texts;
mod timeline;
mod view;

pub use counts::{
    CallCount, ExitCount, ExitEvent, FaultCount, ThreadTotals, Timing, WakeCount, calls, each_exit, exits, faults,
    threads, wakeups,
};
pub use exit_reason::{DevicePage, ExitReason};
pub use fault_prices::FaultPrices;
pub use file_calls::{FileCalls, file_calls};
pub use history::{Bystander, Duty, History, NamedThread, Running, Sampled, Wake, is_itself};
pub use marker::{Marker, markers_of_records, undelay, workload_main};
pub use names::{Called, Cause, Names, Softirq};
pub use path::{Category, Charge, Detail, Element, Graph, Held, HeldLock, Saving, asked_by, folded};
pub use phase::{Phase, phases};
pub use reading::{Histories, Source};
pub use span::{Activity, Missing, Span, Within};
pub use stacks::{Stack, Stacks, WaitsAt};
pub use texts::{Text, Texts};
pub use timeline::{Counter, Flow, VcpuSlice, counters, flows, vcpu_slices};
pub use view::View;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
