//! What interrupts the own code of threads in scope: page faults and interrupts.

use super::{Probes, Record};
use crate::{
    host::clock::monotonic_ns,
    probe::{
        Definition,
        Event::{Raw, Software},
        Hook,
    },
};
use anyhow::Result;
use aya::programs::perf_event::SoftwareEvent;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use sandscope_ebpf::map::Membership;

/// Only some architectures (x86, RISC-V) have it.
const TRACEPOINT: &str = "page_fault_user";

/// Of so many faults on a CPU one is timed: that costs some 0.6 µs, as much as a simple fault itself.
const TIMED_OF: u64 = 16;

pub(super) const TIMED: Hook =
    Hook { program: "minor_fault_event", event: Software(SoftwareEvent::PageFaultsMin, TIMED_OF) };

pub(super) const PROBE: Definition = Definition {
    name: "memory",
    required: false,
    hooks: |kernel| {
        if kernel.tracefs.has("exceptions", TRACEPOINT) {
            &[TIMED, Hook { program: "page_fault_user", event: Raw(TRACEPOINT) }]
        } else {
            &[TIMED, Hook { program: "page_fault_event", event: Software(SoftwareEvent::PageFaults, 1) }]
        }
    },
    globals: |_| Ok(vec![("SUM_INTERRUPTS", 1)]),
};

/// Pages that are touched to see what the probes miss of a fault, and how often that is done.
const PAGES: usize = 512;
const ROUNDS: usize = 5;
/// A scope that no instance has.
const SCOPE: u16 = Membership::MAX_SCOPE;

/// Nanoseconds of a page fault that lie outside of what is timed: into the kernel and back, and the probes themselves. Attached probes
/// see this thread touch fresh memory, whose own clock tells the rest. 0 where faults are not timed.
///
/// # Errors
/// When there is no memory, or the kernel does not give the records.
pub(super) fn untimed_ns(probes: &mut Probes) -> Result<u64> {
    let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        probes.mark(tid, Membership::member(SCOPE));
        let touched = touch();
        probes.mark(tid, Membership::NONE);
        let per_page_ns = touched? / PAGES as u64;
        let (mut timed, mut timed_ns) = (0, 0);
        for record in probes.take()?.records {
            if let Record::Traps(traps) = record
                && traps.header.tid == tid
            {
                timed += u64::from(traps.timed);
                timed_ns += traps.timed_ns;
            }
        }
        rounds.extend(timed_ns.checked_div(timed).map(|mean_ns| (per_page_ns, per_page_ns.saturating_sub(mean_ns))));
    }
    // The fastest round was not interrupted.
    Ok(rounds.into_iter().min().map_or(0, |(_, untimed_ns)| untimed_ns))
}

/// How long it takes to touch pages of fresh memory.
fn touch() -> Result<u64> {
    let length = PAGES * rustix::param::page_size();
    // SAFETY: a new mapping at an address that the kernel chooses, removed below.
    let memory =
        unsafe { mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
    // A huge page would be one fault for all. Where the kernel has none, there is nothing to advise.
    // SAFETY: the range is the mapping, and this advice changes no content.
    let _ = unsafe { madvise(memory, length, Advice::LinuxNoHugepage) };
    let start_ns = monotonic_ns();
    for page in 0..PAGES {
        // SAFETY: inside of the mapping.
        let address = unsafe { memory.cast::<u8>().add(page * rustix::param::page_size()) };
        // SAFETY: inside of the mapping, which is writable and which nobody else refers to.
        unsafe { address.write_volatile(1) };
    }
    let touched_ns = monotonic_ns() - start_ns;
    // SAFETY: the mapping was made above and nobody refers to it any more.
    unsafe { munmap(memory, length) }?;
    Ok(touched_ns)
}
