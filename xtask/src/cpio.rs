//! The archive format of initial RAM disks ("newc"): `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel.
//!
//! Written by hand because it is a header of numbers and a name per file, and because the files come from all over the host.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// `S_IFDIR`, `S_IFREG` and `S_IFLNK` with the usual permissions.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub struct Archive {
    out: BufWriter<File>,
    offset: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Begins one.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file), offset: 0, inode: 0, directories: BTreeSet::new() })
    }

    /// Adds a file of the host, executable, at an absolute path; folders above it come by themselves.
    ///
    /// # Errors
    /// When it can't be read or the archive can't be written.
    pub fn file(&mut self, at: &str, source: &Path) -> Result<()> {
        let mut file = File::open(source).with_context(|| format!("can't read {}", source.display()))?;
        let size = file.metadata()?.len();
        self.entry(at, EXECUTABLE, size)?;
        let copied = io::copy(&mut file, &mut self.out)?;
        ensure!(copied == size, "{} changed while it was read", source.display());
        self.offset += size;
        self.pad()
    }

    /// Adds a file with this content.
    ///
    /// # Errors
    /// When the archive can't be written.
    pub fn content(&mut self, at: &str, content: &[u8]) -> Result<()> {
        self.with_content(at, EXECUTABLE, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the archive can't be written.
    pub fn link(&mut self, at: &str, target: &str) -> Result<()> {
        self.with_content(at, LINK, target.as_bytes())
    }

    /// Adds a folder with those above it, unless it is there.
    ///
    /// # Errors
    /// When the archive can't be written.
    pub fn directory(&mut self, at: &str) -> Result<()> {
        let ends = at.match_indices('/').map(|(end, _)| end).skip(1).chain([at.len()]);
        for end in ends.collect::<Vec<_>>() {
            let folder = &at[..end];
            if self.directories.insert(folder.to_owned()) {
                self.header(folder, DIRECTORY, 0)?;
            }
        }
        Ok(())
    }

    /// Writes what belongs at the end.
    ///
    /// # Errors
    /// When the archive can't be written.
    pub fn finish(mut self) -> Result<()> {
        self.header("/TRAILER!!!", 0, 0)?;
        self.out.flush()?;
        Ok(())
    }

    fn with_content(&mut self, at: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(at, mode, content.len() as u64)?;
        self.out.write_all(content)?;
        self.offset += content.len() as u64;
        self.pad()
    }

    fn entry(&mut self, at: &str, mode: u32, size: u64) -> Result<()> {
        if let Some((folder, _)) = at.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
            self.directory(folder)?;
        }
        self.header(at, mode, size)
    }

    fn header(&mut self, at: &str, mode: u32, size: u64) -> Result<()> {
        let name = at.strip_prefix('/').with_context(|| format!("{at} is not an absolute path"))?;
        let size = u32::try_from(size).with_context(|| format!("{at} is too large for the archive"))?;
        self.inode += 1;
        let name_bytes = u32::try_from(name.len() + 1)?;
        // Inode, mode, user, group, links, time, size, device, device of a device node, length of the name, no checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_bytes, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.out.write_all(header.as_bytes())?;
        self.offset += header.len() as u64;
        self.pad()
    }

    /// Everything begins at a multiple of four bytes.
    fn pad(&mut self) -> Result<()> {
        let missing = self.offset.next_multiple_of(4) - self.offset;
        self.out.write_all(&[0; 3][..usize::try_from(missing)?])?;
        self.offset += missing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_before_what_is_in_them() -> Result<()> {
        let path = std::env::temp_dir().join(format!("sandscope-cpio-{}", std::process::id()));
        let mut archive = Archive::create(&path)?;
        archive.content("/a/b/one", b"1")?;
        archive.content("/a/b/two", b"12345")?;
        archive.link("/a/three", "b/one")?;
        archive.finish()?;
        let bytes = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let number = |index: usize| {
                let digits = std::str::from_utf8(&bytes[at + 6 + 8 * index..][..8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_bytes) = (number(6), number(11));
            let name = &bytes[at + 110..at + 110 + name_bytes - 1];
            names.push(String::from_utf8(name.to_vec())?);
            at = (at + 110 + name_bytes).next_multiple_of(4) + size.next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "a/three", "TRAILER!!!"]);
        Ok(())
    }
}
