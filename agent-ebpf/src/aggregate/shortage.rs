//! Counts what found no room.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use sandscope_ebpf::sums::Shortages;

#[map]
static SHORTAGES: PerCpuArray<Shortages> = PerCpuArray::with_max_entries(1, 0);

/// Lets `count` add to the counters of this CPU.
#[inline(always)]
pub fn note(count: impl FnOnce(&mut Shortages)) {
    if let Some(shortages) = SHORTAGES.get_ptr_mut(0) {
        // SAFETY: the map gives a valid pointer to this CPU's element. An interrupt may come between load and store of a
        // counter; then one of two shortages at the same instant is not counted, which still leaves one that is.
        count(unsafe { &mut *shortages });
    }
}
