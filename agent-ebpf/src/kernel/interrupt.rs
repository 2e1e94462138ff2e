//! What a CPU is doing on behalf of an interrupt, so that a wake-up can be charged to its cause.
//!
//! The programs keep it per CPU; they look nothing up.

use super::{now_ns, read_field};
use crate::{event::WakeCause, map::InterruptContext};
use aya_ebpf::{
    Global,
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};

#[map]
static INTERRUPT: PerCpuArray<InterruptContext> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static HRTIMER_FUNCTION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TIMER_FUNCTION: Global<u32> = Global::new(0);
/// Whether to keep when interrupts and timers began: 1 or 0.
#[unsafe(no_mangle)]
static TIME_INTERRUPTS: Global<u32> = Global::new(0);
/// Whether to sum the time in them: 1 or 0.
#[unsafe(no_mangle)]
static SUM_INTERRUPTS: Global<u32> = Global::new(0);

#[inline(always)]
fn of_this_cpu() -> Option<&'static mut InterruptContext> {
    // SAFETY: the map gives a valid pointer to this CPU's element; each program touches a field of its own.
    INTERRUPT.get_ptr_mut(0).map(|context| unsafe { &mut *context })
}

/// Notes that something begins, before it is noted what. The verifier drops this where the loader has not asked for it.
#[inline(always)]
fn begins(cpu: &mut InterruptContext, cause: WakeCause) {
    if TIME_INTERRUPTS.load() != 0 {
        cpu.since_ns[cause as usize - 1] = now_ns();
    }
    if SUM_INTERRUPTS.load() != 0 && !is_in_any(cpu) {
        cpu.outermost_since_ns = now_ns();
    }
}

/// Notes that something has ended, after it is noted that it has.
#[inline(always)]
fn ended(cpu: &mut InterruptContext) {
    if SUM_INTERRUPTS.load() != 0 && !is_in_any(cpu) {
        cpu.spent_ns += now_ns().saturating_sub(cpu.outermost_since_ns);
    }
}

#[inline(always)]
fn is_in_any(cpu: &InterruptContext) -> bool {
    cpu.hrtimer | cpu.timer | u64::from(cpu.irq) | u64::from(cpu.softirq) != 0
}

/// Time in interrupts on this CPU since this was last called, without those that are not over.
#[inline(always)]
pub fn take_spent() -> u64 {
    let Some(cpu) = of_this_cpu() else { return 0 };
    let spent_ns = cpu.spent_ns;
    cpu.spent_ns = 0;
    spent_ns
}

/// How long what wakes somebody at this moment has been running; 0 for tasks.
#[inline(always)]
pub fn running_ns(cause: WakeCause, now_ns: u64) -> u64 {
    match (cause, of_this_cpu()) {
        (WakeCause::Task, _) | (_, None) => 0,
        (cause, Some(cpu)) => now_ns.saturating_sub(cpu.since_ns[cause as usize - 1]),
    }
}

/// The function of a high-resolution timer begins.
#[raw_tracepoint(tracepoint = "hrtimer_expire_entry")]
fn hrtimer_expire_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        begins(cpu, WakeCause::Hrtimer);
        cpu.hrtimer = read_field(context.arg(0), &HRTIMER_FUNCTION).unwrap_or(0);
    }
    0
}

/// It has ended.
#[raw_tracepoint(tracepoint = "hrtimer_expire_exit")]
fn hrtimer_expire_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.hrtimer = 0;
        ended(cpu);
    }
    0
}

/// The function of a timer-wheel timer begins.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
fn timer_expire_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        begins(cpu, WakeCause::Timer);
        cpu.timer = read_field(context.arg(0), &TIMER_FUNCTION).unwrap_or(0);
    }
    0
}

/// It has ended.
#[raw_tracepoint(tracepoint = "timer_expire_exit")]
fn timer_expire_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.timer = 0;
        ended(cpu);
    }
    0
}

/// The handler of a hardware interrupt begins.
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
fn irq_handler_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        begins(cpu, WakeCause::Irq);
        let irq: u32 = context.arg(0);
        cpu.irq = irq.wrapping_add(1);
    }
    0
}

/// It has ended.
#[raw_tracepoint(tracepoint = "irq_handler_exit")]
fn irq_handler_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.irq = 0;
        ended(cpu);
    }
    0
}

/// A softirq begins.
#[raw_tracepoint(tracepoint = "softirq_entry")]
fn softirq_entry(context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        begins(cpu, WakeCause::Softirq);
        let vector: u32 = context.arg(0);
        cpu.softirq = vector.wrapping_add(1);
    }
    0
}

/// It has ended.
#[raw_tracepoint(tracepoint = "softirq_exit")]
fn softirq_exit(_context: RawTracePointContext) -> i32 {
    if let Some(cpu) = of_this_cpu() {
        cpu.softirq = 0;
        ended(cpu);
    }
    0
}

/// The innermost thing this CPU is doing. A hardware interrupt can come inside a softirq, never the other way round, and the
/// functions of high-resolution timers run inside hardware interrupts that `irq_handler_entry` may or may not announce.
#[inline(always)]
pub fn cause() -> (WakeCause, u64) {
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
