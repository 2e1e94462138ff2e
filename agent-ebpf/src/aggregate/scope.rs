//! Keeps the scopes up to date: inherited when tasks are made. Who is gone is seen by [`crate::sched`].

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use sandscope_ebpf::kernel::{
    current_tid,
    scope::{self, CLONE_THREAD, Entry, tid_of},
};

#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn task_newtask(context: RawTracePointContext) -> i32 {
    let parent = scope::of(current_tid(&context));
    if !parent.is_recorded() {
        return 0;
    }
    let clone_flags: u64 = context.arg(1);
    if let Some(child) = scope::entry(tid_of(context.arg(0))) {
        // A thread that had the number before may have left its slot here.
        *child = Entry { membership: parent.of_child(clone_flags & CLONE_THREAD != 0), slot: 0 };
    }
    0
}

/// A thread other than the first that executes takes the number of the first.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let old_tid: u32 = context.arg(1);
    if old_tid == tid {
        return 0;
    }
    if let Some(old) = scope::entry(old_tid)
        && old.membership.is_recorded()
        && let Some(new) = scope::entry(tid)
    {
        *new = *old;
        *old = Entry::NONE;
        if let Some(thread) = crate::thread::of_slot(new.slot)
            && new.slot != 0
        {
            thread.tid = tid;
        }
    }
    0
}
