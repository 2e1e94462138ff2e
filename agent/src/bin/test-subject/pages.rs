//! Memory of which it is known what is in it: so many pages of zeros, equal to each other, equal to those of every other process
//! that does the same, and of nothing else.

use crate::PAGE;
use anyhow::{Context, Result, bail};
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap},
};
use sandscope::measure::memory::pages::speed::limit_bytes_per_s;
use std::{
    ffi::c_void,
    fs::File,
    io::{Read as _, Write as _},
    ptr,
    str::FromStr,
};

/// What kind of memory the pages are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anonymous,
    /// Anonymous, in huge pages as far as the kernel has them.
    Huge,
    /// Anonymous, and KSM is asked to merge it.
    Mergeable,
    /// Anonymous, and closed to the process itself after it was written to.
    Closed,
    Memfd,
    /// A memfd of hugetlbfs.
    Hugetlb,
    /// Anonymous, the first in a reservation of 1 TiB.
    Reserved,
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "anonymous" => Self::Anonymous,
            "huge" => Self::Huge,
            "mergeable" => Self::Mergeable,
            "closed" => Self::Closed,
            "memfd" => Self::Memfd,
            "hugetlb" => Self::Hugetlb,
            "reserved" => Self::Reserved,
            _ => bail!("{text}: no kind of memory"),
        })
    }
}

/// Fills memory with `zero`, `within`, `across` and `unique` pages, says `ready` and keeps it until its standard input ends. Each
/// line on that is an order: `grow`, `shrink` or `exec`, which is answered by `done`, or `limit`, which is answered by how many bytes of
/// these pages it copies and hashes per second.
pub fn pages(kind: &str, zero: usize, within: usize, across: usize, unique: usize) -> Result<()> {
    let memory = filled(kind, zero, within, across, unique)?;
    obey(memory, zero + within + across + unique)
}

/// Memory with so many pages of each kind.
pub fn filled(kind: &str, zero: usize, within: usize, across: usize, unique: usize) -> Result<*mut c_void> {
    let kind: Kind = kind.parse()?;
    let count = zero + within + across + unique;
    let memory = map(kind, count)?;
    let mut own = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut own)?;
    for page in 0..count {
        let content = match page {
            _ if page < zero => Vec::new(),
            _ if page < zero + within => own.to_vec(),
            _ if page < zero + within + across => (page as u64 + 1).to_le_bytes().to_vec(),
            _ => [own.as_slice(), &(page as u64 + 1).to_le_bytes()].concat(),
        };
        write_page(memory, page, &content);
    }
    if kind == Kind::Closed {
        // SAFETY: nothing in this process reads or writes the mapping any more.
        unsafe { mprotect(memory, count * PAGE, MprotectFlags::empty()) }?;
    }
    Ok(memory)
}

/// Fills pages with the same noise in every process, but without its first bytes; then as [`pages`].
pub fn noise(count: usize, skipped: usize) -> Result<()> {
    let memory = map(Kind::Anonymous, count)?;
    let mut state = 1_u64;
    let mut noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .skip(skipped);
    for page in 0..count {
        let content: Vec<u8> = noise.by_ref().take(PAGE).collect();
        write_page(memory, page, &content);
    }
    obey(memory, count)
}

fn map(kind: Kind, count: usize) -> Result<*mut c_void> {
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    let size = if kind == Kind::Reserved { 1 << 40 } else { count * PAGE };
    if matches!(kind, Kind::Memfd | Kind::Hugetlb) {
        let flags =
            if kind == Kind::Hugetlb { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let file = memfd_create("test-subject", flags | MemfdFlags::CLOEXEC)?;
        ftruncate(&file, size as u64)?;
        // SAFETY: a new mapping at an address that the kernel chooses, of a file that nobody else has.
        return unsafe { mmap(ptr::null_mut(), size, rights, MapFlags::SHARED, &file, 0) }.context("memory of a file");
    }
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let memory = unsafe { mmap_anonymous(ptr::null_mut(), size, rights, MapFlags::PRIVATE | MapFlags::NORESERVE) }?;
    // A huge page would be 512 pages that nobody asked for.
    let advice = if kind == Kind::Huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
    // SAFETY: the range is the mapping, and neither advice changes any content.
    unsafe { madvise(memory, size, advice) }?;
    if kind == Kind::Mergeable {
        // SAFETY: the range is the mapping, and merging changes no content.
        unsafe { madvise(memory, size, Advice::LinuxMergeable) }?;
    }
    Ok(memory)
}

/// Writes to a page, also when there is nothing to write but zeros.
fn write_page(memory: *mut c_void, page: usize, content: &[u8]) {
    // SAFETY: inside of the mapping.
    let address = unsafe { memory.cast::<u8>().add(page * PAGE) };
    // SAFETY: a page of the mapping, which is writable and which nobody else refers to.
    let bytes = unsafe { std::slice::from_raw_parts_mut(address, PAGE) };
    bytes[..content.len()].copy_from_slice(content);
    // The compiler might leave out a write of zeros to memory that is zero.
    // SAFETY: the first byte of the page, as above.
    unsafe { bytes.as_mut_ptr().write_volatile(content.first().copied().unwrap_or(0)) };
}

/// Does what it is told on standard input; see [`pages`].
pub fn obey(memory: *mut c_void, count: usize) -> Result<()> {
    let say = |text: &str| -> Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    };
    say("ready")?;
    let mut left = count;
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "grow" => {
                let more = map(Kind::Anonymous, count)?;
                (0..count).for_each(|page| write_page(more, page, &(page as u64).to_le_bytes()));
            }
            "shrink" if left > 1 => {
                let half = left / 2;
                // SAFETY: inside of the mapping, of which nothing is used any more.
                let end = unsafe { memory.cast::<u8>().add((left - half) * PAGE) };
                // SAFETY: the last pages of what is left of the mapping; nothing refers to them.
                unsafe { munmap(end.cast(), half * PAGE) }?;
                left -= half;
            }
            "limit" => {
                // SAFETY: what is left of the mapping, which nobody writes to meanwhile. Nobody asks this of memory that was closed.
                let memory = unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), left * PAGE) };
                say(&format!("{}", limit_bytes_per_s(memory)))?;
                continue;
            }
            "exec" => {
                use std::os::unix::process::CommandExt as _;
                let program = std::env::current_exe()?;
                return Err(std::process::Command::new(program)
                    .args(["pages", "anonymous", "1", "0", "0", "0"])
                    .exec()
                    .into());
            }
            order => bail!("{order}: nothing that it can do"),
        }
        say("done")?;
    }
    Ok(())
}
