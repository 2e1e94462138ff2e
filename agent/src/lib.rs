//! sandscope

pub mod sandbox;
pub mod workload;
