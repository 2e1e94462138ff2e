//! Who has which CPU, who waits for one, and who takes it from whom.

use crate::probe::{Definition, Event::Typed, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "sched",
    required: true,
    hooks: |_| &[Hook { program: "sched_switch", event: Typed("sched_switch", "sched_switch_raw") }],
    globals: |kernel| {
        let entity = kernel.types.offset("task_struct", "se")?;
        Ok(vec![
            ("TASK_STATE", kernel.types.offset("task_struct", "__state")?),
            ("TASK_EXEC", entity + kernel.types.offset("sched_entity", "sum_exec_runtime")?),
            ("TASK_TGID", kernel.types.offset("task_struct", "tgid")?),
            ("TASK_COMM", kernel.types.offset("task_struct", "comm")?),
        ])
    },
};
