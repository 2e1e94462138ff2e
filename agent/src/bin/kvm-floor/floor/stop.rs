//! Being told to stop: SIGTERM and SIGINT end the VM with its report, not without it.

use anyhow::{Context, Result};
use std::{io, mem::MaybeUninit, ptr};

/// The signals that stop the VM.
fn signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given room for, and can't fail for a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the call above initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the set is initialised and the signal exists.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Keeps the signals for [`wait_for_signal`], in this thread and those that it starts from here on.
///
/// # Errors
/// When the kernel refuses.
pub fn hold_signals() -> Result<()> {
    let set = signals();
    // SAFETY: the set is initialised; the previous mask is not asked for.
    let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    error(errno).context("can't block SIGTERM and SIGINT")
}

/// Waits until one of the signals comes, and says which.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_for_signal() -> Result<i32> {
    let set = signals();
    let mut signal = 0;
    // SAFETY: the set is initialised and the signal's number has room.
    let errno = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    error(errno).context("can't wait for SIGTERM or SIGINT").map(|()| signal)
}

fn error(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}
