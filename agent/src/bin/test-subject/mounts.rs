//! Mount namespaces that are copied again and again: whoever copies one holds the kernel's lock of all of them meanwhile.

use anyhow::{Context, Result, bail};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Gives the calling thread a copy of its mount namespace.
fn unshare() -> Result<()> {
    // SAFETY: files and memory stay shared; what paths mean may change for this thread, which opens none by it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("can't make a mount namespace")
}

/// Makes so many mounts that only this process sees, says `ready`, and copies them in so many threads until its input ends.
pub fn storm(count: u32, threads: u32) -> Result<()> {
    unshare()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let folder = tempfile::tempdir()?;
    for _ in 0..count {
        mount("none", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k"))?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let copy = |over: Arc<AtomicBool>| {
        move || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                unshare()?;
            }
            Ok(())
        }
    };
    let copying: Vec<_> = (0..threads).map(|_| thread::spawn(copy(Arc::clone(&over)))).collect();
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    over.store(true, Ordering::Relaxed);
    for thread in copying {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a thread panicked"),
        }
    }
    // Its mounts end with the process; the folder is empty below them.
    for _ in 0..count {
        rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}
