//! What the threads of something are that ran before anybody looked: a vCPU, or a thread that the kernel made for a VM.
//!
//! Facts decide, since anybody can give a thread any name: whether it has run a guest, which descriptors its process has, what the kernel
//! says that it is. Only where a process has the vCPUs of a virtual machine open do the names that VMMs give their threads say which of
//! them is one, and only while it runs its guest without end: one that waits in the kernel can be seen to.

use crate::measure::run_time::{self, OF_KERNEL, Status};
use procfs::process::{FDTarget, Process};
use sandscope_ebpf::sums::Thread;
use std::{collections::BTreeMap, fs};

/// Role of a thread that runs a vCPU.
const VCPU: &str = "vcpu";

/// What a descriptor of a vCPU is called, before its number.
const VCPU_FILE: &str = "kvm-vcpu:";
/// The request that runs a guest (`KVM_RUN`).
const KVM_RUN: u64 = 0xae80;

/// What VMMs call the threads of vCPUs, before the number: QEMU with `debug-threads=on`, Firecracker, Cloud Hypervisor and libkrun, crosvm.
const NAMES: [&str; 6] = ["CPU ", "fc_vcpu ", "vcpu", "vcpu ", "crosvm_vcpu", "fc_vcpu"];

/// What the names of QEMU's programs begin with, and what it calls threads that emulate one vCPU, or all, without KVM.
const EMULATOR: &str = "qemu-";
const EMULATES: &str = "/TCG";
const EMULATES_ALL: &str = "ALL CPUs/TCG";

/// Flags of a thread that the kernel made for a process of users (vhost since 6.4), and of those for `io_uring`.
const FOR_USER: u64 = 0x4000;
const FOR_IO_URING: u64 = 0x10;

/// The processes that are VMMs.
pub(super) struct Machines(BTreeMap<u32, Machine>);

/// What a VMM has.
#[derive(Default)]
struct Machine {
    /// The vCPUs that it has open: by descriptor the number that KVM gave each.
    vcpus: BTreeMap<u64, u32>,
    /// Whether it may emulate the guest's processors.
    emulates: bool,
}

/// What a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub role: &'static str,
    /// Number of the vCPU as KVM counts them, where that can be told.
    pub vcpu: Option<u32>,
}

impl Machines {
    /// Those among these processes.
    pub fn among(processes: impl IntoIterator<Item = u32>) -> Self {
        let with = processes.into_iter().map(|pid| (pid, Machine::of(pid)));
        Self(with.filter(|(_, machine)| machine.emulates || !machine.vcpus.is_empty()).collect())
    }

    /// What a thread is; `None` for one about which nothing is known but its name.
    pub fn know(&self, thread: &Thread, comm: &str) -> Option<Known> {
        // First, since such a thread begins with a copy of what its maker was doing: that of KVM seems to be in the call that runs a vCPU.
        if is_made_by_kernel(thread.tgid, thread.tid) {
            return Some(Known { role: super::HELPER, vcpu: None });
        }
        let machine = self.0.get(&thread.tgid);
        let vcpu = machine.and_then(|machine| machine.number(thread.tid, comm));
        let is_vcpu = thread.vcpu != 0 || vcpu.is_some() || machine.is_some_and(|machine| machine.emulates_all(comm));
        is_vcpu.then_some(Known { role: VCPU, vcpu })
    }
}

impl Machine {
    fn of(pid: u32) -> Self {
        let Ok(process) = Process::new(pid.cast_signed()) else { return Self::default() };
        let open = process.fd().into_iter().flatten().flatten().filter_map(|descriptor| match descriptor.target {
            FDTarget::AnonInode(name) => {
                Some((u64::try_from(descriptor.fd).ok()?, name.strip_prefix(VCPU_FILE)?.parse().ok()?))
            }
            _ => None,
        });
        let vcpus = open.collect();
        // By its file: what it is called anybody can choose.
        let program = process.exe().ok();
        let program = program.as_ref().and_then(|path| path.file_name()?.to_str());
        Self { vcpus, emulates: program.is_some_and(|name| name.starts_with(EMULATOR)) }
    }

    /// Number of the vCPU that a thread runs, of those that its process has.
    fn number(&self, tid: u32, comm: &str) -> Option<u32> {
        let call = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
        if let Some(descriptor) = runs(&call) {
            return self.vcpus.get(&descriptor).copied();
        }
        let is_its = |number: &u32| self.vcpus.values().any(|vcpu| vcpu == number);
        named(comm).filter(|number| is_its(number) || self.emulates && comm.ends_with(EMULATES))
    }

    fn emulates_all(&self, comm: &str) -> bool {
        self.emulates && comm == EMULATES_ALL
    }
}

