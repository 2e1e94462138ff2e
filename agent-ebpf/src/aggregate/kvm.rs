//! Why vCPUs leave the guest, how long they stay outside, and what they do there.

use crate::{shortage, thread};
use aya_ebpf::{
    EbpfContext, Global,
    macros::{map, raw_tracepoint, tracepoint},
    maps::{Array, Stack},
    programs::{RawTracePointContext, TracePointContext},
};
use core::hint::black_box;
use sandscope_ebpf::{
    kernel::{current_tid, now_ns, scope, slot::MMAPABLE},
    sums::{ADDRESSES, Address, DEVICE_CODES, Exits, Source, State, Thread, USERSPACE_CODES, Vcpu, exit_index},
};

/// Sized by the loader, as the next three are. Element 0 is not used.
#[map]
static VCPUS: Array<Vcpu> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FREE_VCPUS: Stack<u16> = Stack::with_max_entries(1, 0);
#[map]
static EXITS: Array<Exits> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FREE_EXITS: Stack<u16> = Stack::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static EXIT_REASON: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static EXIT_GUEST_IP: Global<u32> = Global::new(0);
/// 0 where the kernel's record has no such field.
#[unsafe(no_mangle)]
static EXIT_ISA: Global<u32> = Global::new(0);

/// The registers that start the timer of x86's local APIC: one of its page, which KVM tells of in x2APIC mode too, and an MSR.
const APIC_INITIAL_COUNT: u32 = 0x380;
const TSC_DEADLINE: u32 = 0x6e0;
/// `isa` and `EXIT_REASON_EPT_MISCONFIG` of VMX, which is always for a device, also where KVM answers the access without telling.
const VMX_MISCONFIG: (u32, u32) = (1, 49);
/// Why `KVM_RUN` returns for a signal, in the kernel's ABI.
const KVM_EXIT_INTR: u32 = 10;

/// The running vCPU.
struct Current {
    now_ns: u64,
    slot: u16,
    thread: &'static mut Thread,
    vcpu: &'static mut Vcpu,
}

/// The running thread as a vCPU, if it is in scope.
#[inline(always)]
fn current(context: &impl EbpfContext) -> Option<Current> {
    let tid = current_tid(context);
    let entry = scope::entry(tid)?;
    if !entry.membership.is_recorded() {
        return None;
    }
    let now_ns = now_ns();
    let (slot, thread) = thread::of(tid, entry, now_ns, State::Running, || context.tgid())?;
    if thread.vcpu == 0 {
        match FREE_VCPUS.pop() {
            Ok(Some(free)) => thread.vcpu = free,
            Ok(None) | Err(_) => {
                shortage::note(|shortages| shortages.vcpus += 1);
                return None;
            }
        }
    }
    let vcpu = VCPUS.get_ptr_mut(u32::from(thread.vcpu))?;
    // SAFETY: the map gives a valid pointer, and only the vCPU's own thread uses its element.
    Some(Current { now_ns, slot, thread, vcpu: unsafe { &mut *vcpu } })
}

/// The element that `place` names, made on first use.
#[inline(always)]
fn exits_at(place: &mut u16, slot: u16, source: Source, code: u32, isa: u32) -> Option<&'static mut Exits> {
    if *place == 0 {
        let Ok(Some(free)) = FREE_EXITS.pop() else {
            shortage::note(|shortages| shortages.exits += 1);
            return None;
        };
        *place = free;
        let exits = exits_of(free)?;
        exits.code = code;
        exits.isa = isa;
        exits.source = source as u32;
        exits.slot = u32::from(slot);
    }
    let exits = exits_of(*place)?;
    if exits.code != code {
        // Two codes that share a place: the first keeps it.
        shortage::note(|shortages| shortages.exits += 1);
        return None;
    }
    Some(exits)
}

#[inline(always)]
fn exits_of(index: u16) -> Option<&'static mut Exits> {
    // SAFETY: the map gives a valid pointer, and only the vCPU's own thread uses its elements.
    EXITS.get_ptr_mut(u32::from(index)).map(|exits| unsafe { &mut *exits })
}

