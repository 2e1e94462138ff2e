//! sandscope explains where a sandbox spends its time, its memory and its idle CPU.
//!
//! The library behind the command `sandscope`; `docs/architecture.md` shows how its modules work together.

pub mod host;
pub mod probe;
pub mod workload;

#[doc(hidden)]
pub mod testing;
