//! Looks at every page in memory of a process or of a file.

use super::{
    entry::{Entry, Flags, Hasher},
    pagemap::{FrameFlags, HUGE, KSM, PageMap, Present, ZERO_PAGE, zero_frame},
    reader::{BATCH, Buffer, Reader, runs},
};
use crate::measure::memory::mapping::{Mapping, Region};
use anyhow::{Context as _, Result};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};
use std::{collections::BTreeMap, fs::File, io, path::Path};

/// What goes into an analysis.
pub struct Scan {
    hasher: Hasher,
    frame_flags: Option<FrameFlags>,
    buffer: Buffer,
    /// The pages.
    pub entries: Vec<Entry>,
    /// Pages that could not be read, by source and kind of memory, and whether they are shared.
    pub unread: BTreeMap<(usize, Region, bool), u64>,
    /// Bytes that were copied and hashed.
    pub scanned_bytes: u64,
}

/// What all pages of a mapping have in common.
struct Common<'a> {
    mapping: &'a Mapping,
    source: usize,
    /// Whether it is of a file that is on a disk.
    is_of_file: bool,
    is_shmem: bool,
    /// Whether the frames' flags matter.
    wants_flags: bool,
}

impl<'a> Common<'a> {
    fn of(mapping: &'a Mapping, source: usize) -> Self {
        let is_shmem = mapping.is_shmem();
        Self {
            mapping,
            source,
            is_of_file: mapping.file.is_some() && !mapping.is_hugetlb && !is_shmem,
            is_shmem,
            // Reading them takes time, so only where there may be something in them.
            wants_flags: mapping.huge_bytes > 0 || mapping.ksm_bytes.is_none_or(|bytes| bytes > 0),
        }
    }

    fn flags(&self, page: &Present, frame_flags: u64) -> Flags {
        let Self { mapping, is_of_file, is_shmem, .. } = *self;
        Flags {
            region: mapping.region,
            is_page_cache: page.is_file && is_of_file,
            is_private_file: is_of_file && !mapping.is_shared && !page.is_file,
            is_shared_mapping: mapping.is_shared || is_shmem && page.is_file,
            is_exclusive: page.is_exclusive,
            is_mergeable: mapping.is_mergeable,
            is_ksm: frame_flags & KSM != 0,
            is_huge: frame_flags & HUGE != 0,
            is_hugetlb: mapping.is_hugetlb,
        }
    }
}

impl Scan {
    /// An empty one, with room for so many pages.
    pub fn new(pages: usize) -> Self {
        Self {
            hasher: Hasher::new(page_size()),
            frame_flags: FrameFlags::open().ok(),
            buffer: Buffer::new(BATCH),
            entries: Vec::with_capacity(pages),
            unread: BTreeMap::new(),
            scanned_bytes: 0,
        }
    }

