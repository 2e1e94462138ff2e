//! Copies pages of another process.

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use rustix::param::page_size;
use std::{
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    os::unix::fs::FileExt as _,
};

/// Where pages are copied to. It begins at a page: with both at the same place within theirs, string instructions copy several
/// times as fast as with one a few bytes behind the other, which is where an allocator puts large memory. (Zen 3 and 4; see
/// <https://sourceware.org/bugzilla/show_bug.cgi?id=30994>.)
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// With room for so many pages.
    pub fn new(pages: usize) -> Self {
        let size = page_size();
        let memory = vec![0; (pages + 1) * size];
        let start = memory.as_ptr().align_offset(size);
        Self { memory, start }
    }

    /// The first so many pages of it.
    pub fn pages(&mut self, count: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + count * page_size()]
    }
}

/// Pages that are copied at once. 1 MiB is about what a second-level cache holds until it is hashed; a quarter of it takes the
/// kernel a tenth longer for each page.
pub const BATCH: usize = 256;

/// Reads the memory of a process.
pub struct Reader {
    pid: i32,
    /// Reads what the process itself may not read. Opened when it is needed.
    file: Option<File>,
}

impl Reader {
    /// Of a process.
    pub fn new(pid: i32) -> Self {
        Self { pid, file: None }
    }

    /// Copies pages in a row from this one on into the buffer; returns how many were copied before one could not be.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at. A page that can't be read is no error: 0 pages are copied.
    pub fn read(&mut self, first: u64, buffer: &mut [u8], is_readable: bool) -> io::Result<usize> {
        let size = page_size();
        let address = first * size as u64;
        if !is_readable {
            return self.read_by_force(address, buffer);
        }
        let remote = [RemoteIoVec { base: address as usize, len: buffer.len() }];
        match process_vm_readv(Pid::from_raw(self.pid), &mut [IoSliceMut::new(buffer)], &remote) {
            Ok(length) => Ok(length / size),
            Err(nix::Error::EFAULT) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// `/proc/PID/mem` reads also what the process has closed to itself (`PROT_NONE`). Slower: each page is copied twice.
    fn read_by_force(&mut self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(format!("/proc/{}/mem", self.pid))?),
        };
        match file.read_at(buffer, address) {
            Ok(length) => Ok(length / page_size()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EFAULT)) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Splits pages into runs that lie in a row, of at most `most` pages.
pub fn runs<T>(pages: &[T], most: usize, number: impl Fn(&T) -> u64) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = number(pages.get(start)?);
        let in_row =
            pages[start..].iter().zip(first..).take(most).take_while(|(page, expected)| number(page) == *expected);
        let run = start..start + in_row.count();
        start = run.end;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_a_row_are_read_at_once() {
        let pages = [1_u64, 2, 3, 4, 9, 10, 12];
        let runs: Vec<_> = runs(&pages, 3, |page| *page).collect();
        assert_eq!(runs, [0..3, 3..4, 4..6, 6..7]);
    }

    #[test]
    fn own_memory_is_read_in_both_ways_and_what_is_not_there_is_not() {
        let size = page_size();
        let memory = vec![7_u8; 4 * size];
        let first = (memory.as_ptr() as usize).div_ceil(size) as u64;
        let mut reader = Reader::new(std::process::id().cast_signed());
        for is_readable in [true, false] {
            let mut buffer = vec![0; 2 * size];
            assert_eq!(reader.read(first, &mut buffer, is_readable).unwrap(), 2);
            assert!(buffer.iter().all(|byte| *byte == 7));
            assert_eq!(reader.read(0, &mut buffer, is_readable).unwrap(), 0);
        }
    }
}
