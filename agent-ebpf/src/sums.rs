//! What the programs of the aggregate mode keep: sums and histograms per thread, per vCPU and exit, per cause of a wake-up.
//!
//! Threads, vCPUs and exits have dense numbers that are given out when they are first needed. All elements of a thread are
//! written by the CPU that runs it, or by its waker while it sleeps, so additions need no atomic instructions. Nothing is
//! lost at any rate; what finds no number is counted in [`Shortages`].

use crate::{
    event::COMM_BYTES,
    histogram::{BUCKETS, Histogram},
};
use bytemuck::{Pod, Zeroable};

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It has a CPU. Also the state of a thread of which nothing is known yet.
    Running = 0,
    /// It could run, but has no CPU.
    Runnable = 1,
    /// It waits for something else.
    Blocked = 2,
    /// It will never run again, or is in scope no more.
    Dead = 3,
    /// It was there before it was looked at and nothing has happened to it since: its first event tells what it did until then.
    Unseen = 4,
}

/// What is kept of a thread in scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Thread {
    /// Its number.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its scope; see [`crate::map::Membership`].
    pub membership: u16,
    /// Its element of the vCPUs; 0 is none.
    pub vcpu: u16,
    /// CPU that it had last.
    pub cpu: u32,
    /// A [`State`].
    pub state: u32,
    /// Its element of the wake-ups that made it run; meaningless unless `is_charged`.
    pub is_charged: u32,
    /// Since when it is in `state`.
    pub since_ns: u64,
    /// Time on a CPU, up to the last switch.
    pub on_cpu_ns: u64,
    /// Time in which it could run but had no CPU, up to the last switch.
    pub runnable_ns: u64,
    /// Time in which it waited for something else, up to the last switch.
    pub blocked_ns: u64,
    /// How often it left a CPU.
    pub switches: u64,
    /// How often it left one though it could have gone on.
    pub preemptions: u64,
    /// How often it left one to wait.
    pub sleeps: u64,
    /// How often it was woken.
    pub wakeups: u64,
    /// How often it went on on another CPU than before.
    pub migrations: u64,
    /// Run time of the interrupts and timers that woke it, from their beginning to their end.
    pub causes_ns: u64,
    /// The kernel's own count of its time on CPUs when it left one the last time; 0 before.
    pub exec_ns: u64,
    /// `on_cpu_ns` when it was woken the last time.
    pub on_cpu_at_wake_ns: u64,
    /// What woke it the last time.
    pub woken_by: WakeKey,
    /// Its name at its end; empty before.
    pub comm: [u8; COMM_BYTES],
    /// Run-queue latency: from each wake-up or preemption until it got a CPU.
    pub latency: Histogram,
}

/// Who woke which thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq, Hash)]
pub struct WakeKey {
    /// See [`crate::event::WakeCause`].
    pub detail: u64,
    /// The waking task, for the cause `Task`; else 0.
    pub waker_tid: u32,
    /// Slot of the woken thread.
    pub slot: u16,
    /// A [`crate::event::WakeCause`].
    pub cause: u16,
}

/// Wake-ups of one thread by one cause.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Wakes {
    /// How many.
    pub count: u64,
    /// How long the thread had slept before them, all together.
    pub slept_ns: u64,
    /// How long it had a CPU after them, until it slept again.
    pub on_cpu_after_ns: u64,
    /// Scope of the waking task, for the cause `Task`; else 0.
    pub waker_scope: u16,
    /// Always 0.
    pub padding: [u16; 3],
    /// Its name.
    pub waker_comm: [u8; COMM_BYTES],
}

/// Who took the CPU from which thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq, Hash)]
pub struct PreemptionKey {
    /// Slot of the thread that lost its CPU.
    pub slot: u32,
    /// The thread that got it; 0 is the idle task.
    pub by_tid: u32,
}

/// Preemptions of one thread by one other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Preemptions {
    /// How many.
    pub count: u64,
    /// Name of the thread that got the CPU.
    pub by_comm: [u8; COMM_BYTES],
}

/// Exit codes that a vCPU tells apart directly: see [`exit_index`].
pub const EXIT_CODES: usize = 512;
/// Codes of exits for memory of devices that a vCPU tells apart.
pub const DEVICE_CODES: usize = 2;
/// `KVM_EXIT_*` codes that a vCPU tells apart.
pub const USERSPACE_CODES: usize = 64;

/// Place of an exit code in the table of a vCPU. The codes of VMX and arm64 are below 256; those of SVM are too, save for a
/// few from 0x400 on. Codes that share a place are told apart by [`Exits::code`].
#[inline(always)]
pub const fn exit_index(code: u32) -> usize {
    ((code & 0xff) | (code >> 2 & 0x100)) as usize
}

