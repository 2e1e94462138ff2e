//! Whether this process numbers threads as the kernel does. The probes see the kernel's numbers; inside a pid namespace they would be
//! taken for other threads, and every figure would be somebody else's.

use std::{fs, os::unix::fs::MetadataExt as _};

/// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`): the initial pid namespace has a fixed inode number.
const INITIAL: u64 = 0xEFFF_FFFC;

/// What to do where it is not so.
pub const REMEDY: &str = "run in the host's pid namespace: `docker run --pid=host`, `hostPID: true` in Kubernetes, or `nsenter --target 1 --pid`";

/// Why the probes' numbers mean nothing here; `Ok` where they are ours.
///
/// # Errors
/// Inside of a pid namespace, or where it can't be told.
pub fn check() -> Result<(), String> {
    match fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) if namespace.ino() == INITIAL => Ok(()),
        Ok(_) => Err("inside a pid namespace, in which threads have other numbers than the probes see".to_owned()),
        Err(error) => Err(format!("/proc/self/ns/pid: {error}")),
    }
}
