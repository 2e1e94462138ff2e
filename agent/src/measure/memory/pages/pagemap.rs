//! Which pages of a process are in memory, and in which frames they are.
//!
//! `/proc/PID/pagemap` has 8 bytes for every page that could be, so that a reservation of 1 TiB is 2 GiB of nothing to read. Since
//! Linux 6.7 `PAGEMAP_SCAN` steps over what is not there.

use rustix::{
    fd::AsFd,
    ioctl::{ioctl, opcode},
    param::page_size,
};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::OnceLock};

/// Entries of pagemap that are read at once.
const ENTRIES: usize = 4096;
/// Ranges that one scan returns at most.
const REGIONS: usize = 1024;

/// A page in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its address divided by the page size.
    pub page: u64,
    /// Number of its frame; 0 where the agent may not know it (without `CAP_SYS_ADMIN`).
    pub frame: u64,
    /// Whether it is the page cache's or shared memory's, and no anonymous one.
    pub is_file: bool,
    /// Whether it is mapped only once.
    pub is_exclusive: bool,
}

/// Parses an entry of pagemap (`Documentation/admin-guide/mm/pagemap.rst`); `None`: the page is not in memory.
fn present(page: u64, entry: u64) -> Option<Present> {
    let bit = |number: u32| entry >> number & 1 == 1;
    bit(63).then_some(Present { page, frame: entry & ((1 << 55) - 1), is_file: bit(61), is_exclusive: bit(56) })
}

/// The pages of one process.
pub struct PageMap {
    file: File,
    /// Whether `PAGEMAP_SCAN` is known not to be there.
    must_read: bool,
}

impl PageMap {
    /// Of a process.
    ///
    /// # Errors
    /// When it is gone, or may not be looked at.
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/pagemap"))?, must_read: false })
    }

    /// Calls `visit` with the pages in memory of a range of addresses, in portions of at most 4096, ascending.
    ///
    /// # Errors
    /// When the kernel refuses, or those of `visit`.
    pub fn visit(&mut self, range: Range<u64>, mut visit: impl FnMut(&[Present]) -> io::Result<()>) -> io::Result<()> {
        if !self.must_read {
            match self.scan(range.clone(), &mut visit) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                    self.must_read = true
                }
                other => return other,
            }
        }
        self.read(range, &mut visit)
    }

    /// Only the ranges in which there is something.
    fn scan(&self, range: Range<u64>, visit: &mut impl FnMut(&[Present]) -> io::Result<()>) -> io::Result<()> {
        let mut regions = vec![PageRegion::default(); REGIONS];
        let mut start = range.start;
        while start < range.end {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                flags: 0,
                start,
                end: range.end,
                walk_end: 0,
                regions: regions.as_mut_ptr() as u64,
                regions_length: REGIONS as u64,
                max_pages: 0,
                category_inverted: 0,
                category_mask: PAGE_IS_PRESENT,
                category_any_mask: 0,
                return_mask: PAGE_IS_PRESENT,
            };
            let found = scan(&self.file, &mut arguments)?;
            for region in regions.iter().take(found) {
                self.read(region.start..region.end.min(range.end), visit)?;
            }
            // The kernel walks in parts, and a walk that comes to its end leaves the end of the part before: behind what it has told.
            let told = regions.iter().take(found).map(|region| region.end).max();
            let next = arguments.walk_end.max(told.unwrap_or(0));
            if next <= start {
                return Err(io::Error::other("PAGEMAP_SCAN does not get on"));
            }
            start = next;
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>, visit: &mut impl FnMut(&[Present]) -> io::Result<()>) -> io::Result<()> {
        let size = page_size() as u64;
        let mut pages = range.start / size..range.end / size;
        let mut entries = vec![0_u64; ENTRIES];
        let mut found = Vec::with_capacity(ENTRIES);
        while !pages.is_empty() {
            let wanted = ENTRIES.min((pages.end - pages.start) as usize);
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut entries[..wanted]);
            let length = self.file.read_at(bytes, pages.start * 8)? / 8;
            if length == 0 {
                // The process has ended: its memory is gone.
                return Ok(());
            }
            found.clear();
            found.extend((pages.start..).zip(&entries[..length]).filter_map(|(page, &entry)| present(page, entry)));
            if !found.is_empty() {
                visit(&found)?;
            }
            pages.start += length as u64;
        }
        Ok(())
    }
}

/// `PAGE_IS_PRESENT` of `linux/fs.h`.
const PAGE_IS_PRESENT: u64 = 1 << 3;

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_mask: u64,
    return_mask: u64,
}

/// Fills the regions that the arguments point to; returns how many.
fn scan(file: &File, arguments: &mut ScanArguments) -> io::Result<usize> {
    /// `PAGEMAP_SCAN` of `linux/fs.h`.
    const SCAN: rustix::ioctl::Opcode = opcode::read_write::<ScanArguments>(b'f', 16);
    /// How many regions were filled is what the call returns, which rustix's own types for such calls drop.
    struct Scan<'a>(&'a mut ScanArguments);
    // SAFETY: the opcode's argument is a pointer to this struct, which lives during the call, and the call returns a count.
    unsafe impl rustix::ioctl::Ioctl for Scan<'_> {
        type Output = usize;
        const IS_MUTATING: bool = true;

        fn opcode(&self) -> rustix::ioctl::Opcode {
            SCAN
        }

        fn as_ptr(&mut self) -> *mut libc::c_void {
            std::ptr::from_mut(self.0).cast()
        }

        unsafe fn output_from_ptr(
            output: rustix::ioctl::IoctlOutput,
            _argument: *mut libc::c_void,
        ) -> rustix::io::Result<usize> {
            Ok(usize::try_from(output).unwrap_or(0))
        }
    }
    // SAFETY: the kernel writes into the arguments, and at most `regions_length` regions to where they point, which is a vector of
    // the caller with as many.
    Ok(unsafe { ioctl(file.as_fd(), Scan(arguments)) }?)
}

