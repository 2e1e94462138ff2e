//! Why vCPUs leave the guest, how long they stay outside, and what they do there.

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
            Hook { program: "kvm_mmio", event: Raw("kvm_mmio") },
            Hook { program: "kvm_userspace_exit", event: Raw("kvm_userspace_exit") },
            Hook { program: "kvm_fpu", event: Raw("kvm_fpu") },
            Hook { program: "kvm_vcpu_wakeup", event: Raw("kvm_vcpu_wakeup") },
            Hook { program: "kvm_msr", event: Raw("kvm_msr") },
            Hook { program: "kvm_apic", event: Raw("kvm_apic") },
        ]
    },
    globals: exits::globals,
};
