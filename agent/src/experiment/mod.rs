//! Experiments: which instances are started, in which order, under which conditions, and what of each is written down.
//!
//! ```text
//! plan (who, with or without probes, in random order)
//!   └─► instance (prepare, condition the page cache, launch, await readiness, ask, stop) ─► Observation
//!         └─► explain (pure: records → markers, phases, account, sums) ─► rows of the dataset
//!               └─► summary (over instances: medians, shares, observer effect)
//! ```

pub mod cold_start;
mod explain;
mod instance;
mod plan;
pub mod statistics;
mod summary;

pub use explain::{Explanation, explain};
pub use instance::{Observation, Stage};
pub use plan::{Arms, Cell, plan};
pub use summary::{SandboxSummary, Summary, TopShare};
