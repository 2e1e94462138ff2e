//! Who has which CPU.

use crate::{
    memory,
    ring::{current_tid, header, send},
    scope,
};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::{Global, helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use sandscope_ebpf::event::{Kind, NO_SYSCALL, Switch};

#[unsafe(no_mangle)]
static TASK_STATE: Global<u32> = Global::new(0);

/// `TASK_DEAD`: the task is being switched out for the last time. Part of the scheduler's contract since 2.6.
const TASK_DEAD: u32 = 0x80;

#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn sched_switch(context: RawTracePointContext) -> i32 {
    // The tracepoint fires before the stacks change: the running task is still the one that leaves.
    let prev_tid = current_tid(&context);
    let next_tid = scope::tid_of(context.arg(2));
    let prev = scope::of(prev_tid);
    let next = scope::of(next_tid);
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
        let task: *const u8 = context.arg(1);
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        record.prev_state = unsafe { bpf_probe_read_kernel(task.add(TASK_STATE.load() as usize).cast()) }.unwrap_or(0);
        if let Some(known) = scope::known_task(prev_tid) {
            record.syscall = known.syscall;
            record.syscall_since_ns = known.syscall_since_ns;
            record.syscall_arg = known.syscall_arg;
        }
    }
    send(Kind::Switch, record);
    if record.prev_state & TASK_DEAD != 0 {
        scope::forget(prev_tid);
    }
    0
}