    /// Takes in the pages of a process with these mappings. A process that ends meanwhile is no error: what was there counts.
    ///
    /// # Errors
    /// When the process may not be looked at.
    pub fn process(&mut self, pid: i32, source: usize, mappings: &[Mapping]) -> io::Result<()> {
        let mut map = match PageMap::open(pid) {
            Ok(map) => map,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut reader = Reader::new(pid);
        for mapping in mappings.iter().filter(|mapping| mapping.rss_bytes + mapping.hugetlb_bytes > 0) {
            if mapping.is_device || mapping.region == Region::Special {
                continue;
            }
            let common = Common::of(mapping, source);
            let visited = map.visit(mapping.start..mapping.end, |pages| self.pages(&common, &mut reader, pages));
            match visited {
                Err(error) if is_gone(&error) => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    fn pages(&mut self, common: &Common<'_>, reader: &mut Reader, pages: &[Present]) -> io::Result<()> {
        let frames: Vec<u64> = if common.wants_flags && self.frame_flags.is_some() {
            pages.iter().map(|page| page.frame).collect()
        } else {
            Vec::new()
        };
        let frame_flags = match &self.frame_flags {
            Some(all) if !frames.is_empty() => all.of(&frames)?,
            _ => vec![0; pages.len()],
        };
        // What is mapped wherever nothing was written takes no memory.
        let zero = zero_frame();
        let takes_memory = |(page, flags): &(&Present, u64)| Some(page.frame) != zero && flags & ZERO_PAGE == 0;
        let pages: Vec<(&Present, u64)> = pages.iter().zip(frame_flags).filter(takes_memory).collect();
        for run in runs(&pages, BATCH, |(page, _)| page.page) {
            self.run(common, reader, &pages[run])?;
        }
        Ok(())
    }

    /// Pages in a row, at most a batch.
    fn run(&mut self, common: &Common<'_>, reader: &mut Reader, pages: &[(&Present, u64)]) -> io::Result<()> {
        let (size, mapping) = (page_size(), common.mapping);
        let mut done = 0;
        while done < pages.len() {
            let left = &pages[done..];
            let first = left[0].0.page;
            let read = reader.read(first, self.buffer.pages(left.len()), mapping.is_readable)?;
            for (content, (page, flags)) in self.buffer.pages(read).chunks_exact(size).zip(left) {
                let flags = common.flags(page, *flags);
                self.entries.push(Entry::new(self.hasher.of(content), page.frame, flags, common.source, page.page));
            }
            self.scanned_bytes += (read * size) as u64;
            done += read;
            if read < left.len() {
                // It is no longer there, or nobody may read it: which of the two, nobody tells.
                let shared = !pages[done].0.is_exclusive;
                *self.unread.entry((common.source, mapping.region, shared)).or_default() += 1;
                done += 1;
            }
        }
        Ok(())
    }

    /// Takes in the pages of a file that are in the page cache.
    ///
    /// # Errors
    /// When it can't be read; names it.
    pub fn file(&mut self, path: &Path, source: usize) -> Result<()> {
        self.file_pages(path, source).with_context(|| format!("could not look at {} in the page cache", path.display()))
    }

    fn file_pages(&mut self, path: &Path, source: usize) -> Result<()> {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len())?;
        if length == 0 {
            return Ok(());
        }
        let size = page_size();
        // SAFETY: a fresh private mapping; it is never read through by this process, only by the system call that copies pages,
        // which fails where a file that shrinks has none any more.
        let address = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
        let scanned = self.mapped_file(address as u64, length.div_ceil(size), source);
        // SAFETY: the mapping was made above with this length and nothing refers to it.
        unsafe { munmap(address, length) }?;
        scanned
    }

    /// Copying a page maps it, so that the own pagemap then tells its frame.
    fn mapped_file(&mut self, address: u64, pages: usize, source: usize) -> Result<()> {
        let (size, own) = (page_size() as u64, std::process::id().cast_signed());
        let resident = resident(address, pages)?;
        let numbers: Vec<u64> = (0..pages as u64).filter(|page| resident[*page as usize] & 1 == 1).collect();
        let mut reader = Reader::new(own);
        let mut map = PageMap::open(own)?;
        for run in runs(&numbers, BATCH, |page| *page) {
            let first = address / size + numbers[run.start];
            let read = reader.read(first, self.buffer.pages(run.len()), true)?;
            let mut frames = BTreeMap::new();
            map.visit(first * size..(first + read as u64) * size, |found| {
                frames.extend(found.iter().map(|page| (page.page, page.frame)));
                Ok(())
            })?;
            for (page, content) in (first..).zip(self.buffer.pages(read).chunks_exact(size as usize)) {
                let flags = Flags {
                    region: Region::File,
                    is_page_cache: true,
                    is_private_file: false,
                    is_shared_mapping: false,
                    is_exclusive: false,
                    is_mergeable: false,
                    is_ksm: false,
                    is_huge: false,
                    is_hugetlb: false,
                };
                let content = self.hasher.of(content);
                // Zeros in a file are no reason to call a page of zeros the file's.
                if !content.is_zero() {
                    let frame = frames.get(&page).copied().unwrap_or(0);
                    self.entries.push(Entry::new(content, frame, flags, source, page - address / size));
                }
            }
            self.scanned_bytes += read as u64 * size;
        }
        Ok(())
    }
}

/// Which pages of a mapping of a file are in memory: the lowest bit of each byte.
fn resident(address: u64, pages: usize) -> io::Result<Vec<u8>> {
    let mut resident = vec![0_u8; pages];
    // SAFETY: the address is that of a mapping of so many pages, and the vector has a byte for each. rustix does not wrap it.
    match unsafe { libc::mincore(address as *mut libc::c_void, pages * page_size(), resident.as_mut_ptr()) } {
        0 => Ok(resident),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a process has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}
