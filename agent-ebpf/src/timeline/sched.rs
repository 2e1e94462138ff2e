//! Who has which CPU.

use crate::{
    memory,
    ring::{header, send},
    scope::{forget, known_task},
};
use aya_ebpf::{
    Global, helpers::generated::bpf_get_smp_processor_id, macros::raw_tracepoint, programs::RawTracePointContext,
};
use sandscope_ebpf::{
    event::{Kind, NO_SYSCALL, Switch},
    kernel::{current_tid, read_field, scope},
};

#[unsafe(no_mangle)]
static TASK_STATE: Global<u32> = Global::new(0);

/// `TASK_DEAD`: the task is being switched out for the last time. Part of the scheduler's contract since 2.6.
const TASK_DEAD: u32 = 0x80;

#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn sched_switch(context: RawTracePointContext) -> i32 {
    // The tracepoint fires before the stacks change: the running task is still the one that leaves.
    let prev_tid = current_tid(&context);
    let next_tid = scope::tid_of(context.arg(2));
    let Some(prev_entry) = scope::entry(prev_tid) else {
        return 0;
    };
    let (prev, next) = (prev_entry.membership, scope::of(next_tid));
    if prev.0 | next.0 == 0 {
        return 0;
    }
    let mut record = Switch {
        header: header(Kind::Switch, prev_tid, prev),
        next_tid,
        next_scope: next.scope(),
        // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        prev_state: 0,
        syscall: NO_SYSCALL,
        syscall_since_ns: 0,
        syscall_arg: 0,
        faults: memory::take_faults(),
    };
    if prev.is_recorded() {
        let preempted: u8 = context.arg(0);
        let state = read_field(context.arg(1), &TASK_STATE).unwrap_or(0);
        // A task that is preempted on its way to sleep stays runnable, whatever its state says.
        record.prev_state = if preempted & 1 == 1 { 0 } else { state };
        if let Some(known) = known_task(prev_entry) {
            record.syscall = known.syscall;
            record.syscall_since_ns = known.syscall_since_ns;
            record.syscall_arg = known.syscall_arg;
        }
    }
    send(Kind::Switch, record);
    if record.prev_state & TASK_DEAD != 0 {
        forget(prev_entry);
    }
    0
}
