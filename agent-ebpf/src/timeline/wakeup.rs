//! Wake-ups of threads in scope, each with its cause.

use crate::{
    ring::{fill, header, send},
    scope::known_task,
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, generated::bpf_get_task_stack},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{Header, Kind, STACK_FRAMES, WaitStack, Wake},
    kernel::{Tracepoint, current_tid, interrupt, now_ns, scope},
    map::Membership,
};

/// Waits that are shorter than this are not asked where they were; 0: none is.
#[unsafe(no_mangle)]
static STACK_LEAST_NS: Global<u32> = Global::new(0);

/// `sched_waking`, not `sched_wakeup`: it fires in the context of the waker, also when another CPU queues the task.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(context: BtfTracePointContext) -> i32 {
    let Some((tid, woken)) = woken(&context) else { return 0 };
    tell_stack(&context, tid, woken);
    tell(&context, tid, woken)
}

/// Where the kernel does not take the other: there a task is a number, and its stack can't be asked for.
#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn sched_waking_raw(context: RawTracePointContext) -> i32 {
    woken(&context).map_or(0, |(tid, woken)| tell(&context, tid, woken))
}

/// The woken thread, if it is of interest.
#[inline(always)]
fn woken(context: &impl Tracepoint) -> Option<(u32, Membership)> {
    let tid = scope::tid_of_argument(context, 0);
    Some((tid, scope::of(tid))).filter(|(_, woken)| woken.is_recorded())
}

#[inline(always)]
fn tell(context: &impl Tracepoint, tid: u32, woken: Membership) -> i32 {
    let waker_tid = current_tid(context);
    let (cause, detail) = interrupt::cause();
    let mut header = header(Kind::Wake, tid, woken);
    header.flags = cause as u8;
    let waker_comm = bpf_get_current_comm().unwrap_or_default();
    let waker_scope = scope::of(waker_tid).scope();
    send(Kind::Wake, header.scope, Wake { header, detail, waker_tid, waker_scope, padding: 0, waker_comm });
    0
}

/// Where the woken task has waited. It is asked for now, not when the wait began: then nobody knew how long it would be.
#[inline(always)]
fn tell_stack(context: &BtfTracePointContext, tid: u32, woken: Membership) {
    let Some(task) = scope::entry(tid).and_then(|entry| known_task(entry)) else { return };
    let (since_ns, least_ns) = (task.waits_since_ns, u64::from(STACK_LEAST_NS.load()));
    if since_ns == 0 || least_ns == 0 {
        return;
    }
    task.waits_since_ns = 0;
    let at_ns = now_ns();
    if at_ns.saturating_sub(since_ns) < least_ns {
        return;
    }
    let scope = woken.scope();
    let header = Header { at_ns, tid, scope, kind: Kind::WaitStack as u8, flags: task.contends as u8 };
    fill(Kind::WaitStack, scope, |record| {
        let record = record.write(WaitStack { header, frames: [0; STACK_FRAMES] });
        let frames = core::ptr::from_mut(&mut record.frames).cast();
        // SAFETY: the argument is the task that the kernel is about to wake, and there is room for as many bytes as are said.
        unsafe { bpf_get_task_stack(context.arg(0), frames, size_of_val(&record.frames) as u32, 0) > 0 }
    });
}
