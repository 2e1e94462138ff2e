//! Reads a file from the disk before it serves, past the page cache: its own, so that it is as cold in each start.

use anyhow::Context;
use rustix::{
    fs::{Mode, OFlags, open},
    io::read,
    mm::{MapFlags, ProtFlags, mmap_anonymous},
};
use std::time::Instant;

const PIECE: usize = 128 << 10;
const PIECES: usize = 256;

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let program = std::env::current_exe()?;
    let path = program.with_file_name("cold-file");
    let file = open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty())
        .with_context(|| format!("can't open {}", path.display()))?;
    // Direct reads want memory that begins at a page.
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let memory =
        unsafe { mmap_anonymous(std::ptr::null_mut(), PIECE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
    // SAFETY: the mapping is that long, writable, and nobody else refers to it.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), PIECE) };
    for _ in 0..PIECES {
        read(&file, &mut *memory)?;
    }
    match scenes::serve(start)? {}
}
