//! Removes what an instance left on the host: the one way to do so, for an orderly stop and after the agent was killed.
//!
//! Each step goes on when one before it failed, and says what it could not remove. The directory of the instance, which knows
//! what there is to remove, goes last, and only when nothing else remains: so that it can be tried again.

use super::{
    child, docker,
    journal::{self, Resource},
    network,
    processes::Membership,
    setting,
};
use anyhow::{Context as _, Error, Result, bail, ensure};
use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Every cgroup that an instance may make is the directory `sandscope-LABEL` at the top of a hierarchy. There is no common
/// directory above them: removing that would race with another agent that is about to make its own below it.
pub const CGROUP_PREFIX: &str = "sandscope-";

/// How long a runtime may take to delete a container.
const DELETE_LIMIT: Duration = Duration::from_secs(15);

/// How long a cgroup may stay busy after its last process is gone.
const CGROUP_LIMIT: Duration = Duration::from_secs(2);

/// Removes all that the instance with this directory left, the directory included. Returns what could not be removed.
pub fn undo(directory: &Path) -> Vec<Error> {
    if !directory.exists() {
        return Vec::new();
    }
    let mut failures = Failures(Vec::new());
    let resources = failures.note(journal::read(directory)).unwrap_or_default();
    let mounts = failures.note(mounts_below(directory)).unwrap_or_default();

    // Before the runtimes delete their containers: `runsc delete` waits for the sentry and the gofer to be gone, which they are
    // only when somebody took their status.
    failures.note(kill_processes(directory, &resources, &mounts));
    for resource in &resources {
        match resource {
            Resource::Container { runtime, root, id } => {
                failures.note(delete_container(directory, runtime, root, id));
            }
            Resource::Veth { name, address } => {
                failures.note(network::remove_veth(name, *address));
            }
            Resource::DockerContainer { socket, name } => {
                failures.note(docker::remove_container(directory, socket, name));
            }
            Resource::DockerImage { socket, name } => {
                failures.note(docker::remove_image(socket, name));
            }
            Resource::Cgroup { path } => {
                failures.note(remove_cgroup(path));
            }
            Resource::Setting { path, value } => {
                failures.note(setting::restore(path, value));
            }
        }
    }
    // The last mounted first, as it may lie on another.
    for mount in mounts.iter().rev() {
        let unmounted = unmount(&mount.path, UnmountFlags::DETACH);
        failures.note(unmounted.with_context(|| format!("could not unmount {}", mount.path.display())));
    }
    if failures.0.is_empty() {
        failures.note(remove_directory(directory));
    }
    failures.0
}

/// What could not be removed so far.
struct Failures(Vec<Error>);

impl Failures {
    /// Keeps the error, if it is one.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }
}

struct Mount {
    path: PathBuf,
    is_network_namespace: bool,
}

/// Everything mounted below this directory, in the order of mounting: nobody but the instance mounts there.
fn mounts_below(directory: &Path) -> Result<Vec<Mount>> {
    let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo());
    let below = mounts.context("could not read /proc/self/mountinfo")?.into_iter().filter_map(|mount| {
        mount.mount_point.starts_with(directory).then_some(Mount {
            is_network_namespace: mount.fs_type == "nsfs" && mount.root.starts_with("net:"),
            path: mount.mount_point,
        })
    });
    Ok(below.collect())
}

fn delete_container(directory: &Path, runtime: &Path, root: &Path, id: &str) -> Result<()> {
    ensure!(root.starts_with(directory), "{} is not in {}: left alone", root.display(), directory.display());
    if !root.exists() {
        return Ok(());
    }
    let arguments = ["--root".as_ref(), root.as_os_str(), "delete".as_ref(), "--force".as_ref(), OsStr::new(id)];
    child::run(runtime, directory, &arguments, DELETE_LIMIT).map(drop)
}

fn kill_processes(directory: &Path, resources: &[Resource], mounts: &[Mount]) -> Result<()> {
    membership(directory, resources, mounts)?.kill_all()
}

/// The processes that belong to the instance with this directory at this moment.
///
/// # Errors
/// When the journal or `/proc` can't be read.
pub fn members(directory: &Path) -> Result<Vec<i32>> {
    let (resources, mounts) = (journal::read(directory)?, mounts_below(directory)?);
    Ok(membership(directory, &resources, &mounts)?.members()?.into_keys().collect())
}

fn membership(directory: &Path, resources: &[Resource], mounts: &[Mount]) -> Result<Membership> {
    let cgroups = resources.iter().filter_map(|resource| match resource {
        Resource::Cgroup { path } if is_ours(path) => Some(path.clone()),
        _ => None,
    });
    let namespaces: Vec<_> =
        mounts.iter().filter(|mount| mount.is_network_namespace).map(|mount| mount.path.clone()).collect();
    Membership::new(directory, &namespaces, cgroups.collect())
}

/// Whether the path is that of a cgroup that sandscope makes.
fn is_ours(cgroup: &Path) -> bool {
    cgroup.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(CGROUP_PREFIX))
}

fn remove_cgroup(path: &Path) -> Result<()> {
    ensure!(is_ours(path), "{} is not a cgroup of sandscope: left alone", path.display());
    let deadline = Instant::now() + CGROUP_LIMIT;
    loop {
        // What an instance made inside goes first. The files in a cgroup go with it.
        if let Ok(entries) = fs::read_dir(path) {
            for inner in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let _ = fs::remove_dir(inner.path());
            }
        }
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A process leaves its cgroup a moment after it is gone from /proc.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).with_context(|| format!("could not remove the cgroup {}", path.display())),
        }
    }
}

fn remove_directory(directory: &Path) -> Result<()> {
    // A mount that is still there may be a person's file or directory: never delete through it.
    if let Some(mount) = mounts_below(directory)?.first() {
        bail!("{} is still mounted: {} is left alone", mount.path.display(), directory.display());
    }
    fs::remove_dir_all(directory).with_context(|| format!("could not remove {}", directory.display()))
}
