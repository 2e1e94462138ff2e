//! Names of `ioctl` requests: those of KVM, in which a VMM spends much of a start, and of TUN devices and sockets. `ioctl` alone says
//! nothing, since each driver has requests of its own.

/// KVM's type of requests (`KVMIO`).
const KVM: u8 = 0xae;

/// Requests that return nothing and take a number, write to the kernel, read from it, and both (`_IOC_DIR`, the same on x86-64 and
/// arm64).
const NONE: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
const BOTH: u8 = 3;

/// Number and direction of KVM's requests on x86-64 and arm64 (`include/uapi/linux/kvm.h`). Sizes are left out: they grow.
#[rustfmt::skip]
const KVM_REQUESTS: [(u8, u8, &str); 95] = [
    (0x00, NONE, "GET_API_VERSION"), (0x01, NONE, "CREATE_VM"), (0x02, BOTH, "GET_MSR_INDEX_LIST"),
    (0x03, NONE, "CHECK_EXTENSION"), (0x04, NONE, "GET_VCPU_MMAP_SIZE"), (0x05, BOTH, "GET_SUPPORTED_CPUID"),
    (0x09, BOTH, "GET_EMULATED_CPUID"), (0x0a, BOTH, "GET_MSR_FEATURE_INDEX_LIST"), (0x41, NONE, "CREATE_VCPU"),
    (0x42, WRITE, "GET_DIRTY_LOG"), (0x44, NONE, "SET_NR_MMU_PAGES"), (0x45, NONE, "GET_NR_MMU_PAGES"),
    (0x46, WRITE, "SET_USER_MEMORY_REGION"), (0x47, NONE, "SET_TSS_ADDR"), (0x48, WRITE, "SET_IDENTITY_MAP_ADDR"),
    (0x49, WRITE, "SET_USER_MEMORY_REGION2"), (0x60, NONE, "CREATE_IRQCHIP"), (0x61, WRITE, "IRQ_LINE"),
    (0x62, BOTH, "GET_IRQCHIP"), (0x63, READ, "SET_IRQCHIP"), (0x67, BOTH, "IRQ_LINE_STATUS"), (0x6a, WRITE, "SET_GSI_ROUTING"),
    (0x71, NONE, "REINJECT_CONTROL"), (0x76, WRITE, "IRQFD"), (0x78, NONE, "SET_BOOT_CPU_ID"), (0x79, WRITE, "IOEVENTFD"),
    (0x7b, WRITE, "SET_CLOCK"), (0x7c, READ, "GET_CLOCK"), (0x80, NONE, "RUN"), (0x81, READ, "GET_REGS"),
    (0x82, WRITE, "SET_REGS"), (0x83, READ, "GET_SREGS"), (0x84, WRITE, "SET_SREGS"), (0x85, BOTH, "TRANSLATE"),
    (0x86, WRITE, "INTERRUPT"), (0x88, BOTH, "GET_MSRS"), (0x89, WRITE, "SET_MSRS"), (0x8a, WRITE, "SET_CPUID"),
    (0x8b, WRITE, "SET_SIGNAL_MASK"), (0x8c, READ, "GET_FPU"), (0x8d, WRITE, "SET_FPU"), (0x8e, READ, "GET_LAPIC"),
    (0x8f, WRITE, "SET_LAPIC"), (0x90, WRITE, "SET_CPUID2"), (0x91, BOTH, "GET_CPUID2"), (0x92, BOTH, "TPR_ACCESS_REPORTING"),
    (0x93, WRITE, "SET_VAPIC_ADDR"), (0x98, READ, "GET_MP_STATE"), (0x99, WRITE, "SET_MP_STATE"), (0x9a, NONE, "NMI"),
    (0x9b, WRITE, "SET_GUEST_DEBUG"), (0x9c, WRITE, "X86_SETUP_MCE"), (0x9d, READ, "X86_GET_MCE_CAP_SUPPORTED"),
    (0x9e, WRITE, "X86_SET_MCE"), (0x9f, READ, "GET_VCPU_EVENTS"), (0xa0, WRITE, "SET_VCPU_EVENTS"),
    (0xa1, READ, "GET_DEBUGREGS"), (0xa2, NONE, "SET_TSC_KHZ"), (0xa2, WRITE, "SET_DEBUGREGS"), (0xa3, NONE, "GET_TSC_KHZ"),
    (0xa3, WRITE, "ENABLE_CAP"), (0xa4, READ, "GET_XSAVE"), (0xa5, WRITE, "SET_XSAVE"), (0xa6, READ, "GET_XCRS"),
    (0xa7, WRITE, "SET_XCRS"), (0xab, WRITE, "GET_ONE_REG"), (0xac, WRITE, "SET_ONE_REG"), (0xad, NONE, "KVMCLOCK_CTRL"),
    (0xae, WRITE, "ARM_VCPU_INIT"), (0xaf, READ, "ARM_PREFERRED_TARGET"), (0xb0, BOTH, "GET_REG_LIST"),
    (0xb2, WRITE, "SET_PMU_EVENT_FILTER"), (0xb4, READ, "ARM_MTE_COPY_TAGS"), (0xb7, NONE, "SMI"),
    (0xba, BOTH, "MEMORY_ENCRYPT_OP"), (0xbb, READ, "MEMORY_ENCRYPT_REG_REGION"), (0xbc, READ, "MEMORY_ENCRYPT_UNREG_REGION"),
    (0xbd, WRITE, "HYPERV_EVENTFD"), (0xbe, BOTH, "GET_NESTED_STATE"), (0xbf, WRITE, "SET_NESTED_STATE"),
    (0xc0, BOTH, "CLEAR_DIRTY_LOG"), (0xc1, BOTH, "GET_SUPPORTED_HV_CPUID"), (0xc2, WRITE, "ARM_VCPU_FINALIZE"),
    (0xc6, WRITE, "X86_SET_MSR_FILTER"), (0xc7, NONE, "RESET_DIRTY_RINGS"), (0xcc, READ, "GET_SREGS2"),
    (0xcd, WRITE, "SET_SREGS2"), (0xce, NONE, "GET_STATS_FD"), (0xcf, READ, "GET_XSAVE2"), (0xd2, WRITE, "SET_MEMORY_ATTRIBUTES"),
    (0xd4, BOTH, "CREATE_GUEST_MEMFD"), (0xe0, BOTH, "CREATE_DEVICE"), (0xe1, WRITE, "SET_DEVICE_ATTR"),
    (0xe2, WRITE, "GET_DEVICE_ATTR"), (0xe3, WRITE, "HAS_DEVICE_ATTR"),
];

