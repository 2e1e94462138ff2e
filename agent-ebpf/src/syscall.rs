//! System calls of threads in scope: what the kernel does on their behalf, and what they wait in.

use crate::{
    ring::{current_tid, now_ns, send},
    scope,
};
use aya_ebpf::{Global, helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use sandscope_ebpf::event::{Header, Kind, NO_SYSCALL, Syscall};

/// Number of `ioctl` on this architecture.
#[unsafe(no_mangle)]
static IOCTL_NUMBER: Global<u32> = Global::new(0);
/// Where `struct pt_regs` keeps the second argument of a system call.
#[unsafe(no_mangle)]
static REGS_ARG2: Global<u32> = Global::new(0);

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    if !scope::of(tid).is_recorded() {
        return 0;
    }
    let Some(task) = scope::task(&context, tid) else {
        return 0;
    };
    let number: i64 = context.arg(1);
    task.syscall = number as i32;
    task.syscall_arg = 0;
    if number as u32 == IOCTL_NUMBER.load() {
        let regs: *const u8 = context.arg(0);
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        task.syscall_arg = unsafe { bpf_probe_read_kernel(regs.add(REGS_ARG2.load() as usize).cast()) }.unwrap_or(0);
    }
    task.syscall_since_ns = now_ns();
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let membership = scope::of(tid);
    if !membership.is_recorded() {
        return 0;
    }
    let Some(task) = scope::task(&context, tid) else {
        return 0;
    };
    // A thread that came into scope inside a call (a new task returns from `clone`) has no beginning to report.
    if task.syscall != NO_SYSCALL {
        send(
            Kind::Syscall,
            Syscall {
                header: Header { at_ns: now_ns(), tid, scope: membership.scope(), kind: Kind::Syscall as u8, flags: 0 },
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