/// Counts where the guest was. The first address at a place keeps it, so that what is counted is exact.
#[inline(always)]
fn count_address(exits: &mut Exits, ip: u64) {
    let place = (ip ^ (ip >> 4) ^ (ip >> 12)) as usize % ADDRESSES;
    let address: &mut Address = &mut exits.addresses[place];
    if address.count == 0 {
        address.ip = ip;
    }
    if address.ip == ip {
        address.count += 1;
    } else {
        exits.other_addresses += 1;
    }
}

/// A classic tracepoint: since 5.16 the raw one no longer passes the reason, and the formatted record always has it.
#[tracepoint(category = "kvm", name = "kvm_exit")]
pub fn kvm_exit(context: TracePointContext) -> u32 {
    if let Some(Current { now_ns, thread, vcpu, .. }) = current(&context) {
        // SAFETY: the helper reads the record at any offset and fails outside of memory.
        vcpu.exit_code = unsafe { context.read_at(EXIT_REASON.load() as usize) }.unwrap_or(u32::MAX);
        // SAFETY: as above.
        vcpu.guest_ip = unsafe { context.read_at(EXIT_GUEST_IP.load() as usize) }.unwrap_or(0);
        vcpu.exit_isa = match EXIT_ISA.load() {
            0 => 0,
            // SAFETY: as above.
            offset => unsafe { context.read_at(offset as usize) }.unwrap_or(0),
        };
        vcpu.exit_ns = now_ns;
        vcpu.is_device = 0;
        vcpu.vmm_ns = 0;
        vcpu.polled_ns = 0;
        vcpu.blocked_at_exit_ns = thread.blocked_ns;
        vcpu.runnable_at_exit_ns = thread.runnable_ns;
    }
    1
}

