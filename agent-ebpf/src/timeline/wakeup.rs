//! Wake-ups of threads in scope, each with its cause.

use crate::ring::{header, send};
use aya_ebpf::{
    helpers::bpf_get_current_comm,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{Kind, Wake},
    kernel::{Tracepoint, current_tid, interrupt, scope},
};

/// `sched_waking`, not `sched_wakeup`: it fires in the context of the waker, also when another CPU queues the task.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(context: BtfTracePointContext) -> i32 {
    waking(&context)
}

/// Where the kernel does not take the other.
#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn sched_waking_raw(context: RawTracePointContext) -> i32 {
    waking(&context)
}

#[inline(always)]
fn waking(context: &impl Tracepoint) -> i32 {
    let tid = scope::tid_of_argument(context, 0);
    let woken = scope::of(tid);
    if !woken.is_recorded() {
        return 0;
    }
    let waker_tid = current_tid(context);
    let (cause, detail) = interrupt::cause();
    let mut header = header(Kind::Wake, tid, woken);
    header.flags = cause as u8;
    let waker_comm = bpf_get_current_comm().unwrap_or_default();
    let waker_scope = scope::of(waker_tid).scope();
    send(Kind::Wake, header.scope, Wake { header, detail, waker_tid, waker_scope, padding: 0, waker_comm });
    0
}
