//! Experiments: which instances are started, in which order, under which conditions, and what of each is written down.
//!
//! ```text
//! plan (who, with or without probes, in random order)
//!   └─► trial (prepare, condition the page cache, launch, await readiness, ask, … steps …, stop) ─► Observation
//!         └─► explain (pure: records → markers, phases, account, sums) ─► rows of the dataset
//!               └─► summary (over instances: medians, shares, observer effect)
//! ```

mod alloc;
mod burst;
pub mod cold_start;
pub mod conditions;
mod cpu;
mod fault_times;
mod guests;
pub mod idle;
mod io_rows;
pub mod kind;
pub mod memory;
mod network;
mod observation;
mod perform;
mod plan;
mod read;
mod rows;
mod stage;
pub mod step;
mod step_rows;
pub mod suite;
mod summary;
mod timelines;
mod trial;
mod unzip;
mod warm;
mod watch;

pub use crate::statistics;
pub use fault_times::FaultTimes;
pub use guests::Guests;
pub use observation::{Ended, Observation, Part};
pub use perform::perform;
pub use plan::{Arms, Cell, plan};
pub use rows::append;
pub use stage::{Place, Stage, Subject};
pub use summary::{SandboxSummary, Summary, TopShare};
pub use timelines::Timelines;
pub use trial::Trial;