#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(context: RawTracePointContext) -> i32 {
    let Some(Current { now_ns, slot, thread, vcpu }) = current(&context) else {
        return 0;
    };
    back_in_kvm_run(now_ns, slot, thread, vcpu);
    if vcpu.exit_ns == 0 {
        return 0;
    }
    let total = now_ns.saturating_sub(vcpu.exit_ns);
    vcpu.exit_ns = 0;
    let (code, isa) = (vcpu.exit_code, vcpu.exit_isa);
    // VMX keeps flags in the upper half of the reason.
    let code = if isa == 1 { code & 0xffff } else { code };
    // The compiler knows that these are inside, and would not check; the verifier of 6.1 does not, and wants the check.
    let (place, source) = if vcpu.is_device != 0 || (isa, code) == VMX_MISCONFIG {
        (vcpu.devices.get_mut(black_box(code as usize % DEVICE_CODES)), Source::Device)
    } else {
        (vcpu.exits.get_mut(black_box(exit_index(code))), Source::Exit)
    };
    let Some(place) = place else { return 0 };
    if let Some(exits) = exits_at(place, slot, source, code, isa) {
        exits.count += 1;
        exits.total_ns += total;
        exits.duration.record(total);
        exits.vmm_ns += vcpu.vmm_ns;
        exits.polled_ns += vcpu.polled_ns;
        exits.blocked_ns += thread.blocked_ns - vcpu.blocked_at_exit_ns;
        exits.runnable_ns += thread.runnable_ns - vcpu.runnable_at_exit_ns;
        count_address(exits, vcpu.guest_ip);
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_mmio")]
pub fn kvm_mmio(context: RawTracePointContext) -> i32 {
    if let Some(Current { vcpu, .. }) = current(&context) {
        vcpu.is_device = 1;
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn kvm_userspace_exit(context: RawTracePointContext) -> i32 {
    if let Some(Current { now_ns, thread, vcpu, .. }) = current(&context) {
        let errno: i32 = context.arg(1);
        // A signal has no reason of its own; the last one would be given again.
        vcpu.userspace_code = if errno < 0 { KVM_EXIT_INTR } else { context.arg(0) };
        vcpu.userspace_ns = now_ns;
        vcpu.blocked_at_return_ns = thread.blocked_ns;
        vcpu.runnable_at_return_ns = thread.runnable_ns;
    }
    0
}

/// x86: `KVM_RUN` loads the guest's floating-point state when it begins.
#[raw_tracepoint(tracepoint = "kvm_fpu")]
pub fn kvm_fpu(context: RawTracePointContext) -> i32 {
    let load: u32 = context.arg(0);
    if load == 1
        && let Some(Current { now_ns, slot, thread, vcpu }) = current(&context)
    {
        back_in_kvm_run(now_ns, slot, thread, vcpu);
    }
    0
}

/// The VMM has called `KVM_RUN` again.
#[inline(always)]
fn back_in_kvm_run(now_ns: u64, slot: u16, thread: &Thread, vcpu: &mut Vcpu) {
    if vcpu.userspace_ns == 0 {
        return;
    }
    let total = now_ns.saturating_sub(vcpu.userspace_ns);
    let blocked = thread.blocked_ns - vcpu.blocked_at_return_ns;
    let runnable = thread.runnable_ns - vcpu.runnable_at_return_ns;
    let in_vmm = total.saturating_sub(blocked + runnable);
    vcpu.userspace_ns = 0;
    vcpu.vmm_ns += in_vmm;
    let code = vcpu.userspace_code;
    let Some(place) = vcpu.returns.get_mut(code as usize % USERSPACE_CODES) else {
        return;
    };
    if let Some(exits) = exits_at(place, slot, Source::Return, code, 0) {
        exits.count += 1;
        exits.total_ns += total;
        exits.duration.record(total);
        exits.vmm_ns += in_vmm;
        exits.blocked_ns += blocked;
        exits.runnable_ns += runnable;
    }
}

#[raw_tracepoint(tracepoint = "kvm_vcpu_wakeup")]
pub fn kvm_vcpu_wakeup(context: RawTracePointContext) -> i32 {
    let Some(Current { slot, thread, vcpu, .. }) = current(&context) else {
        return 0;
    };
    // From the halt on, polling included.
    let total: u64 = context.arg(0);
    let blocked = (thread.blocked_ns - vcpu.blocked_at_halt_ns).min(total);
    let runnable = (thread.runnable_ns - vcpu.runnable_at_halt_ns).min(total - blocked);
    let polled = total - blocked - runnable;
    vcpu.polled_ns += polled;
    vcpu.blocked_at_halt_ns = thread.blocked_ns;
    vcpu.runnable_at_halt_ns = thread.runnable_ns;
    if let Some(exits) = exits_at(&mut vcpu.halts, slot, Source::Halt, 0, 0) {
        exits.count += 1;
        exits.total_ns += total;
        exits.duration.record(total);
        exits.blocked_ns += blocked;
        exits.runnable_ns += runnable;
        exits.polled_ns += polled;
        if vcpu.exit_ns != 0 {
            count_address(exits, vcpu.guest_ip);
        }
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_msr")]
pub fn kvm_msr(context: RawTracePointContext) -> i32 {
    let (write, register): (u32, u32) = (context.arg(0), context.arg(1));
    if write & 1 == 1 && register == TSC_DEADLINE {
        timer_programmed(&context, register, |vcpu| &mut vcpu.timers[1]);
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_apic")]
pub fn kvm_apic(context: RawTracePointContext) -> i32 {
    let (write, register): (u32, u32) = (context.arg(0), context.arg(1));
    if write & 1 == 1 && register == APIC_INITIAL_COUNT {
        timer_programmed(&context, register, |vcpu| &mut vcpu.timers[0]);
    }
    0
}

#[inline(always)]
fn timer_programmed(context: &RawTracePointContext, register: u32, place: impl FnOnce(&mut Vcpu) -> &mut u16) {
    if let Some(Current { slot, vcpu, .. }) = current(context)
        && let Some(exits) = exits_at(place(vcpu), slot, Source::Timer, register, 0)
    {
        exits.count += 1;
        if vcpu.exit_ns != 0 {
            count_address(exits, vcpu.guest_ip);
        }
    }
}
