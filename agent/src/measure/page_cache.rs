//! The page cache as a condition of a measurement: files are read into it or driven out of it, and what became of that is
//! counted page by page, because neither request is a promise.

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{Advice, fadvise, fsync},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};
use std::{
    collections::BTreeMap,
    ffi::c_void,
    fs::File,
    io::{self, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What is asked of the page cache before an instance starts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// Every page of the instance's files is in memory.
    Primed,
    /// No page of them is.
    Evicted,
    /// Whatever it happens to be.
    AsIs,
}

impl CacheState {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primed => "primed",
            Self::Evicted => "evicted",
            Self::AsIs => "asis",
        }
    }
}

/// How much of some files is in the page cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Pages that the files have.
    pub pages: u64,
    /// Those of them that are in memory.
    pub resident: u64,
}

/// Brings the page cache into a state for these files, and checks that it is.
///
/// # Errors
/// When a file can't be read, or stays in memory or out of it against the request: names the file.
pub fn bring_about(state: CacheState, files: &[PathBuf]) -> Result<Residency> {
    let mut total = Residency::default();
    for path in files {
        let residency = bring_one_about(state, path).with_context(|| format!("page cache of {}", path.display()))?;
        total.pages += residency.pages;
        total.resident += residency.resident;
    }
    Ok(total)
}

fn bring_one_about(state: CacheState, path: &Path) -> Result<Residency> {
    let mut file = File::open(path)?;
    match state {
        CacheState::AsIs => Ok(residency(&file)?),
        CacheState::Primed => {
            // Again, since the kernel may reclaim a few pages at any moment, also with memory to spare (DAMON).
            let mut found = Residency::default();
            for _ in 0..PRIMING_ATTEMPTS {
                file.rewind()?;
                io::copy(&mut file, &mut io::sink())?;
                found = residency(&file)?;
                if found.resident == found.pages {
                    return Ok(found);
                }
            }
            bail!(
                "only {} of {} pages stayed in memory after reading them {PRIMING_ATTEMPTS} times; is there too little free \
                 memory?",
                found.resident,
                found.pages
            );
        }
        CacheState::Evicted => {
            // Dirty pages can't be dropped, so a file that was just written must reach its disk first.
            fsync(&file)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            let found = residency(&file)?;
            if found.resident > 0 {
                bail!(
                    "{} of {} pages can't be evicted: a running process maps them, or the file system keeps them in \
                     memory (tmpfs, initramfs); stop that process or put the file on a disk",
                    found.resident,
                    found.pages
                );
            }
            Ok(found)
        }
    }
}

/// How often a file is read until all of it is in memory.
const PRIMING_ATTEMPTS: u32 = 5;

/// Counts the pages of a file that are in the page cache.
fn residency(file: &File) -> Result<Residency> {
    let length = usize::try_from(file.metadata()?.len())?;
    if length == 0 {
        return Ok(Residency::default());
    }
    let mut pages = vec![0_u8; length.div_ceil(page_size())];
    // SAFETY: a fresh private mapping; nobody reads through it, so a file that shrinks meanwhile can't fault us.
    let address = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
    let counted = mincore(address, length, &mut pages);
    // SAFETY: the mapping was made above with this length and nothing refers to it.
    unsafe { munmap(address, length) }?;
    counted?;
    // The lowest bit is the answer; the others are reserved.
    let resident = pages.iter().filter(|&&page| page & 1 == 1).count();
    Ok(Residency { pages: pages.len() as u64, resident: resident as u64 })
}

fn mincore(address: *mut c_void, length: usize, pages: &mut [u8]) -> io::Result<()> {
    // SAFETY: `address` is a mapping of `length` bytes, and `pages` has a byte for each of its pages. rustix does not wrap it.
    match unsafe { libc::mincore(address, length, pages.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Names of files without their folders, by inode and device as the kernel encodes it (`include/linux/kdev_t.h`: 20 bits of
/// minor). What can't be looked at has none.
pub fn names(files: &[PathBuf]) -> BTreeMap<(u64, u32), String> {
    let named = files.iter().filter_map(|path| {
        let about = std::fs::metadata(path).ok()?;
        let device = rustix::fs::major(about.dev()) << 20 | rustix::fs::minor(about.dev());
        Some(((about.ino(), device), path.file_name()?.to_string_lossy().into_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file on the disk of the build directory: the directory for temporary files may be in memory.
    fn file_of(bytes: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; bytes]).unwrap();
        file
    }

    #[test]
    fn all_pages_of_a_primed_file_are_in_memory_and_none_of_an_evicted_one() {
        let file = file_of(10 * page_size() + 1);
        let files = [file.path().to_owned()];
        assert_eq!(bring_about(CacheState::Evicted, &files).unwrap(), Residency { pages: 11, resident: 0 });
        assert_eq!(bring_about(CacheState::AsIs, &files).unwrap(), Residency { pages: 11, resident: 0 });
        assert_eq!(bring_about(CacheState::Primed, &files).unwrap(), Residency { pages: 11, resident: 11 });
    }

    #[test]
    fn a_file_that_stays_in_memory_is_named() {
        let file = file_of(page_size());
        // SAFETY: a mapping of a file of one page that outlives it; reading one byte makes the page used.
        let address = unsafe {
            mmap(std::ptr::null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE, &file, 0)
        }
        .unwrap();
        let error = bring_about(CacheState::Evicted, &[file.path().to_owned()]).unwrap_err();
        assert!(format!("{error:#}").contains(&file.path().display().to_string()), "{error:#}");
        // SAFETY: the mapping was made above.
        unsafe { munmap(address, page_size()) }.unwrap();
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = bring_about(CacheState::Primed, &["/no/such/file".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file"));
    }
}
