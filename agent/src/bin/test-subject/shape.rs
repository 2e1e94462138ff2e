//! Processes of another shape than one with a first thread that holds its memory alone: what looks at memory must not mind.

use crate::{PAGE, pages};
use anyhow::{Context as _, Result, bail};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::{fs::File, io::Write as _, thread};

/// Ends the first thread, while another one holds pages as [`pages::pages`] does.
pub fn leaderless(counts: [usize; 4]) -> Result<()> {
    let [zero, within, across, unique] = counts;
    thread::spawn(move || {
        let ended = pages::pages("anonymous", zero, within, across, unique);
        std::process::exit(i32::from(ended.is_err()));
    });
    // As the last thing that `pthread_exit` does. That itself unwinds the stack, which Rust's own first frames refuse.
    // SAFETY: ends this thread and no other. Nothing on its stack is used by the other, which got what it needs by value.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("the first thread goes on after its end")
}

/// Holds pages as [`pages::pages`] does, mergeable, together with a child that it forks: that has written the last so many again,
/// and the same. The child ends with it.
pub fn forked(counts: [usize; 4], rewritten: usize) -> Result<()> {
    let [zero, within, across, unique] = counts;
    let memory = pages::filled("mergeable", zero, within, across, unique)?;
    let count = zero + within + across + unique;
    let (mut child_end, parent_end) = std::io::pipe()?;
    // SAFETY: there is no other thread whose locks the child could need.
    match unsafe { libc::fork() } {
        -1 => return Err(std::io::Error::last_os_error()).context("could not fork"),
        0 => {
            drop(child_end);
            // SAFETY: asks for a signal when the parent ends; no memory is involved.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            for page in count - rewritten..count {
                // SAFETY: inside of the mapping.
                let address = unsafe { memory.cast::<u8>().add(page * PAGE) };
                // SAFETY: a byte of the mapping, which is readable.
                let byte = unsafe { address.read_volatile() };
                // SAFETY: the same byte, which is writable and which nobody else refers to.
                unsafe { address.write_volatile(byte) };
            }
            { parent_end }.write_all(b"!")?;
            loop {
                thread::park();
            }
        }
        _ => drop(parent_end),
    }
    std::io::Read::read_exact(&mut child_end, &mut [0]).context("the child has ended")?;
    pages::obey(memory, count)
}

/// Maps a file, so that others see no writes, reads all of it, and keeps it.
pub fn map(path: &str) -> Result<()> {
    let file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len())?;
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let memory = unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
    for page in 0..size / PAGE {
        // SAFETY: inside of the mapping.
        let address = unsafe { memory.cast::<u8>().add(page * PAGE) };
        // SAFETY: a byte of the mapping of a file that nobody makes shorter; volatile, since reading it is the purpose.
        unsafe { address.read_volatile() };
    }
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
