//! From records to explanations: which task was in which state, and where every nanosecond of wall time went.
//!
//! ```text
//! records ──► history (one per task) ──► spans (what the task did, gap-free) ──► attribution (one category per nanosecond)
//!        └──► markers ──► phases ─────────────────────────────────────────────────┘
//!        └──► counts (exits, wake-ups, system calls, faults, block requests)
//! ```
//!
//! Everything here is pure: it reads records and returns rows, so that it is tested with written-down records on any machine.

mod attribution;
mod counts;
mod history;
mod marker;
mod phase;
mod span;

pub use attribution::{Category, Share, attribute};
pub use counts::{CallCount, ExitCount, FaultCount, ThreadTotals, WakeCount, calls, exits, faults, threads, wakeups};
pub use history::{Bystander, Histories, History, Names};
pub use marker::{Marker, markers_of_records};
pub use phase::{Phase, phases};
pub use span::{Activity, Span};

#[cfg(test)]
mod tests;
