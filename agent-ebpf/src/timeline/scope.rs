//! Keeps the scopes up to date: inherited when tasks are made, dropped when they are gone. What is remembered per thread.

use crate::ring::{header, send};
use aya_ebpf::{
    EbpfContext, Global,
    helpers::{
        bpf_get_current_comm, bpf_probe_read_kernel_str_bytes,
        generated::{bpf_get_current_task, bpf_probe_read_user},
    },
    macros::{map, raw_tracepoint},
    maps::{Array, PerCpuArray},
    programs::RawTracePointContext,
};
use aya_log_ebpf::warn;
use core::ffi::c_void;
use sandscope_ebpf::{
    event::{ARGS_BYTES, Exec, Exit, Kind, NO_SYSCALL, PATH_BYTES, TaskNew},
    kernel::{
        current_tid, read_field,
        scope::{CLONE_THREAD, Entry, entry, of, tid_of},
        slot,
    },
    map::{FileUse, Task},
};

/// Sized by the loader, as the slots are.
#[map]
static TASKS: Array<Task> = Array::with_max_entries(1, 0);

/// An [`Exec`] is too large for the 512-byte stack.
#[map]
static EXEC_SCRATCH: PerCpuArray<Exec> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static TASK_MM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MM_ARG_START: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MM_ARG_END: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static BINPRM_FILENAME: Global<u32> = Global::new(0);

const NEW_TASK: Task = Task {
    syscall_since_ns: 0,
    waits_since_ns: 0,
    syscall_args: [0; 2],
    syscall: NO_SYSCALL,
    file_use: FileUse::None as u32,
    inode: 0,
    device: 0,
    contends: 0,
};

/// What is remembered about a thread in scope; made on first use.
#[inline(always)]
pub fn task(context: &impl EbpfContext, tid: u32, entry: &mut Entry) -> Option<&'static mut Task> {
    if entry.slot == 0 {
        let Some(slot) = slot::take() else {
            warn!(context, "no room for thread {}: its system calls are not recorded", tid);
            return None;
        };
        entry.slot = slot;
        *task_at(slot)? = NEW_TASK;
    }
    task_at(entry.slot)
}

/// What is remembered about a thread in scope, if anything is.
#[inline(always)]
pub fn known_task(entry: &Entry) -> Option<&'static mut Task> {
    if entry.slot == 0 { None } else { task_at(entry.slot) }
}

#[inline(always)]
fn task_at(slot: u16) -> Option<&'static mut Task> {
    // SAFETY: the map gives a valid pointer; only the thread itself uses its element, while it is the running one or is being
    // switched out, and who wakes it, which the kernel lets only one do at a time. So there is no second reference.
    TASKS.get_ptr_mut(u32::from(slot)).map(|task| unsafe { &mut *task })
}

/// Forgets a thread that will never run again.
#[inline(always)]
pub fn forget(entry: &mut Entry) {
    if entry.slot != 0 {
        slot::give_back(entry.slot);
    }
    *entry = Entry::NONE;
}

#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn task_newtask(context: RawTracePointContext) -> i32 {
    let parent_tid = current_tid(&context);
    let parent = of(parent_tid);
    if !parent.is_recorded() {
        return 0;
    }
    let child_tid = tid_of(context.arg(0));
    let clone_flags: u64 = context.arg(1);
    if let Some(child) = entry(child_tid) {
        child.membership = parent.of_child(clone_flags & CLONE_THREAD != 0);
        // A thread that had the number before may have left what was remembered about it.
        if let Some(task) = known_task(child) {
            *task = NEW_TASK;
        }
    }
    let header = header(Kind::TaskNew, parent_tid, parent);
    send(Kind::TaskNew, header.scope, TaskNew { header, clone_flags, child_tid, tgid: context.tgid() });
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let old_tid: u32 = context.arg(1);
    let membership = of(old_tid);
    if !membership.is_recorded() {
        return 0;
    }
    if old_tid != tid {
        // A thread other than the first executed: it takes the first one's number, and its own is free again. One look-up after
        // the other: of two at once the compiler adds to a pointer before it has looked whether there is one, which the
        // verifier refuses.
        if let Some(new) = entry(tid) {
            new.membership = membership;
        }
        if let Some(old) = entry(old_tid) {
            forget(old);
        }
    }
    let Some(exec) = EXEC_SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the map gives a valid pointer to this CPU's element, and this program is its only user; it does not nest.
    let exec = unsafe { &mut *exec };
    exec.header = header(Kind::Exec, tid, membership);
    exec.old_tid = old_tid;
    exec.comm = bpf_get_current_comm().unwrap_or_default();
    read_path(context.arg(2), &mut exec.path);
    exec.args_bytes = read_args(&mut exec.args);
    send(Kind::Exec, exec.header.scope, *exec);
    0
}

#[inline(always)]
fn read_path(binprm: *const u8, path: &mut [u8; PATH_BYTES]) {
    path[0] = 0;
    if let Some(name) = read_field::<*const u8>(binprm, &BINPRM_FILENAME) {
        // SAFETY: the helper reads kernel memory at any address and fails where there is none; then the path stays empty.
        let _ = unsafe { bpf_probe_read_kernel_str_bytes(name, path) };
    }
}

/// Reads the arguments from the memory of the running task; returns how many bytes are valid.
#[inline(always)]
fn read_args(args: &mut [u8; ARGS_BYTES]) -> u32 {
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let mm = read_field::<u64>(task, &TASK_MM).unwrap_or(0) as *const u8;
    let start = read_field::<u64>(mm, &MM_ARG_START).unwrap_or(0);
    let end = read_field::<u64>(mm, &MM_ARG_END).unwrap_or(0);
    if start == 0 || end <= start {
        return 0;
    }
    // Exactly the arguments: behind them the stack may end. The mask repeats for the verifier what the minimum says.
    let length = (end - start).min(ARGS_BYTES as u64) as u32 & (2 * ARGS_BYTES as u32 - 1);
    // SAFETY: `args` has room for `length` bytes; the helper fails where no user memory is mapped.
    let failed = unsafe { bpf_probe_read_user(args.as_mut_ptr().cast(), length, start as *const c_void) };
    if failed == 0 { length } else { 0 }
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let membership = of(tid);
    if membership.is_recorded() {
        let header = header(Kind::Exit, tid, membership);
        send(Kind::Exit, header.scope, Exit { header, tgid: context.tgid(), padding: 0 });
    }
    0
}
