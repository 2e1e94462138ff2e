//! Extracting an archive that may be hostile: nothing is written outside the scratch directory or beyond the limits.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path},
    sync::Mutex,
};
use zip::ZipArchive;

/// How much may be extracted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sum of the lengths of all files.
    pub bytes: u64,
    /// Files and directories.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, entries: 65_536 }
    }
}

/// What was extracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Regular files.
    pub files: u64,
    /// Sum of their lengths.
    pub bytes: u64,
}

/// Empties the directory `scratch`, makes it if need be, and extracts the archive to it.
///
/// # Errors
/// When the archive can't be read, breaks a limit, holds anything but files and directories below `scratch`; when
/// `scratch` can't be written, or holds what must not be deleted. A look at the archive's directory comes first, so an
/// archive that is refused for what that says leaves `scratch` as it was.
pub fn extract(archive: &Path, scratch: &Path, limits: Limits) -> Result<Extracted> {
    // Two requests at a time would delete each other's files.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();

    let in_archive = || format!("can't extract {}", archive.display());
    let file = File::open(archive).with_context(in_archive)?;
    ensure!(file.metadata().with_context(in_archive)?.is_file(), "{}: it is not a regular file", in_archive());
    let mut zip = ZipArchive::new(BufReader::new(file)).with_context(in_archive)?;
    check(&mut zip, limits).with_context(in_archive)?;
    empty(scratch, archive)?;

    let mut extracted = Extracted::default();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).with_context(in_archive)?;
        let path = scratch.join(&*entry.name().with_context(in_archive)?);
        let to_path = || format!("can't write {}", path.display());
        if entry.is_dir() {
            fs::create_dir_all(&path).with_context(to_path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(to_path)?;
        }
        let mut target = File::create_new(&path).with_context(to_path)?;
        // The archive's directory may have lied.
        let room = limits.bytes - extracted.bytes;
        let bytes = io::copy(&mut entry.by_ref().take(room + 1), &mut target)
            .with_context(|| format!("{} to {}", in_archive(), path.display()))?;
        ensure!(bytes <= room, "{}: it holds more than {} bytes", in_archive(), limits.bytes);
        extracted.files += 1;
        extracted.bytes += bytes;
    }
    Ok(extracted)
}

/// Refuses an archive for what its directory says.
fn check<R: Read + io::Seek>(zip: &mut ZipArchive<R>, limits: Limits) -> Result<()> {
    ensure!(zip.len() <= limits.entries, "it holds {} entries, more than {}", zip.len(), limits.entries);
    let mut bytes = 0u64;
    for index in 0..zip.len() {
        let entry = zip.by_index_data(index)?;
        let name = entry.name()?;
        let below = Path::new(&*name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        ensure!(below && !name.contains(['\\', '\0']), "the name {name:?} could lead out of the directory");
        ensure!(is_file_or_directory(entry.unix_mode()), "{name:?} is neither a file nor a directory");
        bytes = bytes.saturating_add(entry.size());
        ensure!(bytes <= limits.bytes, "it holds more than {} bytes", limits.bytes);
    }
    Ok(())
}

/// By the type bits of the mode, which an archive need not have.
fn is_file_or_directory(unix_mode: Option<u32>) -> bool {
    const TYPE: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    const REGULAR: u32 = 0o100_000;
    unix_mode.is_none_or(|mode| matches!(mode & TYPE, 0 | DIRECTORY | REGULAR))
}

/// Makes `scratch` an empty directory. The directory itself stays: it may be a mount point.
fn empty(scratch: &Path, archive: &Path) -> Result<()> {
    let in_scratch = || format!("can't empty {}", scratch.display());
    fs::create_dir_all(scratch).with_context(in_scratch)?;
    let real = scratch.canonicalize().with_context(in_scratch)?;
    for precious in [archive.canonicalize(), std::env::current_dir()] {
        let precious = precious.with_context(in_scratch)?;
        if precious.starts_with(&real) {
            bail!("{}: it holds {}, so --scratch must name another directory", in_scratch(), precious.display());
        }
    }
    for entry in fs::read_dir(&real).with_context(in_scratch)? {
        let entry = entry.with_context(in_scratch)?;
        let remove = if entry.file_type().with_context(in_scratch)?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        remove.with_context(|| format!("can't remove {}", entry.path().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    /// An archive with these files, in a directory of its own.
    fn archive(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = ZipWriter::new(File::create(directory.path().join("zip")).unwrap());
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        directory
    }

    fn extract(directory: &tempfile::TempDir, limits: Limits) -> Result<Extracted> {
        super::extract(&directory.path().join("zip"), &directory.path().join("scratch"), limits)
    }

    #[test]
    fn limits_hold_to_the_byte_and_to_the_entry() {
        let directory = archive(&[("a", b"123"), ("b/c", b"4567")]);
        let exact = Limits { bytes: 7, entries: 2 };
        assert_eq!(extract(&directory, exact).unwrap(), Extracted { files: 2, bytes: 7 });
        let error = extract(&directory, Limits { bytes: 6, ..exact }).unwrap_err();
        assert!(format!("{error:#}").contains("more than 6 bytes"), "{error:#}");
        let error = extract(&directory, Limits { entries: 1, ..exact }).unwrap_err();
        assert!(format!("{error:#}").contains("2 entries, more than 1"), "{error:#}");
    }

    #[test]
    fn a_directory_that_lies_about_a_length_is_no_way_around_the_limit() {
        let directory = archive(&[("zeros", &[0; 100_000])]);
        let path = directory.path().join("zip");
        let mut bytes = fs::read(&path).unwrap();
        // The length stands 22 bytes into the local header and 24 into the one of the archive's directory.
        for (signature, offset) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
            let start = bytes.windows(4).position(|window| window == signature).unwrap() + offset;
            bytes[start..start + 4].copy_from_slice(&10u32.to_le_bytes());
        }
        fs::write(&path, bytes).unwrap();
        extract(&directory, Limits { bytes: 1000, entries: 1 }).unwrap_err();
        assert!(fs::metadata(directory.path().join("scratch/zeros")).unwrap().len() <= 1001);
    }

    #[test]
    fn a_refused_archive_leaves_the_scratch_directory_alone() {
        let directory = archive(&[("fine", b""), ("../escaped", b"")]);
        let kept = directory.path().join("scratch/kept");
        fs::create_dir(kept.parent().unwrap()).unwrap();
        fs::write(&kept, b"").unwrap();
        let error = extract(&directory, Limits::default()).unwrap_err();
        assert!(format!("{error:#}").contains("\"../escaped\""), "{error:#}");
        assert!(kept.exists());
        assert!(!directory.path().join("escaped").exists());
    }

    #[test]
    fn a_scratch_directory_that_holds_the_archive_is_not_emptied() {
        let directory = archive(&[("a", b"")]);
        let path = directory.path().join("zip");
        let error = super::extract(&path, directory.path(), Limits::default()).unwrap_err();
        assert!(format!("{error:#}").contains("--scratch must name another"), "{error:#}");
        assert!(path.exists());
    }
}
