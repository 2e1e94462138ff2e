//! Wake-ups of threads in scope, each with its cause.

use crate::probe::{Definition, Event::Typed, Hook};

/// Waits that are shorter are not asked where in the kernel they were: the answer takes the kernel a microsecond or two.
pub(super) const STACK_LEAST_NS: (&str, u32) = ("STACK_LEAST_NS", 100_000);

pub(super) const PROBE: Definition = Definition {
    name: "wakeup",
    required: true,
    hooks: |_| &[Hook { program: "sched_waking", event: Typed("sched_waking", "sched_waking_raw") }],
    globals: |_| Ok(vec![STACK_LEAST_NS]),
};