/// Flags of frames, from `/proc/kpageflags`.
pub struct FrameFlags(File);

/// `KPF_ZERO_PAGE`, `KPF_KSM`, `KPF_THP` and `KPF_HUGE` of `linux/kernel-page-flags.h`.
pub const ZERO_PAGE: u64 = 1 << 24;
/// See [`ZERO_PAGE`].
pub const KSM: u64 = 1 << 21;
/// See [`ZERO_PAGE`].
pub const HUGE: u64 = 1 << 22 | 1 << 17;

impl FrameFlags {
    /// The flags of all frames.
    ///
    /// # Errors
    /// Without root's rights, and on kernels that don't tell.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/kpageflags")?))
    }

    /// The flags of these frames, in their order; 0 for a frame that is not known. Frames in a row are read at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn of(&self, frames: &[u64]) -> io::Result<Vec<u64>> {
        let mut flags = vec![0; frames.len()];
        let mut done = 0;
        while done < frames.len() {
            let first = frames[done];
            let in_row = frames[done..].iter().zip(first..).take_while(|(frame, expected)| *frame == expected).count();
            if first != 0 {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut flags[done..done + in_row]);
                self.0.read_at(bytes, first * 8)?;
            }
            done += in_row.max(1);
        }
        Ok(flags)
    }
}

/// How many mappings each frame of the host has.
pub struct FrameUsers(File);

impl FrameUsers {
    /// The mappings of all frames.
    ///
    /// # Errors
    /// Without root's rights, and on kernels that don't tell.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/kpagecount")?))
    }

    /// Those of this frame; `None` when the kernel does not tell.
    pub fn of(&self, frame: u64) -> Option<u64> {
        let mut count = [0; 8];
        self.0.read_exact_at(&mut count, frame * 8).ok()?;
        Some(u64::from_ne_bytes(count))
    }
}

/// The frame of the page that the kernel maps wherever something is read that was never written to. It takes no memory, and no
/// process's RSS counts it. `None` where the agent may not know frames.
pub fn zero_frame() -> Option<u64> {
    static FRAME: OnceLock<Option<u64>> = OnceLock::new();
    *FRAME.get_or_init(|| {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
        let size = page_size();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: the first byte of the mapping, which is readable; volatile, since reading it is the purpose.
        let _ = unsafe { page.cast::<u8>().read_volatile() };
        let mut frame = None;
        let map = PageMap::open(std::process::id().cast_signed());
        if let Ok(mut map) = map {
            let start = page as u64;
            let _ = map.read(start..start + size as u64, &mut |pages: &[Present]| {
                frame = pages.first().map(|page| page.frame).filter(|frame| *frame != 0);
                Ok(())
            });
            map.must_read = true;
        }
        // SAFETY: the mapping was made above and nothing refers to it.
        let _ = unsafe { munmap(page, size) };
        frame
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    /// Of a mapping of so many pages, those that are in memory when every `step`-th was written to; read in both ways.
    fn found(pages: usize, step: usize) -> Vec<Vec<u64>> {
        let size = page_size();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let memory = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                pages * size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::NORESERVE | MapFlags::PRIVATE,
            )
        }
        .unwrap();
        for page in (0..pages).step_by(step) {
            // SAFETY: inside of the mapping.
            let address = unsafe { memory.cast::<u8>().add(page * size) };
            // SAFETY: inside of the mapping, which is writable and which nobody else refers to.
            unsafe { address.write_volatile(1) };
        }
        let start = memory as u64;
        let range = start..start + (pages * size) as u64;
        let ways = [false, true].map(|must_read| {
            let mut map = PageMap { must_read, ..PageMap::open(std::process::id().cast_signed()).unwrap() };
            let mut found = Vec::new();
            map.visit(range.clone(), |pages| {
                found.extend(pages.iter().map(|present| present.page - start / size as u64));
                Ok(())
            })
            .unwrap();
            found
        });
        // SAFETY: the mapping was made above and nothing refers to it.
        unsafe { munmap(memory, pages * size) }.unwrap();
        ways.to_vec()
    }

    #[test]
    fn pages_in_memory_are_found_whichever_way_they_are_looked_for() {
        // More ranges than one scan returns. Huge pages would fill the gaps: a step of more than one is no huge page.
        let expected: Vec<u64> = (0..6000_u64).step_by(1024).collect();
        for found in found(6000, 1024) {
            if found.len() > expected.len() {
                // Transparent huge pages are on.
                assert!(expected.iter().all(|page| found.contains(page)));
            } else {
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn no_page_is_found_twice_where_the_kernel_walks_in_several_parts() {
        // As many ranges as one scan returns, half as many, and one more: every second page is a range.
        for ranges in [512, 513, 1024, 1025, 3000] {
            for found in found(2 * ranges, 2) {
                assert!(found.is_sorted_by(|one, other| one < other), "{ranges} ranges");
                assert!(found.len() >= ranges, "{} of {ranges}", found.len());
            }
        }
    }

    #[test]
    fn entries_are_understood() {
        assert_eq!(present(7, 0), None);
        let all = 1 << 63 | 1 << 61 | 1 << 56 | 0x1234;
        assert_eq!(present(7, all), Some(Present { page: 7, frame: 0x1234, is_file: true, is_exclusive: true }));
        assert_eq!(present(7, 1 << 62 | 0x1234), None, "swapped out");
    }
}
