//! The way out: one ring buffer for all records, and what found no room in it.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{PerCpuHashMap, RingBuf},
};
use core::mem::MaybeUninit;
use sandscope_ebpf::{
    event::{Header, Kind},
    kernel::now_ns,
    map::{LostKey, Membership},
};

/// Sized by the loader.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// User space adds the elements of scope 0, for what finds no room here either.
#[map]
static LOST: PerCpuHashMap<LostKey, u64> = PerCpuHashMap::with_max_entries(8192, 0);

/// A header of `kind` about thread `tid`, at this moment.
#[inline(always)]
pub fn header(kind: Kind, tid: u32, membership: Membership) -> Header {
    Header { at_ns: now_ns(), tid, scope: membership.scope(), kind: kind as u8, flags: 0 }
}

/// Sends a record about `scope`. The reader drains on a timer: waking it for each record would cost more than everything else. Those
/// that arrive are counted there.
#[inline(always)]
pub fn send<T: Copy + 'static>(kind: Kind, scope: u16, record: T) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            entry.write(record);
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => lose(LostKey { scope, kind: kind as u16 }),
    }
}

/// Sends a record that is too large to be made elsewhere, if it can be filled.
#[inline(always)]
pub fn fill<T: Copy + 'static>(kind: Kind, scope: u16, make: impl FnOnce(&mut MaybeUninit<T>) -> bool) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            if make(&mut entry) {
                entry.submit(u64::from(BPF_RB_NO_WAKEUP));
            } else {
                entry.discard(u64::from(BPF_RB_NO_WAKEUP));
            }
        }
        None => lose(LostKey { scope, kind: kind as u16 }),
    }
}

#[inline(never)]
fn lose(key: LostKey) {
    let count = match LOST.get_ptr_mut(key) {
        Some(count) => count,
        None => {
            let _ = LOST.insert(key, 0, u64::from(BPF_NOEXIST));
            let made = LOST.get_ptr_mut(key).or_else(|| LOST.get_ptr_mut(LostKey { scope: 0, ..key }));
            let Some(count) = made else { return };
            count
        }
    };
    // SAFETY: the map gives a valid pointer to this CPU's element. An interrupt on the same CPU may come between load and store; the
    // kinds that interrupts write differ from those that tasks write, so no increment is lost.
    unsafe { *count += 1 };
}
