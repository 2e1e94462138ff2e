//! Follows control groups: who joins one that is in a scope is in it from then on, and who leaves it is in it no more.
//!
//! A member's children are members by descent (see [`crate::scope`]), but `docker exec`, a restarted service or a probe of
//! liveness come from elsewhere and only join. The event tells of the first thread of a process; user space finds the others.

use crate::{sched::TASK_COMM, thread, wakeup};
use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes},
    macros::{map, raw_tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use sandscope_ebpf::{
    event::COMM_BYTES,
    kernel::{
        Tracepoint, now_ns, read_field,
        scope::{self, Entry, tid_of},
    },
    map::{GROUP_BYTES, GROUPS, GroupKey, GroupName, Membership},
    offsets,
    sums::{State, Thread},
};

/// Scopes of the groups; written by user space before the program runs.
#[map]
static FOLLOWED: HashMap<GroupKey, u32> = HashMap::with_max_entries(2 * GROUPS as u32, 0);
/// The name of a group while it is compared.
#[map]
static NAME: PerCpuArray<[u8; GROUP_BYTES]> = PerCpuArray::with_max_entries(1, 0);

offsets! { CGROUP_ROOT CGROUP_ROOT_HIERARCHY_ID }

/// Places of the arguments: the group that is joined, its name, the task.
const GROUP: usize = 0;
const PATH: usize = 1;
const TASK: usize = 2;

#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn cgroup_attach_task(context: RawTracePointContext) -> i32 {
    let Some(root) = read_field::<*const u8>(context.arg(GROUP), &CGROUP_ROOT) else {
        return 0;
    };
    let hierarchy: u32 = read_field(root, &CGROUP_ROOT_HIERARCHY_ID).unwrap_or(u32::MAX);
    let Some(name) = NAME.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the map gives a valid pointer to this CPU's element; the kernel holds a lock around the event.
    let name = unsafe { &mut *name };
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    let Ok(read) = (unsafe { bpf_probe_read_kernel_str_bytes(context.arg(PATH), name) }) else {
        return 0;
    };
    let length = read.len();
    let tid = tid_of(context.arg(TASK));
    let Some(entry) = scope::entry(tid) else {
        return 0;
    };
    let own = u32::from(entry.membership.scope());
    if let Some(scope) = scope_of(name, length, hierarchy) {
        if own == 0 {
            join(&context, tid, entry, scope as u16);
        }
    } else if own != 0 && is_followed(hierarchy, own) {
        leave(&context, entry);
    }
    0
}

/// Scope of the group of this name, or of one above it.
#[inline(always)]
fn scope_of(name: &[u8; GROUP_BYTES], length: usize, hierarchy: u32) -> Option<u32> {
    let mut so_far = GroupName::ROOT;
    for at in 0..GROUP_BYTES {
        let is_over = at >= length;
        let byte = name[at];
        if is_over || byte == b'/' {
            let key = GroupKey { name: so_far.0, hierarchy, scope: 0 };
            // SAFETY: nobody changes the map while the program runs.
            if let Some(scope) = unsafe { FOLLOWED.get(key) } {
                return Some(*scope);
            }
        }
        if is_over {
            break;
        }
        so_far = so_far.and(byte);
    }
    None
}

/// Whether a scope has groups of a hierarchy.
#[inline(always)]
fn is_followed(hierarchy: u32, scope: u32) -> bool {
    let key = GroupKey { name: 0, hierarchy, scope };
    // SAFETY: nobody changes the map while the program runs.
    unsafe { FOLLOWED.get(key) }.is_some()
}

#[inline(always)]
fn join(context: &RawTracePointContext, tid: u32, entry: &mut Entry, scope: u16) {
    *entry = Entry { membership: Membership::member(scope), slot: 0 };
    // At once, and not at its next event: what it does until then is known only by that.
    let _ = thread::of(tid, entry, now_ns(), State::Unseen, || thread::tgid_of(context, TASK));
}

#[inline(always)]
fn leave(context: &RawTracePointContext, entry: &mut Entry) {
    let slot = entry.slot;
    *entry = Entry::NONE;
    if slot == 0 {
        return;
    }
    if let Some(thread) = thread::of_slot(slot) {
        close(thread, now_ns());
        let comm = context.argument::<*const u8>(TASK).wrapping_add(TASK_COMM.load() as usize);
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        thread.comm = unsafe { bpf_probe_read_kernel::<[u8; COMM_BYTES]>(comm.cast()) }.unwrap_or_default();
        wakeup::charge(thread);
    }
}

/// Ends the state that a thread is in.
#[inline(always)]
fn close(thread: &mut Thread, now: u64) {
    let spent = now.saturating_sub(thread.since_ns);
    if thread.state == State::Running as u32 {
        thread.on_cpu_ns += spent;
    } else if thread.state == State::Runnable as u32 {
        thread.runnable_ns += spent;
    } else if thread.state == State::Blocked as u32 {
        thread.blocked_ns += spent;
    }
    thread.since_ns = now;
    thread.state = State::Dead as u32;
}
