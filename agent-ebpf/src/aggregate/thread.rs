//! The elements of the threads in scope.

use crate::shortage;
use aya_ebpf::{Global, macros::map, maps::Array};
use sandscope_ebpf::{
    kernel::{Tracepoint, scope::Entry, slot},
    sums::{State, Thread},
};

/// Sized by the loader, as the slots are.
#[map]
static THREADS: Array<Thread> = Array::with_max_entries(1, slot::MMAPABLE);

#[unsafe(no_mangle)]
static TASK_TGID: Global<u32> = Global::new(0);

/// The element of a slot.
#[inline(always)]
pub fn of_slot(slot: u16) -> Option<&'static mut Thread> {
    // SAFETY: the map gives a valid pointer. Who writes when is told in `sandscope_ebpf::sums`.
    THREADS.get_ptr_mut(u32::from(slot)).map(|thread| unsafe { &mut *thread })
}

/// The element of a thread in scope, made on first use; `tgid` is asked for only then. With its slot.
#[inline(always)]
pub fn of(
    tid: u32,
    entry: &mut Entry,
    now_ns: u64,
    state: State,
    tgid: impl FnOnce() -> u32,
) -> Option<(u16, &'static mut Thread)> {
    if entry.slot == 0 {
        let Some(slot) = slot::take() else {
            shortage::note(|shortages| shortages.threads += 1);
            return None;
        };
        let thread = of_slot(slot)?;
        thread.tid = tid;
        thread.tgid = tgid();
        thread.membership = entry.membership.0;
        thread.cpu = u32::MAX;
        thread.state = state as u32;
        thread.since_ns = now_ns;
        entry.slot = slot;
    }
    Some((entry.slot, of_slot(entry.slot)?))
}

/// Process of the `task_struct` that is the `n`-th argument.
#[inline(always)]
pub fn tgid_of(context: &impl Tracepoint, n: usize) -> u32 {
    context.field(context.argument(n), &TASK_TGID).unwrap_or(0)
}
