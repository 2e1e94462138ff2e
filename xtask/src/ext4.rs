//! File systems in files, for disks of virtual machines; made without root.

use anyhow::{Context, Result};
use std::{fs::File, path::Path};
use xshell::{Shell, cmd};

/// How they are made. Without a journal and with nothing left for later, since both would be background writes in the middle of a
/// measurement; with blocks of a page, so that a page of a file is a page of the disk.
pub const OPTIONS: &[&str] =
    &["-t", "ext4", "-b", "4096", "-O", "^has_journal", "-E", "lazy_itable_init=0,root_owner=0:0"];

/// Makes a file of so many MiB that holds one with what is in the folder, if one is given.
///
/// # Errors
/// When it can't be made, such as for too much content.
pub fn make(shell: &Shell, file: &Path, mib: u64, content: Option<&Path>) -> Result<()> {
    let disk = File::create(file).with_context(|| format!("can't make {}", file.display()))?;
    disk.set_len(mib << 20).with_context(|| format!("can't make {} of {mib} MiB", file.display()))?;
    let content: Vec<_> = content.iter().flat_map(|folder| [Path::new("-d"), folder]).collect();
    cmd!(shell, "mke2fs -q {OPTIONS...} {content...} {file}")
        .env("PATH", path_with_sbin())
        .quiet()
        .run()
        .context("a file system can't be made (mke2fs is in the package e2fsprogs)")
}

/// `mke2fs` is where the search path of ordinary users does not lead.
fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
