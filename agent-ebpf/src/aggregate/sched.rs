//! Who has which CPU, who waits for one, and who takes it from whom.

use crate::{shortage, thread, wakeup};
use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_comm, bpf_probe_read_kernel, generated::bpf_get_smp_processor_id},
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::HashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::COMM_BYTES,
    kernel::{
        Tracepoint, now_ns,
        scope::{self, Entry, tid_of_argument},
    },
    sums::{PreemptionKey, Preemptions, State, Thread},
};

/// Pairs of threads of which one took the CPU from the other.
#[map]
static PREEMPTIONS: HashMap<PreemptionKey, Preemptions> = HashMap::with_max_entries(16_384, 0);

#[unsafe(no_mangle)]
static TASK_STATE: Global<u32> = Global::new(0);
/// `se.sum_exec_runtime` in `task_struct`.
#[unsafe(no_mangle)]
static TASK_EXEC: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static TASK_COMM: Global<u32> = Global::new(0);

/// `TASK_DEAD`: the task is being switched out for the last time. Part of the scheduler's contract since 2.6.
const TASK_DEAD: u32 = 0x80;
/// `TASK_WAKING`: somebody wakes it while it is on its way out.
const TASK_WAKING: u32 = 0x200;

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
    let (prev_tid, next_tid) = (tid_of_argument(context, PREV), tid_of_argument(context, NEXT));
    let (Some(prev), Some(next)) = (scope::entry(prev_tid), scope::entry(next_tid)) else {
        return 0;
    };
    if prev.membership.0 | next.membership.0 == 0 {
        return 0;
    }
    let now = now_ns();
    if prev.membership.is_recorded() {
        leave(context, prev_tid, prev, now, next_tid);
    }
    if next.membership.is_recorded() {
        let tgid = || thread::tgid_of(context, NEXT);
        if let Some((_, thread)) = thread::of(next_tid, next, now, State::Running, tgid) {
            arrive(thread, now);
        }
    }
    0
}

#[inline(always)]
fn leave(context: &impl Tracepoint, tid: u32, entry: &mut Entry, now: u64, next_tid: u32) {
    let state: u32 = context.field(context.argument(PREV), &TASK_STATE).unwrap_or(0);
    let preempted: u8 = context.argument(PREEMPTED);
    let is_dead = state & TASK_DEAD != 0;
    let tgid = || thread::tgid_of(context, PREV);
    if let Some((slot, thread)) = thread::of(tid, entry, now, State::Running, tgid) {
        let exec_ns: u64 = context.field(context.argument(PREV), &TASK_EXEC).unwrap_or(0);
        let open_ns = now.saturating_sub(thread.since_ns);
        // Had it got the CPU since it was looked at, that would have been seen.
        if thread.state == State::Running as u32 || thread.state == State::Unseen as u32 {
            thread.on_cpu_ns += open_ns;
        } else {
            arrived_untold(thread, open_ns, exec_ns);
        }
        thread.exec_ns = exec_ns;
        thread.switches += 1;
        thread.since_ns = now;
        // A task that is preempted on its way to sleep stays runnable, whatever its state says.
        if is_dead {
            thread.state = State::Dead as u32;
            thread.comm = bpf_get_current_comm().unwrap_or_default();
            wakeup::charge(thread);
        } else if preempted & 1 == 1 || state == 0 {
            thread.state = State::Runnable as u32;
            thread.preemptions += 1;
            preempted_by(slot, context.argument(NEXT), next_tid);
        } else {
            thread.state = if state & TASK_WAKING != 0 { State::Runnable } else { State::Blocked } as u32;
            thread.sleeps += 1;
            wakeup::charge(thread);
        }
    }
    if is_dead {
        *entry = Entry::NONE;
    }
}

/// It leaves a CPU, and so it has had one. Some kernels don't tell of every switch: what it ran since it left one the last time is known
/// to them all the same, and the rest of the time it waited.
#[inline(always)]
fn arrived_untold(thread: &mut Thread, open_ns: u64, exec_ns: u64) {
    let ran_ns = exec_ns.saturating_sub(thread.exec_ns).min(open_ns);
    thread.on_cpu_ns += ran_ns;
    if thread.state == State::Runnable as u32 {
        thread.runnable_ns += open_ns - ran_ns;
    } else if thread.state == State::Blocked as u32 {
        thread.blocked_ns += open_ns - ran_ns;
    }
}

#[inline(always)]
fn arrive(thread: &mut Thread, now: u64) {
    let waited = now.saturating_sub(thread.since_ns);
    if thread.state == State::Runnable as u32 {
        thread.runnable_ns += waited;
        thread.latency.record(waited);
    } else if thread.state == State::Blocked as u32 {
        // Its wake-up was before it was looked at.
        thread.blocked_ns += waited;
    } else if thread.state == State::Unseen as u32 {
        // It waited already when it was looked at; since when is not known, so that it is no latency.
        thread.runnable_ns += waited;
    }
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    if thread.cpu != cpu {
        if thread.cpu != u32::MAX {
            thread.migrations += 1;
        }
        thread.cpu = cpu;
    }
    thread.state = State::Running as u32;
    thread.since_ns = now;
}

#[inline(always)]
fn preempted_by(slot: u16, next_task: *const u8, by_tid: u32) {
    let key = PreemptionKey { slot: u32::from(slot), by_tid };
    if let Some(preemptions) = PREEMPTIONS.get_ptr_mut(key) {
        // SAFETY: the map gives a valid pointer; only the CPU that the thread leaves writes to its elements.
        unsafe { (*preemptions).count += 1 };
        return;
    }
    let comm = next_task.wrapping_add(TASK_COMM.load() as usize);
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    let by_comm = unsafe { bpf_probe_read_kernel::<[u8; COMM_BYTES]>(comm.cast()) }.unwrap_or_default();
    if PREEMPTIONS.insert(key, Preemptions { count: 1, by_comm }, u64::from(BPF_NOEXIST)).is_err() {
        shortage::note(|shortages| shortages.preemptions += 1);
    }
}
