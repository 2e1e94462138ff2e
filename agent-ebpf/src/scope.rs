//! Which threads belong to which sandbox: seeded by the launcher, inherited when tasks are made, dropped when they are gone.

use crate::ring::{current_tid, header, send};
use aya_ebpf::{
    EbpfContext, Global,
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_comm, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
        generated::{bpf_get_current_task, bpf_probe_read_user},
    },
    macros::{map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use aya_log_ebpf::warn;
use core::ffi::c_void;
use sandscope_ebpf::{
    event::{ARGS_BYTES, Exec, Exit, Kind, NO_SYSCALL, PATH_BYTES, TaskNew},
    map::{Membership, SCOPE_CHUNK, ScopeChunk, Task},
};

/// `BPF_F_MMAPABLE`: user space stores single elements through a mapping.
const MMAPABLE: u32 = 1 << 10;
/// Threads in all scopes together.
const MAX_TASKS: u32 = 32_768;
const CLONE_THREAD: u64 = 0x10000;

/// Sized by the loader from `kernel.pid_max`.
#[map]
static SCOPE_OF: Array<ScopeChunk> = Array::with_max_entries(1, MMAPABLE);

#[map]
static TASKS: HashMap<u32, Task> = HashMap::with_max_entries(MAX_TASKS, 0);

/// An [`Exec`] is too large for the 512-byte stack.
#[map]
static EXEC_SCRATCH: PerCpuArray<Exec> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static TASK_PID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_MM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MM_ARG_START: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MM_ARG_END: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static BINPRM_FILENAME: Global<u32> = Global::new(0);

const NEW_TASK: Task = Task { syscall_since_ns: 0, syscall_arg: 0, syscall: NO_SYSCALL, padding: 0 };

/// What thread `tid` is to sandscope.
#[inline(always)]
pub fn of(tid: u32) -> Membership {
    match SCOPE_OF.get(tid / SCOPE_CHUNK as u32) {
        Some(chunk) => Membership(chunk.0[tid as usize % SCOPE_CHUNK]),
        None => Membership::NONE,
    }
}

#[inline(always)]
fn set(tid: u32, membership: Membership) {
    if let Some(chunk) = SCOPE_OF.get_ptr_mut(tid / SCOPE_CHUNK as u32) {
        // SAFETY: the map gives a valid pointer, and each thread number is written only while its task is made or dies.
        let chunk = unsafe { &mut *chunk };
        chunk.0[tid as usize % SCOPE_CHUNK] = membership.0;
    }
}

/// What is remembered about a thread in scope; made on first use.
#[inline(always)]
pub fn task(context: &impl EbpfContext, tid: u32) -> Option<&'static mut Task> {
    let pointer = match TASKS.get_ptr_mut(tid) {
        Some(pointer) => pointer,
        None => {
            if TASKS.insert(tid, NEW_TASK, u64::from(BPF_ANY)).is_err() {
                warn!(context, "no room for thread {}: its system calls are not recorded", tid);
                return None;
            }
            TASKS.get_ptr_mut(tid)?
        }
    };
    // SAFETY: the map gives a valid pointer; only the thread itself uses its element, so there is no second reference.
    Some(unsafe { &mut *pointer })
}

/// What is remembered about a thread in scope, if anything is.
#[inline(always)]
pub fn known_task(tid: u32) -> Option<&'static Task> {
    // SAFETY: only the thread itself writes its element, and it is the running one or is being switched out.
    unsafe { TASKS.get(tid) }
}

/// Forgets a thread that will never run again.
#[inline(always)]
pub fn forget(tid: u32) {
    set(tid, Membership::NONE);
    // A thread that made no system call has no element.
    let _ = TASKS.remove(tid);
}

/// Thread number of a `task_struct`.
#[inline(always)]
pub fn tid_of(task: *const u8) -> u32 {
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    unsafe { bpf_probe_read_kernel(task.add(TASK_PID.load() as usize).cast()) }.unwrap_or(0)
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
    set(child_tid, parent.of_child(clone_flags & CLONE_THREAD != 0));
    let header = header(Kind::TaskNew, parent_tid, parent);
    send(Kind::TaskNew, TaskNew { header, clone_flags, child_tid, tgid: context.tgid() });
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
        // A thread other than the first executed: it takes the first one's number, and its own is free again.
        forget(old_tid);
        set(tid, membership);
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
    send(Kind::Exec, *exec);
    0
}

#[inline(always)]
fn read_path(binprm: *const u8, path: &mut [u8; PATH_BYTES]) {
    path[0] = 0;
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    let name = unsafe { bpf_probe_read_kernel::<*const u8>(binprm.add(BINPRM_FILENAME.load() as usize).cast()) };
    if let Ok(name) = name {
        // SAFETY: as above. On failure the path stays empty.
        let _ = unsafe { bpf_probe_read_kernel_str_bytes(name, path) };
    }
}

/// Reads the arguments from the memory of the running task; returns how many bytes are valid.
#[inline(always)]
fn read_args(args: &mut [u8; ARGS_BYTES]) -> u32 {
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let read = |base: *const u8, offset: u32| {
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        unsafe { bpf_probe_read_kernel::<u64>(base.add(offset as usize).cast()) }.unwrap_or(0)
    };
    let mm = read(task, TASK_MM.load()) as *const u8;
    let start = read(mm, MM_ARG_START.load());
    let end = read(mm, MM_ARG_END.load());
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
        send(Kind::Exit, Exit { header, tgid: context.tgid(), padding: 0 });
    }
    0
}