/// What is kept of a vCPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Vcpu {
    /// When it left the guest; 0 while it is inside, and where the kernel does not say.
    pub exit_ns: u64,
    /// Where the guest was then.
    pub guest_ip: u64,
    /// Why it left.
    pub exit_code: u32,
    /// See [`crate::event::KvmExit::isa`].
    pub exit_isa: u32,
    /// When `KVM_RUN` returned to the VMM; 0 while the vCPU is in `KVM_RUN`.
    pub userspace_ns: u64,
    /// Why it returned: `KVM_EXIT_*`.
    pub userspace_code: u32,
    /// Whether KVM has emulated an access to memory of a device since the exit.
    pub is_device: u32,
    /// Time in the VMM since the exit.
    pub vmm_ns: u64,
    /// Time polled since the exit.
    pub polled_ns: u64,
    /// `blocked_ns` of the thread at the exit.
    pub blocked_at_exit_ns: u64,
    /// `runnable_ns` of the thread at the exit.
    pub runnable_at_exit_ns: u64,
    /// `blocked_ns` of the thread when `KVM_RUN` returned.
    pub blocked_at_return_ns: u64,
    /// `runnable_ns` of the thread when `KVM_RUN` returned.
    pub runnable_at_return_ns: u64,
    /// `blocked_ns` of the thread after its last halt.
    pub blocked_at_halt_ns: u64,
    /// `runnable_ns` of the thread after its last halt.
    pub runnable_at_halt_ns: u64,
    /// Elements of [`Exits`] by [`exit_index`]; 0 is none.
    pub exits: [u16; EXIT_CODES],
    /// Elements of [`Exits`] of returns to the VMM, by `KVM_EXIT_*`.
    pub returns: [u16; USERSPACE_CODES],
    /// Element of [`Exits`] of halts.
    pub halts: u16,
    /// Elements of [`Exits`] of timer programming: by the initial count, by the deadline.
    pub timers: [u16; 2],
    /// Elements of [`Exits`] of accesses to memory of devices, by the code modulo as many: processors have one or two such codes.
    pub devices: [u16; DEVICE_CODES],
    /// Always 0.
    pub padding: [u16; 3],
}

/// Guest addresses kept per vCPU and exit reason.
pub const ADDRESSES: usize = 16;

/// Where the guest was.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Address {
    /// Guest instruction pointer.
    pub ip: u64,
    /// How often; 0: the place is free.
    pub count: u64,
}

/// What an element of [`Exits`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    /// `kvm_exit` to `kvm_entry`.
    Exit = 0,
    /// `kvm_userspace_exit` to the next `KVM_RUN`.
    Return = 1,
    /// `kvm_vcpu_wakeup`: halts.
    Halt = 2,
    /// Writes to the registers that start the guest's timer: `kvm_msr`, `kvm_apic`.
    Timer = 3,
    /// `kvm_exit` to `kvm_entry`, with an access to memory of a device between them: `kvm_mmio`.
    Device = 4,
}

/// Exits of one vCPU for one reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Exits {
    /// Exit code; the register for timers.
    pub code: u32,
    /// See [`crate::event::KvmExit::isa`].
    pub isa: u32,
    /// A [`Source`].
    pub source: u32,
    /// Slot of the vCPU's thread.
    pub slot: u32,
    /// How often.
    pub count: u64,
    /// From the exits to the next entries, all together.
    pub total_ns: u64,
    /// Part of it in the VMM, while it had a CPU.
    pub vmm_ns: u64,
    /// Part of it blocked.
    pub blocked_ns: u64,
    /// Part of it polling for the end of a halt.
    pub polled_ns: u64,
    /// Part of it waiting for a CPU.
    pub runnable_ns: u64,
    /// Exits at other addresses than those in `addresses`.
    pub other_addresses: u64,
    /// The first addresses seen, at places that the address decides.
    pub addresses: [Address; ADDRESSES],
    /// Of the time from exit to entry.
    pub duration: Histogram,
}

/// What found no room, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable, PartialEq, Eq)]
pub struct Shortages {
    /// Events of threads that got no slot.
    pub threads: u64,
    /// KVM events of threads that got no vCPU.
    pub vcpus: u64,
    /// Exits without an element.
    pub exits: u64,
    /// Wake-ups whose cause got no element.
    pub wakes: u64,
    /// Preemptions whose author got no element.
    pub preemptions: u64,
}

impl Shortages {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.threads + self.vcpus + self.exits + self.wakes + self.preemptions
    }
}

const _: () = assert!(size_of::<Histogram>() == BUCKETS * 4);

#[cfg(feature = "user")]
mod user {
    use super::{Exits, PreemptionKey, Preemptions, Shortages, Thread, Vcpu, WakeKey, Wakes};

    /// Says that values of a type can be read from and written to maps.
    macro_rules! pod {
        ($($type:ty)+) => {$(
            // SAFETY: `repr(C)` without implicit padding and valid for any bytes: `bytemuck::Pod` is derived.
            unsafe impl aya::Pod for $type {}
        )+};
    }
    pod! { Exits PreemptionKey Preemptions Shortages Thread Vcpu WakeKey Wakes }
}

#[cfg(test)]
mod tests {
    use super::{EXIT_CODES, exit_index};

    #[test]
    fn the_codes_of_all_vendors_have_places_of_their_own() {
        let mut seen = [false; EXIT_CODES];
        for code in (0..0xa6).chain(0x400..0x404) {
            assert!(!core::mem::replace(&mut seen[exit_index(code)], true), "{code:#x}");
        }
        let mut seen = [false; EXIT_CODES];
        for code in 0..256 {
            assert!(!core::mem::replace(&mut seen[exit_index(code)], true), "{code:#x}");
        }
    }
}
