//! System calls of threads in scope: what the kernel does on their behalf, and what they wait in.

use crate::{file, memory, object, ring::send, scope::task};
use aya_ebpf::{
    Global,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sandscope_ebpf::{
    event::{Header, Kind, NO_SYSCALL, Syscall},
    kernel::{Tracepoint, current_tid, interrupt, now_ns, scope},
    map::Task,
};

/// Number of `ioctl` on this architecture.
#[unsafe(no_mangle)]
static IOCTL_NUMBER: Global<u32> = Global::new(0);
/// Where `struct pt_regs` keeps the first two arguments of a system call.
#[unsafe(no_mangle)]
static REGS_ARG1: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REGS_ARG2: Global<u32> = Global::new(0);

/// What [`Syscall::arg`] holds of the system call that a thread is in.
#[inline(always)]
pub fn argument(task: &Task) -> u64 {
    if task.syscall as u32 == IOCTL_NUMBER.load() { task.syscall_args[1] } else { 0 }
}

#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(context: BtfTracePointContext) -> i32 {
    enter(&context)
}

/// Where the kernel does not take the other.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter_raw(context: RawTracePointContext) -> i32 {
    enter(&context)
}

#[inline(always)]
fn enter(context: &impl Tracepoint) -> i32 {
    let tid = current_tid(context);
    let Some(entry) = scope::entry(tid) else {
        return 0;
    };
    let membership = entry.membership;
    if !membership.is_recorded() {
        return 0;
    }
    let at_ns = now_ns();
    memory::stretch_ends(at_ns, tid, membership);
    let Some(task) = task(context, tid, entry) else {
        return 0;
    };
    let number: i64 = context.argument(1);
    task.syscall = number as i32;
    let registers: *const u8 = context.argument(0);
    task.syscall_args =
        [context.field(registers, &REGS_ARG1).unwrap_or(0), context.field(registers, &REGS_ARG2).unwrap_or(0)];
    file::begins(task, number as u32);
    task.syscall_since_ns = at_ns;
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let Some(entry) = scope::entry(tid) else {
        return 0;
    };
    let membership = entry.membership;
    if !membership.is_recorded() {
        return 0;
    }
    let Some(task) = task(&context, tid, entry) else {
        return 0;
    };
    // Interrupts that came meanwhile interrupted the call, not the thread's own code.
    interrupt::take_spent();
    // A thread that came into scope inside a call (a new task returns from `clone`) has no beginning to report.
    if task.syscall != NO_SYSCALL {
        let flags = file::ends(task, membership, context.arg(1));
        let at_ns = now_ns();
        object::tell(task, at_ns, tid, membership);
        send(
            Kind::Syscall,
            membership.scope(),
            Syscall {
                header: Header { at_ns, tid, scope: membership.scope(), kind: Kind::Syscall as u8, flags },
                since_ns: task.syscall_since_ns,
                arg: argument(task),
                result: context.arg(1),
                number: task.syscall,
                padding: 0,
            },
        );
        task.syscall = NO_SYSCALL;
        task.syscall_since_ns = 0;
    }
    0
}
