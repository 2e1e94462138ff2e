//! Wake-ups of threads in scope, by their cause.

use crate::probe::{Definition, Event::Typed, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "wakeup",
    required: true,
    hooks: |_| &[Hook { program: "sched_waking", event: Typed("sched_waking", "sched_waking_raw") }],
    // The time at which interrupts and timers begin is kept, so that they can be charged to what they wake.
    globals: |_| Ok(vec![("TIME_INTERRUPTS", 1)]),
};
