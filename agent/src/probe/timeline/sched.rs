//! Who has which CPU.

use crate::probe::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "sched",
    required: true,
    hooks: |_| &[Hook { program: "sched_switch", event: Raw("sched_switch") }],
    globals: |kernel| Ok(vec![("TASK_STATE", kernel.types.offset("task_struct", "__state")?)]),
};
