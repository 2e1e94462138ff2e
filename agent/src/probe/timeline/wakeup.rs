//! Wake-ups of threads in scope, each with its cause.

use crate::probe::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "wakeup",
    required: true,
    hooks: |_| &[Hook { program: "sched_waking", event: Raw("sched_waking") }],
    globals: |_| Ok(Vec::new()),
};