/// The descriptor of the vCPU that a thread runs, by the call that it is in: its number and arguments.
fn runs(call: &str) -> Option<u64> {
    let mut words = call.split_ascii_whitespace();
    let is_ioctl = words.next()?.parse() == Ok(libc::SYS_ioctl);
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (descriptor, request) = (argument()?, argument()?);
    (is_ioctl && request == KVM_RUN).then_some(descriptor)
}

/// The number in the name of a thread that a VMM calls a vCPU.
fn named(comm: &str) -> Option<u32> {
    let rest = NAMES.iter().find_map(|name| comm.strip_prefix(name).filter(|rest| rest.starts_with(is_digit)))?;
    // `CPU 0/KVM`
    rest.split(|letter| !is_digit(letter)).next()?.parse().ok()
}

fn is_digit(letter: char) -> bool {
    letter.is_ascii_digit()
}

/// Whether the kernel made this thread of a process, for vhost or for KVM; not for `io_uring`, which is the process' own doing.
fn is_made_by_kernel(pid: u32, tid: u32) -> bool {
    run_time::status(pid, tid)
        .is_some_and(|Status { flags, .. }| flags & OF_KERNEL != 0 || flags & (FOR_USER | FOR_IO_URING) == FOR_USER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;

    fn thread(tgid: u32, tid: u32) -> Thread {
        Thread { tid, tgid, ..Thread::zeroed() }
    }

    #[test]
    fn names_make_no_vcpu_outside_of_a_vmm() {
        let own = std::process::id();
        let machines = Machines::among([own]);
        for comm in ["CPU 0/x", "CPU 0/KVM", "vcpu7", "fc_vcpu 0", "vhost-1", "kvm-pit/1"] {
            assert_eq!(machines.know(&thread(own, own), comm), None, "{comm}");
        }
        let ran = Thread { vcpu: 3, ..thread(own, own) };
        assert_eq!(machines.know(&ran, "sh"), Some(Known { role: VCPU, vcpu: None }), "has run a guest");
    }

    #[test]
    fn names_tell_vcpus_apart_within_a_vmm() {
        let own = std::process::id();
        let machines = Machines([(own, Machine { vcpus: [(11, 0), (12, 1)].into(), emulates: false })].into());
        for (comm, vcpu) in [("CPU 1/KVM", 1), ("fc_vcpu 0", 0), ("vcpu1", 1), ("crosvm_vcpu0", 0)] {
            assert_eq!(machines.know(&thread(own, own), comm), Some(Known { role: VCPU, vcpu: Some(vcpu) }), "{comm}");
        }
        for comm in ["CPU 7/KVM", "vcpus", "CPU ", "IO mon_iothread", "worker", "qemu-system-x86"] {
            assert_eq!(machines.know(&thread(own, own), comm), None, "{comm}");
        }
    }

    #[test]
    fn what_the_kernel_made_is_no_vcpu_whatever_it_seems_to_do() {
        let machines = Machines([(2, Machine { vcpus: [(11, 0)].into(), emulates: false })].into());
        let helper = Some(Known { role: super::super::HELPER, vcpu: None });
        assert_eq!(machines.know(&thread(2, 2), "CPU 0/KVM"), helper);
    }

    #[test]
    fn without_kvm_only_names_of_qemu_tell_vcpus_apart() {
        let own = std::process::id();
        let machines = Machines([(own, Machine { vcpus: BTreeMap::new(), emulates: true })].into());
        let vcpu = |vcpu| Some(Known { role: VCPU, vcpu });
        assert_eq!(machines.know(&thread(own, own), "CPU 3/TCG"), vcpu(Some(3)));
        assert_eq!(machines.know(&thread(own, own), "ALL CPUs/TCG"), vcpu(None));
        for comm in ["CPU 3/KVM", "vcpu0", "qemu-system-x86", "CPU /TCG"] {
            assert_eq!(machines.know(&thread(own, own), comm), None, "{comm}");
        }
    }

    #[test]
    fn the_call_that_a_thread_is_in_tells_which_vcpu_it_runs() {
        let ioctl = libc::SYS_ioctl;
        assert_eq!(runs(&format!("{ioctl} 0xd 0xae80 0x0 0x0 0x0 0x0 0x7ffd 0x7f12\n")), Some(13));
        assert_eq!(runs(&format!("{ioctl} 0xd 0xae01 0x0 0x0 0x0 0x0 0x7ffd 0x7f12")), None);
        assert_eq!(runs("7 0xd 0xae80 0x0"), None);
        for text in ["running", "", "-1 0x7ffd 0x7f12", "16", "16 0xd", "16 13 0xae80"] {
            assert_eq!(runs(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_made_is_told_by_its_flags() {
        assert!(is_made_by_kernel(2, 2) && !is_made_by_kernel(std::process::id(), std::process::id()));
    }
}
