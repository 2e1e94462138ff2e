//! What interrupts the own code of threads in scope: page faults and interrupts, summed per stretch. [`crate::syscall`] and
//! [`crate::sched`] send the sums when the stretch ends, so that a fault costs a look at a per-CPU element, not a record.
//!
//! Every fault is counted when it begins, at its tracepoint, or where the architecture has none (arm64) at the software event
//! `page-faults`. Some are timed: of the event `minor-faults`, which the kernel counts when it has handled one (`mm_account_fault`,
//! since 5.9), only every so-manieth comes here, since it costs several times as much. What the kernel faults on in a system call is
//! that call's: nothing has begun then.

use crate::ring::send;
use aya_ebpf::{
    macros::{map, perf_event, raw_tracepoint},
    maps::PerCpuArray,
    programs::{PerfEventContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{Faults, Header, Kind, Traps},
    kernel::{current_tid, interrupt, now_ns, scope},
    map::{FaultsOfCpu, Membership},
};

#[map]
static FAULTS: PerCpuArray<FaultsOfCpu> = PerCpuArray::with_max_entries(1, 0);

/// Bits of the x86 page-fault error code.
const WRITE: u64 = 1 << 1;
const EXEC: u64 = 1 << 4;

const NONE: FaultsOfCpu = FaultsOfCpu {
    since_ns: 0,
    timed_ns: 0,
    faults: Faults { read: 0, write: 0, exec: 0, unknown: 0 },
    timed: 0,
    padding: 0,
};

#[inline(always)]
fn of_this_cpu() -> Option<&'static mut FaultsOfCpu> {
    // SAFETY: the map gives a valid pointer to this CPU's element; user faults, system calls and switches do not interrupt each
    // other.
    FAULTS.get_ptr_mut(0).map(|faults| unsafe { &mut *faults })
}

/// A stretch of own code of a thread ends; sends what interrupted it, if anything did. Says when its last page fault began, or 0.
#[inline(always)]
pub fn stretch_ends(at_ns: u64, tid: u32, membership: Membership) -> u64 {
    let interrupt_ns = interrupt::take_spent();
    let Some(cpu) = of_this_cpu() else { return 0 };
    // No fault counts that did not begin.
    let since_ns = cpu.since_ns;
    if since_ns == 0 && interrupt_ns == 0 {
        return 0;
    }
    let FaultsOfCpu { timed_ns, faults, timed, .. } = *cpu;
    *cpu = NONE;
    let header = Header { at_ns, tid, scope: membership.scope(), kind: Kind::Traps as u8, flags: 0 };
    send(Kind::Traps, header.scope, Traps { header, faults, timed_ns, interrupt_ns, timed, padding: 0 });
    since_ns
}

/// A thread gets the CPU: what was spent on others is nobody's in scope.
#[inline(always)]
pub fn arrives() {
    interrupt::take_spent();
}

#[inline(always)]
fn begins(count: impl FnOnce(&mut Faults)) {
    if let Some(cpu) = of_this_cpu() {
        count(&mut cpu.faults);
        cpu.since_ns = now_ns();
    }
}

#[raw_tracepoint(tracepoint = "page_fault_user")]
pub fn page_fault_user(context: RawTracePointContext) -> i32 {
    if !scope::of(current_tid(&context)).is_recorded() {
        return 0;
    }
    let error_code: u64 = context.arg(2);
    begins(|faults| {
        if error_code & EXEC != 0 {
            faults.exec += 1;
        } else if error_code & WRITE != 0 {
            faults.write += 1;
        } else {
            faults.read += 1;
        }
    });
    0
}

/// Where the architecture has no fault tracepoint: the software event, which does not tell the kind of access.
#[perf_event]
pub fn page_fault_event(context: PerfEventContext) -> u32 {
    if scope::of(current_tid(&context)).is_recorded() {
        begins(|faults| faults.unknown += 1);
    }
    0
}

/// A fault was handled: if it began in scope, it is one that is timed.
#[perf_event]
pub fn minor_fault_event(_context: PerfEventContext) -> u32 {
    if let Some(cpu) = of_this_cpu()
        && cpu.since_ns != 0
    {
        cpu.timed_ns += now_ns().saturating_sub(cpu.since_ns);
        cpu.timed += 1;
    }
    0
}
