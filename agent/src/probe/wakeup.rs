//! Wake-ups of threads in scope, each with its cause.

use super::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "wakeup",
    required: true,
    hooks: |_| {
        &[
            Hook { program: "hrtimer_expire_entry", event: Raw("hrtimer_expire_entry") },
            Hook { program: "hrtimer_expire_exit", event: Raw("hrtimer_expire_exit") },
            Hook { program: "timer_expire_entry", event: Raw("timer_expire_entry") },
            Hook { program: "timer_expire_exit", event: Raw("timer_expire_exit") },
            Hook { program: "irq_handler_entry", event: Raw("irq_handler_entry") },
            Hook { program: "irq_handler_exit", event: Raw("irq_handler_exit") },
            Hook { program: "softirq_entry", event: Raw("softirq_entry") },
            Hook { program: "softirq_exit", event: Raw("softirq_exit") },
            Hook { program: "sched_waking", event: Raw("sched_waking") },
        ]
    },
    globals: |kernel| {
        Ok(vec![
            ("HRTIMER_FUNCTION", kernel.types.offset("hrtimer", "function")?),
            ("TIMER_FUNCTION", kernel.types.offset("timer_list", "function")?),
        ])
    },
};
