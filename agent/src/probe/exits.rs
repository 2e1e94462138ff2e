//! Exits from the guest: where the kernel's record of one has its fields, and what the reasons are called.

use super::{Global, Kernel};
use crate::host::tracefs::{Format, with_tracefs};
use std::collections::BTreeMap;

/// Values of the `Global`s that the programs on `kvm_exit` need.
pub(super) fn globals(kernel: &Kernel<'_>) -> anyhow::Result<Vec<Global>> {
    let format = kernel.tracefs.format("kvm", "kvm_exit")?;
    // x86 calls them exit_reason and guest_rip; arm64 esr_ec and vcpu_pc.
    let reason = format.offset("exit_reason").or_else(|_| format.offset("esr_ec"))?;
    let guest_ip = format.offset("guest_rip").or_else(|_| format.offset("vcpu_pc"))?;
    // Only x86 needs to say which vendor's codes it uses.
    let isa = format.offset("isa").unwrap_or(0);
    Ok(vec![("EXIT_REASON", reason), ("EXIT_GUEST_IP", guest_ip), ("EXIT_ISA", isa)])
}

/// Names of exit reasons, from the running kernel's own tracepoint.
#[derive(Debug, Default, Clone)]
pub struct ExitReasons {
    lists: Vec<BTreeMap<u64, String>>,
}

impl ExitReasons {
    /// Reads them; without tracefs or KVM there are none, and reasons stay numbers.
    pub fn of_running_kernel() -> Self {
        with_tracefs(|tracefs| tracefs.format("kvm", "kvm_exit").map(|format| Self::from_format(&format)))
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    fn from_format(format: &Format) -> Self {
        let mut lists = format.symbols("exit_reason");
        if lists.is_empty() {
            lists = format.symbols("esr_ec");
        }
        Self { lists }
    }

    /// Name of a reason. `isa` is 1 for VMX and 2 for SVM on x86, where the record's first list of names is VMX's and the
    /// second SVM's; other architectures have one list and leave it 0.
    pub fn name(&self, isa: u32, reason: u32) -> String {
        let list = self.lists.get((isa as usize).saturating_sub(1));
        // VMX keeps flags in the upper half of the reason.
        let code = if isa == 1 { reason & 0xffff } else { reason };
        list.and_then(|list| list.get(&u64::from(code)))
            .map_or_else(|| format!("{reason:#x}"), |name| name.to_ascii_lowercase())
    }
}

/// Name of a `KVM_EXIT_*` code of `KVM_RUN` (`include/uapi/linux/kvm.h`).
pub fn userspace_exit_name(reason: u32) -> String {
    let name = match reason {
        kvm_bindings::KVM_EXIT_UNKNOWN => "unknown",
        kvm_bindings::KVM_EXIT_EXCEPTION => "exception",
        kvm_bindings::KVM_EXIT_IO => "io",
        kvm_bindings::KVM_EXIT_HYPERCALL => "hypercall",
        kvm_bindings::KVM_EXIT_DEBUG => "debug",
        kvm_bindings::KVM_EXIT_HLT => "hlt",
        kvm_bindings::KVM_EXIT_MMIO => "mmio",
        kvm_bindings::KVM_EXIT_IRQ_WINDOW_OPEN => "irq_window_open",
        kvm_bindings::KVM_EXIT_SHUTDOWN => "shutdown",
        kvm_bindings::KVM_EXIT_FAIL_ENTRY => "fail_entry",
        kvm_bindings::KVM_EXIT_INTR => "intr",
        kvm_bindings::KVM_EXIT_INTERNAL_ERROR => "internal_error",
        kvm_bindings::KVM_EXIT_SYSTEM_EVENT => "system_event",
        kvm_bindings::KVM_EXIT_IOAPIC_EOI => "ioapic_eoi",
        kvm_bindings::KVM_EXIT_HYPERV => "hyperv",
        kvm_bindings::KVM_EXIT_ARM_NISV => "arm_nisv",
        kvm_bindings::KVM_EXIT_X86_RDMSR => "x86_rdmsr",
        kvm_bindings::KVM_EXIT_X86_WRMSR => "x86_wrmsr",
        kvm_bindings::KVM_EXIT_DIRTY_RING_FULL => "dirty_ring_full",
        kvm_bindings::KVM_EXIT_X86_BUS_LOCK => "x86_bus_lock",
        other => return format!("{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_to_the_vmm_are_named_and_unknown_ones_stay_numbers() {
        assert_eq!([2, 26, 4095].map(userspace_exit_name), ["io", "ioapic_eoi", "4095"]);
    }

    #[test]
    fn reasons_are_named_by_the_list_of_their_vendor() {
        let print = "print fmt: \"%s\", (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 30, \"IO_INSTRUCTION\" }) : __print_symbolic(REC->exit_reason, { 0x7b, \"io\" })\n";
        let reasons = ExitReasons::from_format(&Format::parse("kvm_exit", print));
        assert_eq!(reasons.name(1, 30), "io_instruction");
        assert_eq!(reasons.name(1, 0x8000_0000 | 30), "io_instruction");
        assert_eq!(reasons.name(2, 0x7b), "io");
        assert_eq!(reasons.name(2, 0x999), "0x999");
    }

    #[test]
    fn without_names_reasons_stay_numbers() {
        assert_eq!(ExitReasons::default().name(0, 0x24), "0x24");
    }
}
