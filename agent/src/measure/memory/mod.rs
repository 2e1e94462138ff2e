//! The memory of running instances: who has how much of it, in which kind, shared with whom, and what of it could be.
//!
//! ```text
//! processes of an instance ─► footprint (smaps_rollup, status)      who has how much
//!                          ─► mapping (smaps) ─► guest              which of it is the memory of a guest
//!                          ─► cgroup (memory.stat)                  what the kernel has on its behalf
//!                          ─► pages (pagemap, content)              what of it is equal, shared, or could be
//! host (meminfo) ─► difference                                      what became of MemAvailable
//! ```

pub mod cgroup;
pub mod fault;
pub mod footprint;
pub mod guest;
pub mod host;
pub mod ksm;
pub mod living;
pub mod mapping;
pub mod pages;
