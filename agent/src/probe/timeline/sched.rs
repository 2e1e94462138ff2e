//! Who has which CPU.

use crate::probe::{Definition, Event::Typed, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "sched",
    required: true,
    hooks: |_| &[Hook { program: "sched_switch", event: Typed("sched_switch", "sched_switch_raw") }],
    globals: |kernel| {
        let types = kernel.types;
        let entity = types.offset("task_struct", "se")?;
        let mut globals = vec![
            ("TASK_STATE", types.offset("task_struct", "__state")?),
            ("TASK_EXEC", entity + types.offset("sched_entity", "sum_exec_runtime")?),
        ];
        // Only kernels with CONFIG_FAIR_GROUP_SCHED and CONFIG_CFS_BANDWIDTH have both.
        if let (Ok(queue), Ok(throttled)) =
            (types.offset("sched_entity", "cfs_rq"), types.offset("cfs_rq", "throttle_count"))
        {
            globals.extend([("TASK_RUN_QUEUE", entity + queue), ("RUN_QUEUE_THROTTLED", throttled)]);
        }
        Ok(globals)
    },
};
