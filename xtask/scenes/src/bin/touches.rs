//! Writes to fresh memory before it serves: the time goes to page faults, not to its own code.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::time::Instant;

const PAGE: usize = 4096;
const PAGES: usize = 24 << 10;

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let memory = unsafe {
        mmap_anonymous(std::ptr::null_mut(), PAGES * PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }?;
    // A huge page would be one fault for 512.
    // SAFETY: the range is the mapping, and this advice changes no content.
    let _ = unsafe { madvise(memory, PAGES * PAGE, Advice::LinuxNoHugepage) };
    for page in 0..PAGES {
        // SAFETY: inside of the mapping.
        let address = unsafe { memory.cast::<u8>().add(page * PAGE) };
        // SAFETY: inside of the mapping, which is writable and which nobody else refers to.
        unsafe { address.write_volatile(1) };
    }
    match scenes::serve(start)? {}
}
