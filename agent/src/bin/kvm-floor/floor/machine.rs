//! The machine: memory with the guest in it, a local APIC per vCPU, nothing else.
//!
//! What is left out costs nothing at the start: no PIC, no IOAPIC, no PIT, no CPUID of the host, no page tables.

use super::guest;
use crate::options::Options;
use anyhow::{Context, Result, anyhow};
use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, kvm_cpuid_entry2, kvm_enable_cap, kvm_regs, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::mm::{Advice, madvise};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// The most that the image may take, in bytes.
const IMAGE_ROOM: u32 = 0x1000;
/// Guest-physical address of `struct hvm_start_info`, with the command line behind it.
const START_INFO_ADDRESS: u32 = guest::LOAD_ADDRESS + IMAGE_ROOM;
/// Size of `struct hvm_start_info`, version 1, in bytes.
const START_INFO_SIZE: usize = 56;
/// Three pages that Intel processors without "unrestricted guest" need to run code with paging off.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A virtual machine that is ready to run.
pub struct Machine {
    /// The VM. The vCPUs keep it alive; its descriptor stays open as in any VMM, because that is how tools find VMs.
    pub vm: VmFd,
    /// The vCPUs; the first one stands at the guest's entry, the others wait to be started by it.
    pub vcpus: Vec<VcpuFd>,
    /// The guest's memory, from guest-physical address 0.
    pub memory: GuestMemoryMmap,
}

impl Machine {
    /// Builds it.
    ///
    /// # Errors
    /// When there is no usable KVM, or it refuses a step.
    pub fn new(options: &Options) -> Result<Self> {
        let kvm = Kvm::new().map_err(|error| unusable(error.errno()))?;
        let vm = kvm.create_vm().context("KVM can't create a VM (is /dev/kvm the device of KVM?)")?;
        vm.set_tss_address(TSS_ADDRESS).context("KVM refuses the place of the TSS")?;
        // The local APIC in the kernel, and neither PIC nor IOAPIC: HLT and the timer stay in the kernel.
        let split_irqchip = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        vm.enable_cap(&split_irqchip).context("KVM has no local APIC of its own (KVM_CAP_SPLIT_IRQCHIP)")?;
        let memory = load(options)?;
        attach(&vm, &memory)?;
        let vcpus = (0..options.vcpus).map(|index| vcpu(&vm, index)).collect::<Result<_>>()?;
        Ok(Self { vm, vcpus, memory })
    }
}

/// Why `/dev/kvm` can't be opened, and what to do.
fn unusable(errno: i32) -> anyhow::Error {
    let remedy = match errno {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => {
            "load the module kvm-intel or kvm-amd; in a virtual machine, have nested virtualisation enabled; in a \
             container, pass the device in (--device /dev/kvm)"
        }
        libc::EACCES | libc::EPERM => {
            "run as root or as a member of the group that owns it (often `kvm`); in a container, allow the device"
        }
        _ => "see the kernel's log",
    };
    anyhow!("can't open /dev/kvm: {}: {remedy}", std::io::Error::from_raw_os_error(errno))
}

/// Maps the guest's memory and writes the guest and what it is told into it.
fn load(options: &Options) -> Result<GuestMemoryMmap> {
    let size = options.memory_mib as usize * 1024 * 1024;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)])
        .map_err(|error| anyhow!("can't map {} MiB of guest memory: {error}", options.memory_mib))?;
    for region in memory.iter() {
        // A huge page would turn 512 first touches into one fault, and clearing it would be most of the start-up time.
        // SAFETY: the range is the mapping made above, and this advice changes no content.
        unsafe { madvise(region.as_ptr().cast(), size, Advice::LinuxNoHugepage) }
            .context("can't have the guest memory in 4 KiB pages")?;
    }
    let write = |bytes: &[u8], address: u32| {
        memory.write_slice(bytes, GuestAddress(address.into())).context("the guest does not fit into its memory")
    };
    write(guest::image(), guest::LOAD_ADDRESS)?;
    write(&boot_parameters(&guest::command_line(options)), START_INFO_ADDRESS)?;
    Ok(memory)
}

