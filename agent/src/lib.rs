//! sandscope explains where a sandbox spends its time, its memory and its idle CPU.
//!
//! The library behind the command `sandscope`; `docs/architecture.md` shows how its modules work together.

pub mod bucket;
pub mod cli;
pub mod compare;
pub mod config;
pub mod correlate;
pub mod diagnose;
pub mod doctor;
pub mod experiment;
pub mod explain;
pub mod export;
pub mod host;
pub mod measure;
mod nearest;
mod printable;
pub mod probe;
pub mod record;
pub mod report;
pub mod results;
pub mod role;
pub mod sandbox;
pub mod statistics;
pub mod steady;
pub mod symbols;
pub mod workload;

#[doc(hidden)]
pub mod testing;
