//! Who has which CPU.

use crate::{
    memory,
    ring::send,
    scope::{forget, known_task},
    syscall,
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, generated::bpf_get_smp_processor_id},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{COMM_BYTES, Header, Kind, NO_SYSCALL, PAGE_FAULT, Switch, THROTTLED},
    kernel::{Tracepoint, current_tid, now_ns, offsets, read_field, scope},
    map::Membership,
};

offsets! { TASK_STATE }
/// `se.sum_exec_runtime` in `task_struct`.
#[unsafe(no_mangle)]
static TASK_EXEC: Global<u32> = Global::new(0);
/// `se.cfs_rq` in `task_struct` and `throttle_count` in `cfs_rq`; 0 where the kernel has no CPU limits.
#[unsafe(no_mangle)]
static TASK_RUN_QUEUE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static RUN_QUEUE_THROTTLED: Global<u32> = Global::new(0);

/// `TASK_DEAD`: the task is being switched out for the last time. Part of the scheduler's contract since 2.6.
const TASK_DEAD: u32 = 0x80;

/// `TASK_UNINTERRUPTIBLE`, by itself or with `TASK_WAKEKILL` (killable). The same on all kernels that there have been.
const TASK_UNINTERRUPTIBLE: u32 = 0x2;

/// Places of the arguments: whether the task was preempted, the task that leaves, the one that arrives.
const PREEMPTED: usize = 0;
const PREV: usize = 1;
const NEXT: usize = 2;

#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(context: BtfTracePointContext) -> i32 {
    switch(&context)
}

/// Where the kernel does not take the other.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn sched_switch_raw(context: RawTracePointContext) -> i32 {
    switch(&context)
}

#[inline(always)]
fn switch(context: &impl Tracepoint) -> i32 {
    // The tracepoint fires before the stacks change: the running task is still the one that leaves.
    let prev_tid = current_tid(context);
    let next_tid = scope::tid_of_argument(context, NEXT);
    // One may have a number beyond those that there were when the programs were loaded; the other is of interest still.
    let prev = scope::of(prev_tid);
    let next = scope::of(next_tid);
    if prev.0 | next.0 == 0 {
        return 0;
    }
    let at_ns = now_ns();
    let mut record = Switch {
        header: Header { at_ns, tid: prev_tid, scope: prev.scope(), kind: Kind::Switch as u8, flags: 0 },
        next_tid,
        next_scope: next.scope(),
        // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        prev_state: 0,
        syscall: NO_SYSCALL,
        syscall_since_ns: 0,
        syscall_arg: 0,
        prev_exec_ns: 0,
        prev_comm: [0; COMM_BYTES],
    };
    if prev.is_recorded() {
        leave(context, prev, &mut record);
        send(Kind::Switch, prev.scope(), record);
        if record.prev_state & TASK_DEAD != 0
            && let Some(entry) = scope::entry(prev_tid)
        {
            forget(entry);
        }
    } else {
        record.prev_comm = bpf_get_current_comm().unwrap_or_default();
        send(Kind::Switch, next.scope(), record);
    }
    if next.is_recorded() {
        memory::arrives();
    }
    0
}

#[inline(always)]
fn leave(context: &impl Tracepoint, membership: Membership, record: &mut Switch) {
    let at_ns = record.header.at_ns;
    let preempted: u8 = context.argument(PREEMPTED);
    let state: u32 = context.field(context.argument(PREV), &TASK_STATE).unwrap_or(0);
    // A task that is preempted on its way to sleep stays runnable, whatever its state says.
    record.prev_state = if preempted & 1 == 1 { 0 } else { state };
    record.prev_exec_ns = context.field(context.argument(PREV), &TASK_EXEC).unwrap_or(0);
    if record.prev_state == 0 && is_throttled(context.argument(PREV)) {
        record.header.flags = THROTTLED;
    }
    let Some(entry) = scope::entry(record.header.tid) else { return };
    if let Some(task) = known_task(entry) {
        task.waits_since_ns = if record.prev_state & TASK_UNINTERRUPTIBLE != 0 { at_ns } else { 0 };
        if task.syscall != NO_SYSCALL {
            record.syscall = task.syscall;
            record.syscall_since_ns = task.syscall_since_ns;
            record.syscall_arg = syscall::argument(task);
            return;
        }
    }
    let fault_since_ns = memory::stretch_ends(at_ns, record.header.tid, membership);
    // Outside of system calls a thread waits only in the kernel's handling of a page fault.
    if record.prev_state & !TASK_DEAD != 0 && fault_since_ns != 0 {
        (record.syscall, record.syscall_since_ns) = (PAGE_FAULT, fault_since_ns);
    }
}

/// Whether a task that was preempted has lost its CPU because the limit of its cgroup is used up.
#[inline(always)]
fn is_throttled(task: *const u8) -> bool {
    if RUN_QUEUE_THROTTLED.load() == 0 {
        return false;
    }
    let queue = read_field::<u64>(task, &TASK_RUN_QUEUE).unwrap_or(0) as *const u8;
    read_field::<i32>(queue, &RUN_QUEUE_THROTTLED).unwrap_or(0) > 0
}
