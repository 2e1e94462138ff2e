//! Wake-ups of threads in scope, each with its cause.

use crate::probe::{Definition, Event::Typed, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "wakeup",
    required: true,
    hooks: |_| &[Hook { program: "sched_waking", event: Typed("sched_waking", "sched_waking_raw") }],
    globals: |_| Ok(Vec::new()),
};
