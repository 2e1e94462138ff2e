//! Wake-ups of threads in scope, by their cause, with the sleep before them and the CPU time after them.

use crate::{shortage, thread};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_get_current_comm,
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::HashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{COMM_BYTES, WakeCause},
    kernel::{Tracepoint, current_tid, interrupt, now_ns, scope},
    sums::{State, Thread, WakeKey, Wakes},
};

/// Pairs of a thread and a cause.
#[map]
static WAKES: HashMap<WakeKey, Wakes> = HashMap::with_max_entries(32_768, 0);

/// `sched_waking`, not `sched_wakeup`: it fires in the context of the waker, also when another CPU queues the task. The kernel
/// holds the lock of the woken task meanwhile.
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
    let Some(entry) = scope::entry(tid) else {
        return 0;
    };
    if !entry.membership.is_recorded() {
        return 0;
    }
    let now = now_ns();
    let tgid = || thread::tgid_of(context, 0);
    let Some((slot, thread)) = thread::of(tid, entry, now, State::Blocked, tgid) else {
        return 0;
    };
    let (cause, detail) = interrupt::cause();
    let waker_tid = if cause == WakeCause::Task { current_tid(context) } else { 0 };
    let key = WakeKey { detail, waker_tid, slot, cause: cause as u16 };
    thread.wakeups += 1;
    thread.causes_ns += interrupt::running_ns(cause, now);
    // A thread may be woken before it has slept; then the wake-up only keeps it from sleeping.
    let mut slept_ns = 0;
    if thread.state == State::Blocked as u32 || thread.state == State::Unseen as u32 {
        slept_ns = now.saturating_sub(thread.since_ns);
        thread.blocked_ns += slept_ns;
        thread.state = State::Runnable as u32;
        thread.since_ns = now;
        thread.is_charged = 1;
        thread.woken_by = key;
        thread.on_cpu_at_wake_ns = thread.on_cpu_ns;
    }
    add(key, slept_ns);
    0
}

#[inline(always)]
fn add(key: WakeKey, slept_ns: u64) {
    if let Some(wakes) = WAKES.get_ptr_mut(key) {
        // SAFETY: the map gives a valid pointer; these fields are written under the lock of the woken task.
        let wakes = unsafe { &mut *wakes };
        wakes.count += 1;
        wakes.slept_ns += slept_ns;
        return;
    }
    let mut wakes =
        Wakes { count: 1, slept_ns, on_cpu_after_ns: 0, waker_scope: 0, padding: [0; 3], waker_comm: [0; COMM_BYTES] };
    if key.cause == WakeCause::Task as u16 {
        wakes.waker_scope = scope::of(key.waker_tid).scope();
        wakes.waker_comm = bpf_get_current_comm().unwrap_or_default();
    }
    if WAKES.insert(key, wakes, u64::from(BPF_NOEXIST)).is_err() {
        shortage::note(|shortages| shortages.wakes += 1);
    }
}

/// Charges what a thread that goes to sleep has used of its CPU to what woke it.
#[inline(always)]
pub fn charge(thread: &mut Thread) {
    if thread.is_charged == 0 {
        return;
    }
    thread.is_charged = 0;
    if let Some(wakes) = WAKES.get_ptr_mut(thread.woken_by) {
        // SAFETY: the map gives a valid pointer; only the CPU that the thread leaves writes this field.
        unsafe { (*wakes).on_cpu_after_ns += thread.on_cpu_ns - thread.on_cpu_at_wake_ns };
    }
}
