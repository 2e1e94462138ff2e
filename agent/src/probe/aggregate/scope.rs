//! Follows the tasks of each sandbox: who is made.

use crate::probe::{Definition, Event::Raw, Hook, scope};

pub(super) const PROBE: Definition = Definition {
    name: "scope",
    required: true,
    hooks: |_| {
        &[
            Hook { program: "task_newtask", event: Raw("task_newtask") },
            Hook { program: "sched_process_exec", event: Raw("sched_process_exec") },
        ]
    },
    globals: scope::globals,
};
