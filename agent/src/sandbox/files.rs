//! The root file system of a container: the workload's files, shared, copied or below a writable layer.

use super::{Specification, resources::FileSharing};
use crate::workload::{Content, Workload};
use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_bind};
use std::{
    ffi::CString,
    fs::{self, File},
    io::ErrorKind,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

/// Makes the folder `name` in `parent`, with the workload's files in it and places to mount on; the file that the workload serves
/// goes to `static_file`, or if it is a root file system, can be mounted there. Says how the files came there.
///
/// # Errors
/// When the host refuses a file or a mount.
pub fn provide(specification: &Specification, parent: &Path, name: &str, static_file: &str) -> Result<&'static str> {
    let workload = &specification.workload;
    workload.content.check()?;
    let target = parent.join(name);
    make(&target)?;
    match specification.resources.files {
        FileSharing::Shared => shared(workload, &target, static_file),
        FileSharing::Copy => {
            match &workload.content {
                Content::Root(root) => copy_folder(&root.folder, &target)?,
                Content::Executable(_) => {
                    for (file, place) in placed(workload, static_file) {
                        let place = target.join(place.trim_start_matches('/'));
                        fs::copy(file, &place).with_context(|| format!("could not copy to {}", place.display()))?;
                    }
                    make_places(&target)?;
                }
            }
            Ok("copy")
        }
        FileSharing::Overlay => {
            let lower = match &workload.content {
                Content::Root(root) => root.folder.clone(),
                Content::Executable(_) => {
                    let lower = parent.join("lower");
                    make(&lower)?;
                    shared(workload, &lower, static_file)?;
                    lower
                }
            };
            overlay(&lower, parent, &target)?;
            Ok("overlay")
        }
    }
}

/// Files of a workload that is one executable, and where they belong.
fn placed<'a>(workload: &'a Workload, static_file: &'a str) -> Vec<(&'a Path, String)> {
    let program = (workload.content.path(), workload.content.command().swap_remove(0));
    let served = workload.static_file.as_deref().map(|file| (file, static_file.to_owned()));
    std::iter::once(program).chain(served).collect()
}

fn shared(workload: &Workload, target: &Path, static_file: &str) -> Result<&'static str> {
    if let Content::Root(root) = &workload.content {
        mount_bind(&root.folder, target)
            .with_context(|| format!("could not bind {} to {}", root.folder.display(), target.display()))?;
        return Ok("bind mount");
    }
    let mut how = Vec::new();
    for (file, place) in placed(workload, static_file) {
        how.push(share(file, &target.join(place.trim_start_matches('/')))?);
    }
    make_places(target)?;
    how.dedup();
    Ok(if let [only] = how[..] { only } else { "hard link and bind mount" })
}

/// Folders that a container mounts on.
fn make_places(root: &Path) -> Result<()> {
    ["proc", "dev", "tmp"].iter().try_for_each(|place| make(&root.join(place)))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))
}

/// Puts the file there without copying it; says how.
fn share(file: &Path, target: &Path) -> Result<&'static str> {
    let source = file.canonicalize().with_context(|| format!("could not find {}", file.display()))?;
    match fs::hard_link(&source, target) {
        Ok(()) => Ok("hard link"),
        Err(error) if matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::PermissionDenied) => {
            File::create(target).with_context(|| format!("could not make {}", target.display()))?;
            mount_bind(&source, target)
                .with_context(|| format!("could not bind {} to {}", source.display(), target.display()))?;
            Ok("bind mount")
        }
        Err(error) => {
            Err(error).with_context(|| format!("could not link {} to {}", target.display(), source.display()))
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("could not copy {} to {}", from.display(), to.display());
    make(to)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).with_context(failed)?;
            std::os::unix::fs::symlink(link, target).with_context(failed)?;
        } else {
            fs::copy(&source, &target).with_context(failed)?;
        }
    }
    Ok(())
}

/// Mounts a writable layer over `lower`; what is written goes below `parent`.
fn overlay(lower: &Path, parent: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (parent.join("upper"), parent.join("work"));
    make(&upper)?;
    make(&work)?;
    let lower = lower.canonicalize().with_context(|| format!("could not find {}", lower.display()))?;
    let mut options = Vec::new();
    for (option, path) in [("lowerdir=", &lower), (",upperdir=", &upper), (",workdir=", &work)] {
        options.extend(option.as_bytes());
        // The kernel's separators of options and of layers.
        for byte in path.as_os_str().as_bytes() {
            options.extend([b'\\'].iter().filter(|_| matches!(byte, b',' | b':' | b'\\')).chain([byte]));
        }
    }
    let options = CString::new(options).context("a path holds a NUL")?;
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str()).with_context(|| {
        format!("could not mount an overlay on {}: does this kernel have overlayfs?", target.display())
    })
}
