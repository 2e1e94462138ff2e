//! Wake-ups of threads in scope, each with its cause.
//!
//! Programs on the interrupt tracepoints keep, per CPU, what the CPU is doing at the moment; they look nothing up. When a
//! thread in scope is woken, that context says why.

use crate::{
    ring::{current_tid, header, send},
    scope,
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, bpf_probe_read_kernel},
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use sandscope_ebpf::{
    event::{Kind, Wake, WakeCause},
    map::InterruptContext,
};

#[map]
static INTERRUPT: PerCpuArray<InterruptContext> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static HRTIMER_FUNCTION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TIMER_FUNCTION: Global<u32> = Global::new(0);

#[inline(always)]
fn of_this_cpu() -> Option<&'static mut InterruptContext> {
    // SAFETY: the map gives a valid pointer to this CPU's element; each program touches a field of its own.
    INTERRUPT.get_ptr_mut(0).map(|context| unsafe { &mut *context })
}

#[inline(always)]
fn read_function(timer: *const u8, offset: u32) -> u64 {
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    unsafe { bpf_probe_read_kernel(timer.add(offset as usize).cast()) }.unwrap_or(0)
}

#[raw_tracepoint(tracepoint = "hrtimer_expire_entry")]
pub fn hrtimer_expire_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.hrtimer = read_function(context.arg(0), HRTIMER_FUNCTION.load());
    }
    0
}

#[raw_tracepoint(tracepoint = "hrtimer_expire_exit")]
pub fn hrtimer_expire_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.hrtimer = 0;
    }
    0
}

#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn timer_expire_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.timer = read_function(context.arg(0), TIMER_FUNCTION.load());
    }
    0
}

#[raw_tracepoint(tracepoint = "timer_expire_exit")]
pub fn timer_expire_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.timer = 0;
    }
    0
}

#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub fn irq_handler_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        let irq: u32 = context.arg(0);
        cpu.irq = irq.wrapping_add(1);
    }
    0
}

#[raw_tracepoint(tracepoint = "irq_handler_exit")]
pub fn irq_handler_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.irq = 0;
    }
    0
}

#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn softirq_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        let vector: u32 = context.arg(0);
        cpu.softirq = vector.wrapping_add(1);
    }
    0
}

#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn softirq_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.softirq = 0;
    }
    0
}

/// `sched_waking`, not `sched_wakeup`: it fires in the context of the waker, also when another CPU queues the task.
#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn sched_waking(context: RawTracePointContext) -> i32 {
    let tid = scope::tid_of(context.arg(0));
    let woken = scope::of(tid);
    if !woken.is_recorded() {
        return 0;
    }
    let waker_tid = current_tid(&context);
    let (cause, detail) = cause();
    let mut header = header(Kind::Wake, tid, woken);
    header.flags = cause as u8;
    let waker_comm = bpf_get_current_comm().unwrap_or_default();
    let waker_scope = scope::of(waker_tid).scope();
    send(Kind::Wake, Wake { header, detail, waker_tid, waker_scope, padding: 0, waker_comm });
    0
}

/// The innermost thing this CPU is doing. A hardware interrupt can come inside a softirq, never the other way round, and the
/// functions of high-resolution timers run inside hardware interrupts that `irq_handler_entry` may or may not announce.
#[inline(always)]
fn cause() -> (WakeCause, u64) {
    let Some(cpu) = of_this_cpu() else {
        return (WakeCause::Task, 0);
    };
    if cpu.hrtimer != 0 {
        (WakeCause::Hrtimer, cpu.hrtimer)
    } else if cpu.irq != 0 {
        (WakeCause::Irq, u64::from(cpu.irq - 1))
    } else if cpu.timer != 0 {
        (WakeCause::Timer, cpu.timer)
    } else if cpu.softirq != 0 {
        (WakeCause::Softirq, u64::from(cpu.softirq - 1))
    } else {
        (WakeCause::Task, 0)
    }
}
