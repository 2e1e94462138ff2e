//! User page faults of threads in scope, counted per stretch on a CPU: [`crate::sched`] sends the sums with the next switch,
//! so that a fault costs a look-up and an addition, not a record.

use aya_ebpf::{
    macros::{map, perf_event, raw_tracepoint},
    maps::PerCpuArray,
    programs::{PerfEventContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::Faults,
    kernel::{current_tid, scope},
};

#[map]
static FAULTS: PerCpuArray<Faults> = PerCpuArray::with_max_entries(1, 0);

/// Bits of the x86 page-fault error code.
const WRITE: u64 = 1 << 1;
const EXEC: u64 = 1 << 4;

#[inline(always)]
fn of_this_cpu() -> Option<&'static mut Faults> {
    // SAFETY: the map gives a valid pointer to this CPU's element; user faults and switches do not interrupt each other.
    FAULTS.get_ptr_mut(0).map(|faults| unsafe { &mut *faults })
}

/// Gives the counts since the last call on this CPU, and starts anew.
#[inline(always)]
pub fn take_faults() -> Faults {
    match of_this_cpu() {
        Some(faults) => {
            let taken = *faults;
            *faults = Faults { read: 0, write: 0, exec: 0, unknown: 0 };
            taken
        }
        None => Faults { read: 0, write: 0, exec: 0, unknown: 0 },
    }
}

#[raw_tracepoint(tracepoint = "page_fault_user")]
pub fn page_fault_user(context: RawTracePointContext) -> i32 {
    if !scope::of(current_tid(&context)).is_recorded() {
        return 0;
    }
    let error_code: u64 = context.arg(2);
    if let Some(faults) = of_this_cpu() {
        if error_code & EXEC != 0 {
            faults.exec += 1;
        } else if error_code & WRITE != 0 {
            faults.write += 1;
        } else {
            faults.read += 1;
        }
    }
    0
}

/// Where the architecture has no fault tracepoint (arm64): the software event, which does not tell the kind of access.
#[perf_event]
pub fn page_fault_event(context: PerfEventContext) -> u32 {
    if scope::of(current_tid(&context)).is_recorded()
        && let Some(faults) = of_this_cpu()
    {
        faults.unknown += 1;
    }
    0
}