/// `struct hvm_start_info` with the command line, as PVH has it: everything that the guest does not read is zero.
fn boot_parameters(command_line: &str) -> Vec<u8> {
    let mut page = vec![0; START_INFO_SIZE];
    let mut field = |offset: usize, value: u32| page[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    field(0, guest::START_INFO_MAGIC);
    field(4, 1);
    field(guest::START_INFO_COMMAND_LINE, START_INFO_ADDRESS + START_INFO_SIZE as u32);
    page.extend(command_line.as_bytes());
    page.push(0);
    page
}

fn attach(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr().addr() as u64,
        };
        // SAFETY: the region is mapped, and each vCPU's thread keeps it mapped as long as it runs the vCPU.
        unsafe { vm.set_user_memory_region(region) }.context("KVM refuses the guest memory")?;
    }
    Ok(())
}

/// Makes a vCPU and, for the first one, the state that PVH wants at a kernel's entry.
fn vcpu(vm: &VmFd, index: u32) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(index.into()).with_context(|| format!("KVM can't create vCPU {index}"))?;
    vcpu.set_cpuid2(&cpuid(index)?).context("KVM refuses the CPUID of the guest")?;
    if index == 0 {
        let mut special = vcpu.get_sregs().context("KVM does not tell the state of the vCPU")?;
        special.cs = flat_segment(guest::CODE_SELECTOR, SEGMENT_CODE);
        let data = flat_segment(guest::DATA_SELECTOR, SEGMENT_DATA);
        (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
        special.cr0 |= CR0_PROTECTED_MODE;
        vcpu.set_sregs(&special).context("KVM refuses protected mode")?;
        let general = kvm_regs {
            rip: guest::LOAD_ADDRESS.into(),
            rbx: START_INFO_ADDRESS.into(),
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        };
        vcpu.set_regs(&general).context("KVM refuses the guest's entry")?;
    }
    Ok(vcpu)
}

/// The least that the guest needs to be told: asking KVM what it supports takes longer than this guest's start.
fn cpuid(index: u32) -> Result<CpuId> {
    let highest = kvm_cpuid_entry2 { function: 0, eax: 1, ..Default::default() };
    let features = kvm_cpuid_entry2 {
        function: 1,
        ebx: index << 24,
        ecx: 1 << guest::CPUID_X2APIC_BIT,
        // FPU, TSC, MSR, CMPXCHG8B, APIC.
        edx: 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9,
        ..Default::default()
    };
    CpuId::from_entries(&[highest, features]).map_err(|error| anyhow!("can't build the CPUID of the guest: {error:?}"))
}

/// Type of a code segment: executable, readable, accessed.
const SEGMENT_CODE: u8 = 0b1011;
/// Type of a data segment: writable, accessed.
const SEGMENT_DATA: u8 = 0b0011;
const CR0_PROTECTED_MODE: u64 = 1;
/// The bit of RFLAGS that is always set.
const RFLAGS_RESERVED: u64 = 2;

fn flat_segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { base: 0, limit: u32::MAX, selector, type_, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_and_the_parameters_have_room() {
        assert!(guest::image().len() <= IMAGE_ROOM as usize);
        let most = u32::MAX;
        let options = Options {
            pio: most,
            hlt: most,
            mmio: most,
            touch: most,
            zeros: most,
            equals: most,
            uniques: most,
            spin: most,
            hlt_interval_ns: most,
            stay: true,
            ..Options::default()
        };
        let parameters = boot_parameters(&guest::command_line(&options));
        assert!(START_INFO_ADDRESS as usize + parameters.len() <= guest::TOUCH_ADDRESS as usize);
    }

    #[test]
    fn the_command_line_is_where_start_info_says() {
        let page = boot_parameters("pio=1");
        let word = |offset: usize| u32::from_le_bytes(page[offset..offset + 4].try_into().expect("four bytes"));
        assert_eq!(word(0), guest::START_INFO_MAGIC);
        let offset = (word(guest::START_INFO_COMMAND_LINE) - START_INFO_ADDRESS) as usize;
        assert_eq!(&page[offset..], b"pio=1\0");
    }
}
