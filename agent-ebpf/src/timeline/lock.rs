//! Whether a thread in scope waits for a lock of the kernel.
//!
//! The functions that take locks are left out of the stacks of tasks that sleep (they belong to the scheduler, by the kernel's own
//! division), so that a stack alone does not tell a wait for a lock from others.

use crate::scope::known_task;
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use sandscope_ebpf::kernel::{current_tid, scope};

/// `LCB_F_SPIN` in `include/trace/events/lock.h`: it does not sleep.
const SPINS: u64 = 1;

#[raw_tracepoint(tracepoint = "contention_begin")]
pub fn contention_begin(context: RawTracePointContext) -> i32 {
    let flags: u64 = context.arg(1);
    note(&context, u32::from(flags & SPINS == 0))
}

#[raw_tracepoint(tracepoint = "contention_end")]
pub fn contention_end(context: RawTracePointContext) -> i32 {
    note(&context, 0)
}

#[inline(always)]
fn note(context: &RawTracePointContext, contends: u32) -> i32 {
    let Some(entry) = scope::entry(current_tid(context)).filter(|entry| entry.membership.is_recorded()) else {
        return 0;
    };
    if let Some(task) = known_task(entry) {
        task.contends = contends;
    }
    0
}
