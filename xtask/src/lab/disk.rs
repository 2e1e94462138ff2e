//! Disks of the lab VM: raw files, found inside by their serial number.

use anyhow::{Context, Result};
use lab_guest::Mount;
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};

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
        make(&file, mib)?;
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
        make(&file, self.mib)?;
        let content: Vec<_> = self.content.iter().flat_map(|folder| ["-d".into(), folder.clone()]).collect();
        // No journal and nothing left for later: both would be background writes in the middle of a measurement.
        let options = "lazy_itable_init=0,root_owner=0:0";
        cmd!(shell, "mke2fs -q -t ext4 -O ^has_journal -E {options} {content...} {file}")
            .env("PATH", path_with_sbin())
            .quiet()
            .run()
            .context("a file system can't be made (mke2fs is in the package e2fsprogs)")?;
        Ok((Disk { serial: self.serial, file }, Mount { disk: self.serial.to_owned(), at: self.at.clone() }))
    }
}

fn make(file: &Path, mib: u64) -> Result<()> {
    let disk = File::create(file).with_context(|| format!("can't make {}", file.display()))?;
    disk.set_len(mib << 20).with_context(|| format!("can't make {} of {mib} MiB", file.display()))
}

/// `mke2fs` is where the search path of ordinary users does not lead.
fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
