//! Looks at every page in memory of processes and of files.
//!
//! Copying a page takes the kernel longer than anything else does here: it has to look up each page of the target and to hold it
//! meanwhile. So while one thread finds the pages, some others copy and hash them, and the target stands still for a shorter time.
//!
//! ```text
//! mappings ─► pagemap ─► portions of up to 4096 pages ─► workers (copy, fingerprint) ─► Found
//! files ──────────────────────────────────────────────►
//! ```

use super::{
    entry::{Entry, Flags, Hasher},
    pagemap::{FrameFlags, HUGE, KSM, PageMap, Present, ZERO_PAGE, zero_frame},
    reader::{BATCH, Buffer, Reader, runs},
};
use crate::measure::memory::mapping::{Mapping, Region};
use anyhow::{Context as _, Result, anyhow};
use crossbeam_channel::{Receiver, Sender};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Threads that copy and hash, where there are as many CPUs. More would gain little: they take turns in the target's page tables.
const MOST_WORKERS: usize = 4;

/// What goes into an analysis.
#[derive(Default)]
pub struct Found {
    /// The pages, in no order.
    pub entries: Vec<Entry>,
    /// Pages that could not be read, by source and kind of memory, and whether they are shared.
    pub unread: BTreeMap<(usize, Region, bool), u64>,
    /// Bytes that were copied and hashed.
    pub scanned_bytes: u64,
}

/// What a worker does at once.
enum Work<'a> {
    Pages(Portion<'a>),
    File { path: &'a Path, source: usize },
}

/// Pages of a mapping.
struct Portion<'a> {
    pid: i32,
    common: Common<'a>,
    pages: Vec<Present>,
}

/// What is looked at.
pub struct Scope<'a> {
    /// A thread of each process, through which its memory is read.
    pub threads: &'a [i32],
    /// The mappings of each.
    pub mapped: &'a [Vec<Mapping>],
    /// Files, of which the pages in the page cache count.
    pub files: &'a [&'a PathBuf],
    /// Says when nobody wants to know any more: what is missing then is no error.
    pub is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Looks at the pages of processes and of files. A process that ends meanwhile is no error: what was there counts. The sources are
/// numbered as they come, files after processes. There is room for so many pages.
///
/// # Errors
/// When a process may not be looked at, or a file can't be read.
pub fn scan(scope: &Scope<'_>, room: usize) -> Result<Found> {
    let found = Mutex::new(Found { entries: Vec::with_capacity(room), ..Found::default() });
    let hasher = Hasher::new(page_size());
    let workers = thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_WORKERS));
    let (sender, receiver) = crossbeam_channel::bounded(workers);
    thread::scope(|threads| {
        let started: Vec<_> = (0..workers)
            .map(|_| {
                let (worker, receiver) = (Worker::new(&hasher, &found, scope.is_cancelled), receiver.clone());
                threads.spawn(move || worker.work(&receiver))
            })
            .collect();
        // Only the workers have it, so that giving fails when none is left.
        drop(receiver);
        let given = give(scope, &sender);
        drop(sender);
        for worker in started {
            worker.join().map_err(|_| anyhow!("a thread that looks at pages failed; its message is above"))??;
        }
        given
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
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

/// Gives the workers all that is to be looked at. When there are no more workers, one of them knows why.
fn give<'a>(scope: &Scope<'a>, workers: &Sender<Work<'a>>) -> Result<()> {
    let Scope { threads, mapped, files, is_cancelled } = *scope;
    for (source, (&pid, mappings)) in threads.iter().zip(mapped).enumerate() {
        if is_cancelled() {
            return Ok(());
        }
        give_process(pid, source, mappings, workers).with_context(|| unreadable(pid))?;
    }
    for (source, path) in (threads.len()..).zip(files) {
        if workers.send(Work::File { path, source }).is_err() {
            break;
        }
    }
    Ok(())
}

fn give_process<'a>(pid: i32, source: usize, mappings: &'a [Mapping], workers: &Sender<Work<'a>>) -> io::Result<()> {
    let mut map = match PageMap::open(pid) {
        Ok(map) => map,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for mapping in mappings.iter().filter(|mapping| mapping.has_pages()) {
        let visited = map.visit(mapping.start..mapping.end, |pages| {
            let portion = Portion { pid, common: Common::of(mapping, source), pages: pages.to_vec() };
            workers.send(Work::Pages(portion)).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))
        });
        match visited {
            Err(error) if is_gone(&error) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

fn unreadable(pid: i32) -> String {
    format!("the memory of process {pid} can't be read")
}

/// One thread's tools.
struct Worker<'a> {
    hasher: &'a Hasher,
    found: &'a Mutex<Found>,
    frame_flags: Option<FrameFlags>,
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
    buffer: Buffer,
    /// What was found and not handed over yet, so that the others need not wait for each page.
    batch: Vec<Entry>,
}

impl<'a> Worker<'a> {
    fn new(hasher: &'a Hasher, found: &'a Mutex<Found>, is_cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            hasher,
            found,
            frame_flags: FrameFlags::open().ok(),
            is_cancelled,
            buffer: Buffer::new(BATCH),
            batch: Vec::with_capacity(BATCH),
        }
    }

    fn found(&self) -> MutexGuard<'a, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over the batch, of so many bytes.
    fn hand_over(&mut self, bytes: u64) {
        let mut found = self.found();
        found.entries.append(&mut self.batch);
        found.scanned_bytes += bytes;
    }

    fn work(mut self, receiver: &Receiver<Work<'_>>) -> Result<()> {
        // What is left is taken and dropped, so that who gives it is not kept waiting.
        for work in receiver.iter().filter(|_| !(self.is_cancelled)()) {
            match work {
                Work::Pages(Portion { pid, common, pages }) => match self.pages(&common, &mut Reader::new(pid), &pages)
                {
                    Err(error) if is_gone(&error) => {}
                    other => other.with_context(|| unreadable(pid))?,
                },
                Work::File { path, source } => {
                    let looked = self.file(path, source);
                    looked.with_context(|| format!("could not look at {} in the page cache", path.display()))?;
                }
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
        for run in runs(&pages, BATCH, |(page, _)| page.page).take_while(|_| !(self.is_cancelled)()) {
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
                self.batch.push(Entry::new(self.hasher.of(content), page.frame, flags, common.source, page.page));
            }
            self.hand_over((read * size) as u64);
            done += read;
            if read < left.len() {
                // It is no longer there, or nobody may read it: which of the two, nobody tells.
                let shared = !pages[done].0.is_exclusive;
                *self.found().unread.entry((common.source, mapping.region, shared)).or_default() += 1;
                done += 1;
            }
        }
        Ok(())
    }

    /// The pages of a file that are in the page cache.
    fn file(&mut self, path: &Path, source: usize) -> Result<()> {
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
        let is_cancelled = self.is_cancelled;
        for run in runs(&numbers, BATCH, |page| *page).take_while(|_| !is_cancelled()) {
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
                    self.batch.push(Entry::new(content, frame, flags, source, page - address / size));
                }
            }
            self.hand_over(read as u64 * size);
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
