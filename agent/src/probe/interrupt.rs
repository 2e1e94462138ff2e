//! What each CPU does on behalf of an interrupt, so that wake-ups can be charged to their cause. Part of every mode.

use super::{Definition, Event::Raw, Hook};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use bytemuck::Zeroable;
use sandscope_ebpf::map::InterruptContext;

pub(super) const PROBE: Definition = Definition {
    name: "interrupt",
    required: true,
    hooks: |_| {
        // Exits before entries, and detached the other way round: an entry that is seen is always followed by its exit.
        &[
            Hook { program: "hrtimer_expire_exit", event: Raw("hrtimer_expire_exit") },
            Hook { program: "timer_expire_exit", event: Raw("timer_expire_exit") },
            Hook { program: "irq_handler_exit", event: Raw("irq_handler_exit") },
            Hook { program: "softirq_exit", event: Raw("softirq_exit") },
            Hook { program: "hrtimer_expire_entry", event: Raw("hrtimer_expire_entry") },
            Hook { program: "timer_expire_entry", event: Raw("timer_expire_entry") },
            Hook { program: "irq_handler_entry", event: Raw("irq_handler_entry") },
            Hook { program: "softirq_entry", event: Raw("softirq_entry") },
        ]
    },
    globals: |kernel| {
        Ok(vec![
            ("HRTIMER_FUNCTION", kernel.types.offset("hrtimer", "function")?),
            ("TIMER_FUNCTION", kernel.types.offset("timer_list", "function")?),
        ])
    },
};

/// Forgets what the CPUs were doing when the programs were detached the last time, in case one was inside an interrupt.
pub(super) fn forget(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("INTERRUPT").context("the BPF object has no map INTERRUPT")?;
    let mut interrupts: PerCpuArray<_, InterruptContext> = PerCpuArray::try_from(map)?;
    let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("can't count the CPUs: {what}: {error}"))?;
    interrupts.set(0, PerCpuValues::try_from(vec![InterruptContext::zeroed(); cpus])?, 0)?;
    Ok(())
}
