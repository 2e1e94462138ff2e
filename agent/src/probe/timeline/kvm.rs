//! What vCPU threads in scope do inside `KVM_RUN`.

use crate::probe::{
    Definition,
    Event::{Classic, Raw},
    Hook, exits,
};

pub(super) const PROBE: Definition = Definition {
    name: "kvm",
    required: false,
    hooks: |_| {
        &[
            Hook { program: "kvm_entry", event: Raw("kvm_entry") },
            Hook { program: "kvm_exit", event: Classic("kvm", "kvm_exit") },
            Hook { program: "kvm_userspace_exit", event: Raw("kvm_userspace_exit") },
            Hook { program: "kvm_pio", event: Raw("kvm_pio") },
            Hook { program: "kvm_mmio", event: Raw("kvm_mmio") },
            Hook { program: "kvm_vcpu_wakeup", event: Raw("kvm_vcpu_wakeup") },
            Hook { program: "kvm_halt_poll_ns", event: Raw("kvm_halt_poll_ns") },
        ]
    },
    globals: exits::globals,
};
