//! Experiments.
pub mod statistics;
