//! sandscope explains where a sandbox spends its time, its memory and its idle CPU.
//!
//! The library behind the command `sandscope`; `docs/architecture.md` shows how its modules work together.

pub mod correlate;
pub mod doctor;
pub mod experiment;
pub mod host;
pub mod measure;
pub mod probe;
pub mod record;
pub mod report;
pub mod sandbox;
pub mod workload;

#[doc(hidden)]
pub mod testing;
