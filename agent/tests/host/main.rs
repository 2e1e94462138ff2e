//! The tests that run on the host alone, one module for each concern. One program, because each more would be compiled and linked with
//! all of the agent once more; those that run in the lab too are programs of their own beside it.

#[path = "../common/mod.rs"]
mod common;

mod aggregate;
mod attach;
mod cold_start;
mod command_line;
mod compare;
mod conditions;
mod direct_reads;
mod docker;
mod emulated_machines;
mod firecracker;
mod held;
mod idle;
mod load;
mod memory;
mod memory_run;
mod perf;
mod record;
mod report;
mod results;
mod suite;
mod targets;
mod vm;
