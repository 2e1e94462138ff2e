//! Follows the tasks of each sandbox: who is made, who executes what, who ends.

use crate::probe::{Definition, Event::Raw, Hook, scope};

pub(super) const PROBE: Definition = Definition {
    name: "scope",
    required: true,
    hooks: |_| {
        &[
            Hook { program: "task_newtask", event: Raw("task_newtask") },
            Hook { program: "sched_process_exec", event: Raw("sched_process_exec") },
            Hook { program: "sched_process_exit", event: Raw("sched_process_exit") },
        ]
    },
    globals: |kernel| {
        let mut globals = scope::globals(kernel)?;
        globals.extend([
            ("TASK_MM", kernel.types.offset("task_struct", "mm")?),
            ("MM_ARG_START", kernel.types.offset("mm_struct", "arg_start")?),
            ("MM_ARG_END", kernel.types.offset("mm_struct", "arg_end")?),
            ("BINPRM_FILENAME", kernel.types.offset("linux_binprm", "filename")?),
        ]);
        Ok(globals)
    },
};
