//! A mount namespace for a program from which something of the host has to be hidden. It is made before the timed window;
//! entering it costs one more system call in the child.

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{fs::File, os::fd::OwnedFd};

/// Moves the calling thread, which must be one of `blocking::on_a_thread`, into a new mount namespace, has something hidden there, and
/// returns the namespace.
///
/// # Errors
/// When the kernel refuses; and those of `hide`.
pub fn namespace(hide: impl FnOnce() -> Result<()>) -> Result<OwnedFd> {
    // SAFETY: `unshare` is unsafe because of file descriptors and memory that may stop to be shared; a mount namespace
    // concerns neither, and the working directory, which it unshares, is not used by this thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("could not make a mount namespace")?;
    // What the host mounts and unmounts later shall happen here too, and nothing the other way.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .context("could not keep a mount namespace's mounts to itself")?;
    hide()?;
    let path = "/proc/thread-self/ns/mnt";
    Ok(File::open(path).with_context(|| format!("could not open {path}"))?.into())
}
