//! Measurements that need no BPF.

pub mod page_cache;
