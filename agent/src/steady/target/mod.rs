//! What can be attached to, and which processes of the host it consists of.
//!
//! ```text
//! text ─► Target (name) ─► find: process, control group, container, VM ─► Found { name, members }
//! ```
//!
//! What a target is gets told by facts of the kernel and of who started it. All of these are of others' making: what is read is bounded,
//! and what is shown of it can't steer a terminal.

mod bounded;
mod container;
mod name;
mod process;
mod vmm;

pub use name::{SYNTAX, Target};

use super::members::{Members, threads_of};
use crate::host::control_group::ControlGroup;
use anyhow::{Context, Result, bail};
use procfs::process::Process;
use std::{collections::BTreeSet, path::Path};

/// A target that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is called in the results.
    pub name: String,
    /// Who belongs to it.
    pub members: Members,
}

impl Target {
    /// Looks the target up; several for [`Target::AllVms`].
    ///
    /// # Errors
    /// When there is no such thing; says what was looked for and where.
    pub async fn find(&self) -> Result<Vec<Found>> {
        let name = self.to_string();
        match self {
            Self::Pid(pid) => Ok(vec![Found { name, members: a_process(*pid)? }]),
            Self::Cgroup(path) => Ok(vec![Found { name, members: group(path)? }]),
            Self::Container(container) => Ok(vec![Found { name, members: container::find(container).await? }]),
            Self::Vm(kind, wanted) => Ok(vec![vmm::find(name, *kind, wanted)?]),
            Self::AllVms => {
                let found = vmm::all();
                if found.is_empty() {
                    bail!("no process of this host has a KVM virtual machine open that this user may see");
                }
                Ok(found)
            }
        }
    }
}

/// A process, named by the number of its first thread.
fn a_process(pid: i32) -> Result<Members> {
    let status = Process::new(pid).and_then(|process| process.status());
    let status = status.with_context(|| format!("there is no process {pid}"))?;
    if status.tgid != pid {
        bail!("{pid} is a thread of process {} ({}): attach to pid:{}", status.tgid, status.name, status.tgid);
    }
    if threads_of(pid.cast_unsigned()).is_empty() {
        bail!("process {pid} ({}) has ended; its parent has not taken notice yet", status.name);
    }
    let members = Members::tree(pid);
    if members.threads().is_empty() {
        bail!("process {pid} is sandscope itself, or was started by it: it is never part of a target");
    }
    Ok(members)
}

/// The control groups of this name that have processes.
fn group(path: &Path) -> Result<Members> {
    let all = ControlGroup::named(path);
    if all.is_empty() {
        bail!("no hierarchy of control groups has {}", path.display());
    }
    let looked_at: Vec<_> = all.iter().map(|group| group.directory.display().to_string()).collect();
    let groups = all.into_iter().filter(|group| !group.threads().is_empty()).collect();
    let members = Members { roots: BTreeSet::new(), groups };
    if members.groups.is_empty() || members.threads().is_empty() {
        bail!("the control group has no processes besides sandscope: {}", looked_at.join(", "));
    }
    Ok(members)
}
