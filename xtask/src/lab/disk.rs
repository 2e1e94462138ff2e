//! Disks of the lab VM: raw files, found inside by their serial number.

use crate::ext4;
use anyhow::{Context, Result};
use lab_guest::Mount;
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use xshell::Shell;

/// A disk.
pub struct Disk {
    /// Its serial number.
    pub serial: &'static str,
    /// The file that holds it.
    pub file: PathBuf,
}

/// A disk with an ext4 file system, and where it is mounted in the VM.
pub struct Filesystem {
    /// Its serial number.
    pub serial: &'static str,
    /// Where the VM mounts it.
    pub at: String,
    /// Its size.
    pub mib: u64,
    /// Folder of the host whose content it holds; empty without.
    pub content: Option<PathBuf>,
}

impl Disk {
    /// Makes a disk full of zeros.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn empty(serial: &'static str, file: PathBuf, mib: u64) -> Result<Self> {
        let disk = File::create(&file).with_context(|| format!("can't make {}", file.display()))?;
        disk.set_len(mib << 20).with_context(|| format!("can't make {} of {mib} MiB", file.display()))?;
        Ok(Self { serial, file })
    }
}

impl Filesystem {
    /// Makes the disk below `directory`, and tells how the VM mounts it.
    ///
    /// # Errors
    /// When the file system can't be made.
    pub fn create(&self, shell: &Shell, directory: &Path) -> Result<(Disk, Mount)> {
        let file = directory.join(format!("{}.img", self.serial));
        ext4::make(shell, &file, self.mib, self.content.as_deref())?;
        Ok((Disk { serial: self.serial, file }, Mount { disk: self.serial.to_owned(), at: self.at.clone() }))
    }
}
