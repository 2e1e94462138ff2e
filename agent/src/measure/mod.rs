//! Measurements that need no BPF.

pub mod counters;
pub mod helpers;
pub mod host_load;
pub mod idle_states;
pub mod memory;
pub mod on_cpu;
pub mod page_cache;
pub mod run_time;
pub mod threads;
pub mod throttling;
