//! What a page fault costs on this host: the kernel counts faults per process, but nobody measures them one by one without a
//! probe on each.

use anyhow::{Context as _, Result};
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap},
    param::page_size,
};
use std::{ffi::c_void, ptr, time::Instant};

/// Pages touched per round; with rounds, so that an interruption does not count.
const PAGES: usize = 1024;
const ROUNDS: usize = 8;

/// Time of a first write to anonymous memory without huge pages, in nanoseconds: the median of some rounds.
///
/// # Errors
/// When the kernel refuses 4 MiB of memory.
pub fn minor_fault_ns() -> Result<f64> {
    let mut rounds = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<f64>>>()?;
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

fn round() -> Result<f64> {
    let size = PAGES * page_size();
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe { mmap_anonymous(ptr::null_mut(), size, rights, MapFlags::PRIVATE) }
        .context("could not map memory to measure page faults")?;
    // SAFETY: the range is the mapping, and this advice changes no content. A kernel without huge pages refuses it, rightly.
    let _ = unsafe { madvise(memory, size, Advice::LinuxNoHugepage) };
    let start = Instant::now();
    for page in 0..PAGES {
        touch(memory, page * page_size());
    }
    let elapsed = start.elapsed();
    // SAFETY: the mapping was made above and nothing refers to it.
    unsafe { munmap(memory, size) }.context("could not unmap memory")?;
    Ok(elapsed.as_nanos() as f64 / PAGES as f64)
}

fn touch(memory: *mut c_void, offset: usize) {
    // SAFETY: inside of the mapping.
    let address = unsafe { memory.cast::<u8>().add(offset) };
    // SAFETY: inside of the mapping, which is writable and which nobody else refers to.
    unsafe { address.write_volatile(1) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fault_takes_more_than_a_store_and_less_than_a_disk() {
        let ns = super::minor_fault_ns().unwrap();
        assert!((20.0..1e6).contains(&ns), "{ns} ns");
    }
}
