//! Looks at the pages of what ran before anybody looked: neither its roles nor the files that its start has read are known, so both
//! are inferred from what its processes have open.

use super::{Content, Found};
use crate::measure::memory::{
    living,
    pages::{Hold, Subject},
};
use anyhow::Result;
use procfs::process::{FDTarget, Process};
use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf};
use tokio_util::sync::CancellationToken;

/// Beginnings of the names of programs that have a guest, also without KVM.
const VMMS: [&str; 2] = ["qemu-system", "firecracker"];

impl Content {
    /// Looks at all pages of these targets, beside those of the files that they execute or have open. `None` when it was
    /// interrupted. Nobody of a target is the agent's own to stop, so that its helpers are no more held than it itself.
    ///
    /// # Errors
    /// When a process may not be looked at.
    pub async fn of_targets(found: &[Found], hold: bool, interrupted: &CancellationToken) -> Result<Option<Self>> {
        let mut subjects = Vec::new();
        // By what they are, since each process has a name of its own for the same file.
        let mut files: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        for (instance, found) in found.iter().enumerate() {
            // What has ended since has no memory.
            for pid in found.members.processes() {
                // The files of a process are also those of its other threads, should its first one have ended.
                let thread = living::thread_of(pid).and_then(|thread| Process::new(thread).ok());
                let Some((role, open)) = thread.map(|thread| known_of(&thread)) else { continue };
                subjects.push(Subject { pid, role, instance });
                for path in open.into_iter().filter(|path| fs::File::open(path).is_ok()) {
                    if let Ok(file) = path.metadata() {
                        files.entry((file.dev(), file.ino())).or_insert(path);
                    }
                }
            }
        }
        let hold = if hold { Hold::Strangers } else { Hold::Nobody };
        Self::look_at(subjects, files.into_values().collect(), hold, interrupted).await
    }
}

/// The role of a process, and its files, by names that are valid whatever mounts it sees.
fn known_of(process: &Process) -> (String, Vec<PathBuf>) {
    let folder = PathBuf::from(format!("/proc/{}", process.pid));
    let (mut files, mut has_vm) = (vec![folder.join("exe")], false);
    for descriptor in process.fd().into_iter().flatten().flatten() {
        match descriptor.target {
            FDTarget::AnonInode(name) => has_vm |= name == "kvm-vm",
            FDTarget::Path(path) if path.is_absolute() && !path.starts_with("/proc") && !path.starts_with("/sys") => {
                files.push(folder.join("fd").join(descriptor.fd.to_string()));
            }
            _ => {}
        }
    }
    files.retain(|path| path.is_file());
    let comm = process.stat().map_or_else(|_| "unknown".to_owned(), |stat| stat.comm);
    let program = fs::read_link(folder.join("exe")).ok();
    let program = program.as_ref().and_then(|path| path.file_name()?.to_str()).unwrap_or(&comm);
    let is_vmm = has_vm || VMMS.iter().any(|vmm| program.starts_with(vmm));
    (if is_vmm { "vmm".to_owned() } else { comm }, files)
}
