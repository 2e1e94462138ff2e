//! System calls that read and write files: how long each took and how much it moved. Which calls do that the kernel's half has seen:
//! a descriptor can be anything.

use super::{Histories, texts::Text};
use crate::probe::Distribution;
use std::{collections::BTreeMap, ops::Range};

/// What a system call did with a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) is_write: bool,
    pub(super) bytes: u64,
}

/// System calls of one role that read files, or that wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileCalls {
    /// Nanoseconds from entry to return of each.
    pub times: Distribution,
    /// Their sum.
    pub time_ns: u64,
    /// Bytes that each moved.
    pub sizes: Distribution,
    /// Their sum.
    pub bytes: u64,
}

/// Those that returned in a window without an error, by role and whether they write.
pub fn file_calls(histories: &Histories, window: &Range<u64>) -> BTreeMap<(Text, bool), FileCalls> {
    let mut sums: BTreeMap<(Text, bool), FileCalls> = BTreeMap::new();
    for history in histories.tasks.iter().filter(|history| history.is_counted()) {
        for call in history.calls.iter().filter(|call| window.contains(&call.end_ns)) {
            let Some(Transfer { is_write, bytes }) = call.transfer else { continue };
            let sum = sums.entry((history.role_at(call.start_ns), is_write)).or_default();
            let time_ns = call.end_ns - call.start_ns;
            sum.times.record(time_ns);
            sum.time_ns += time_ns;
            sum.sizes.record(bytes);
            sum.bytes += bytes;
        }
    }
    sums
}