/// Others, which are the same on x86-64 and arm64 (`asm-generic/ioctls.h`, `linux/sockios.h`, `linux/if_tun.h`, `linux/vhost.h`,
/// `linux/loop.h`).
const OTHERS: [(u32, &str); 19] = [
    // KVM has these twice, in different sizes.
    (0x4020_aea5, "KVM_SIGNAL_MSI"),
    (0x8070_ae9f, "KVM_GET_PIT2"),
    (0x4070_aea0, "KVM_SET_PIT2"),
    (0x4040_ae77, "KVM_CREATE_PIT2"),
    (0x5401, "TCGETS"),
    (0x5402, "TCSETS"),
    (0x540e, "TIOCSCTTY"),
    (0x5413, "TIOCGWINSZ"),
    (0x541b, "FIONREAD"),
    (0x5421, "FIONBIO"),
    (0x8913, "SIOCGIFFLAGS"),
    (0x8914, "SIOCSIFFLAGS"),
    (0x8916, "SIOCSIFADDR"),
    (0x8933, "SIOCGIFINDEX"),
    (0x4004_54ca, "TUNSETIFF"),
    (0x4004_54d8, "TUNSETVNETHDRSZ"),
    (0x4004_54d0, "TUNSETOFFLOAD"),
    (0x0000_af01, "VHOST_SET_OWNER"),
    (0x0000_4c00, "LOOP_SET_FD"),
];

/// A request as people write it: `KVM_CREATE_VM`, or its number where it is none of these.
pub(super) fn request_name(request: u32) -> String {
    if let Some((_, name)) = OTHERS.iter().find(|(number, _)| *number == request) {
        return (*name).to_owned();
    }
    let [number, of, _, direction] = request.to_le_bytes();
    let kvm = KVM_REQUESTS.iter().filter(|_| of == KVM);
    match kvm.into_iter().find(|(known, way, _)| (*known, *way) == (number, direction >> 6)) {
        Some((.., name)) => format!("KVM_{name}"),
        None => format!("{request:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_whatever_size_have_their_names() {
        assert_eq!(request_name(0xae80), "KVM_RUN");
        assert_eq!(request_name(0xae01), "KVM_CREATE_VM");
        assert_eq!(request_name(0x4020_ae46), "KVM_SET_USER_MEMORY_REGION");
        assert_eq!(request_name(0x8138_ae83), "KVM_GET_SREGS");
        assert_eq!(request_name(0x4138_ae84), "KVM_SET_SREGS");
        assert_eq!(request_name(0x4004_54ca), "TUNSETIFF");
        assert_eq!(request_name(0xdead), "0xdead");
    }
}
