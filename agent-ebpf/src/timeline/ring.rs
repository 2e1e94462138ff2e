//! The way out: one ring buffer for all records, and the counters that tell how many found no room.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use sandscope_ebpf::{
    event::{Header, Kind},
    kernel::now_ns,
    map::{Counters, Membership},
};

/// Sized by the loader.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// A header of `kind` about thread `tid`, at this moment.
#[inline(always)]
pub fn header(kind: Kind, tid: u32, membership: Membership) -> Header {
    Header { at_ns: now_ns(), tid, scope: membership.scope(), kind: kind as u8, flags: 0 }
}

/// Sends a record. The reader drains on a timer: waking it for each record would cost more than everything else.
#[inline(always)]
pub fn send<T: Copy + 'static>(kind: Kind, record: T) {
    let sent = if let Some(mut entry) = EVENTS.reserve::<T>(0) {
        entry.write(record);
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        true
    } else {
        false
    };
    count(kind, sent);
}

/// Counts a record that was to be written.
#[inline(always)]
fn count(kind: Kind, sent: bool) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the map gives a valid pointer to this CPU's element. An interrupt on the same CPU may come between load and
        // store; the kinds that interrupts write differ from those that tasks write, so no increment is lost.
        let counters = unsafe { &mut *counters };
        counters.seen[kind as usize] += 1;
        if !sent {
            counters.lost[kind as usize] += 1;
        }
    }
}
