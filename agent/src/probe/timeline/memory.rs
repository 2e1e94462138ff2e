//! User page faults of threads in scope.

use crate::probe::{
    Definition,
    Event::{PageFaults, Raw},
    Hook,
};

/// Only some architectures (x86, RISC-V) have it.
const TRACEPOINT: &str = "page_fault_user";

pub(super) const PROBE: Definition = Definition {
    name: "memory",
    required: false,
    hooks: |kernel| {
        if kernel.tracefs.has("exceptions", TRACEPOINT) {
            &[Hook { program: "page_fault_user", event: Raw(TRACEPOINT) }]
        } else {
            &[Hook { program: "page_fault_event", event: PageFaults }]
        }
    },
    globals: |_| Ok(Vec::new()),
};
