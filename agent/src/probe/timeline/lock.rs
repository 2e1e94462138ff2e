//! Whether a thread in scope waits for a lock of the kernel.

use crate::probe::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "lock",
    required: false,
    // Both from Linux 5.19 on.
    hooks: |_| {
        &[
            Hook { program: "contention_begin", event: Raw("contention_begin") },
            Hook { program: "contention_end", event: Raw("contention_end") },
        ]
    },
    globals: |_| Ok(Vec::new()),
};
