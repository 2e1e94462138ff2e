//! Where threads in scope are, now and then: their stack in user space.

use crate::probe::{Definition, Event::Software, Hook};
use aya::programs::perf_event::SoftwareEvent;

/// Nanoseconds between two looks at a CPU.
pub const PERIOD_NS: u64 = 1_000_000;

/// The program that looks.
pub(super) const PROGRAM: &str = "sample";

pub(super) const PROBE: Definition = Definition {
    name: "sample",
    required: false,
    hooks: |_| &[Hook { program: PROGRAM, event: Software(SoftwareEvent::CpuClock, PERIOD_NS) }],
    globals: |_| Ok(vec![("RETURN_ON_STACK", u32::from(cfg!(target_arch = "x86_64")))]),
};
