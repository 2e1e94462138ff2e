//! Dense numbers for threads in scope, so that what is kept of them is an element of an array and not of a hash.
//!
//! The free ones are on a stack that user space fills when it loads the programs. 0 is no slot.

use aya_ebpf::{macros::map, maps::Stack};

/// `BPF_F_MMAPABLE`, for arrays that user space reads through a mapping.
pub const MMAPABLE: u32 = 1 << 10;

/// Sized by the loader.
#[map]
static FREE_SLOTS: Stack<u16> = Stack::with_max_entries(1, 0);

/// Takes a free slot, if there is one.
#[inline(always)]
pub fn take() -> Option<u16> {
    FREE_SLOTS.pop().ok().flatten()
}

/// Gives a slot back that nobody uses any more.
#[inline(always)]
pub fn give_back(slot: u16) {
    // The stack has room for all slots.
    let _ = FREE_SLOTS.push(slot, 0);
}
