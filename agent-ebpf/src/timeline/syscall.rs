//! System calls of threads in scope: what the kernel does on their behalf, and what they wait in.

use crate::{file, ring::send, scope::task};
use aya_ebpf::{Global, macros::raw_tracepoint, programs::RawTracePointContext};
use sandscope_ebpf::{
    event::{Header, Kind, NO_SYSCALL, Syscall},
    kernel::{current_tid, now_ns, read_field, scope},
};

/// Number of `ioctl` on this architecture.
#[unsafe(no_mangle)]
static IOCTL_NUMBER: Global<u32> = Global::new(0);
/// Where `struct pt_regs` keeps the second argument of a system call.
#[unsafe(no_mangle)]
static REGS_ARG2: Global<u32> = Global::new(0);

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let Some(entry) = scope::entry(tid) else {
        return 0;
    };
    if !entry.membership.is_recorded() {
        return 0;
    }
    let Some(task) = task(&context, tid, entry) else {
        return 0;
    };
    let number: i64 = context.arg(1);
    task.syscall = number as i32;
    task.syscall_arg = 0;
    if number as u32 == IOCTL_NUMBER.load() {
        task.syscall_arg = read_field(context.arg(0), &REGS_ARG2).unwrap_or(0);
    }
    file::begins(task, number as u32, context.arg(0));
    task.syscall_since_ns = now_ns();
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
    // A thread that came into scope inside a call (a new task returns from `clone`) has no beginning to report.
    if task.syscall != NO_SYSCALL {
        let flags = file::ends(task, membership, context.arg(1));
        send(
            Kind::Syscall,
            Syscall {
                header: Header { at_ns: now_ns(), tid, scope: membership.scope(), kind: Kind::Syscall as u8, flags },
                since_ns: task.syscall_since_ns,
                arg: task.syscall_arg,
                result: context.arg(1),
                number: task.syscall,
                padding: 0,
            },
        );
        task.syscall = NO_SYSCALL;
        task.syscall_since_ns = 0;
        task.syscall_arg = 0;
    }
    0
}
