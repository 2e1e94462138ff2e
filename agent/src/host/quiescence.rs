//! Rest before something is timed.
//!
//! Making a network device, attaching a program to a tracepoint, and removing either leave the kernel with things to free once
//! nobody can see them any more: after a grace period of RCU. Who needs a grace period meanwhile waits for the end of that one
//! first, and only then for one of its own. runc is such a one: it writes to files of cgroups, where the kernel waits for one.
//! There is more of it with probes than without, so that without a rest the sandbox would be charged with the observer's work.

use rustix::thread::{MembarrierCommand, membarrier};
use std::{thread::sleep, time::Duration};

/// What is freed in one grace period may ask for another: the programs of a tracepoint pass through two.
const GRACE_PERIODS: u32 = 2;

/// As long as that takes, generously, where the kernel does not tell its end.
const FALLBACK: Duration = Duration::from_millis(60);

/// Waits until the kernel is done with what was attached, made and removed before. Takes some ten milliseconds.
///
/// `membarrier(MEMBARRIER_CMD_GLOBAL)` waits for a grace period by definition (`kernel/sched/membarrier.c`); kernels with
/// processors that never tick refuse it.
pub fn settle() {
    for _ in 0..GRACE_PERIODS {
        if membarrier(MembarrierCommand::Global).is_err() {
            sleep(FALLBACK);
            return;
        }
    }
}
