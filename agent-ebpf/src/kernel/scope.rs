//! Which threads belong to which sandbox: an array by thread number, seeded by the launcher.
//!
//! Each object has programs of its own that keep it up to date when tasks are made and die.

use super::{Tracepoint, read_field};
pub use crate::map::Entry;
use crate::map::{Membership, SCOPE_CHUNK, ScopeChunk};
use aya_ebpf::{Global, macros::map, maps::Array};

/// `CLONE_THREAD`: the new task is of the same process.
pub const CLONE_THREAD: u64 = 0x10000;
/// `BPF_F_MMAPABLE`: user space stores single elements through a mapping.
const MMAPABLE: u32 = 1 << 10;

/// Sized by the loader from `kernel.pid_max`.
#[map]
static SCOPE_OF: Array<ScopeChunk> = Array::with_max_entries(1, MMAPABLE);

#[unsafe(no_mangle)]
static TASK_PID: Global<u32> = Global::new(0);

/// What is known of thread number `tid`; nothing beyond the numbers that this kernel hands out.
#[inline(always)]
pub fn entry(tid: u32) -> Option<&'static mut Entry> {
    let chunk = SCOPE_OF.get_ptr_mut(tid / SCOPE_CHUNK as u32)?;
    // SAFETY: the map gives a valid pointer. The membership is written while a task is made or dies, the slot when the task is
    // first seen or dies: never by two CPUs at once.
    let chunk = unsafe { &mut *chunk };
    Some(&mut chunk.0[tid as usize % SCOPE_CHUNK])
}

/// What thread `tid` is to sandscope.
#[inline(always)]
pub fn of(tid: u32) -> Membership {
    entry(tid).map_or(Membership::NONE, |entry| entry.membership)
}

/// Thread number of a `task_struct`.
#[inline(always)]
pub fn tid_of(task: *const u8) -> u32 {
    read_field(task, &TASK_PID).unwrap_or(0)
}

/// Thread number of the `task_struct` that is the `n`-th argument of a tracepoint.
#[inline(always)]
pub fn tid_of_argument(context: &impl Tracepoint, n: usize) -> u32 {
    context.field(context.argument(n), &TASK_PID).unwrap_or(0)
}
