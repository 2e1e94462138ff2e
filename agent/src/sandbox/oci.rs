//! Drives a runtime that has the command line of runc, directly and without a daemon: `RUNTIME --root STATE run --bundle B ID`.
//!
//! A kind for another such runtime is a small file that says what is particular about it: its options, the roles of what it
//! executes, and what has to be hidden from it (see `crun.rs`).

use super::{
    Instance, RoleRule, Specification,
    bundle::Bundle,
    child::Program,
    instance::{HostInstance, Plan},
    journal::Resource,
    network::Network,
    runtime::Runtime,
};
use crate::workload::callback::CALLBACK_PATH;
use anyhow::Result;
use rustix::thread::LinkNameSpaceType;
use std::{collections::BTreeMap, os::fd::OwnedFd};

/// Every workload gets the URL of its callback, and nobody else does.
pub const WORKLOAD: RoleRule = RoleRule { role: "workload", contains: CALLBACK_PATH, forked: None };

/// What is particular about a runtime.
#[derive(Default)]
pub struct Particulars {
    /// Options that stand before its command.
    pub options: Vec<String>,
    /// A mount namespace for it, in which something of the host is hidden.
    pub mounts: Option<OwnedFd>,
    /// What of that matters to who compares figures, by name.
    pub conditions: BTreeMap<String, String>,
}

/// Prepares a container of this runtime, whose particulars may depend on the instance's network.
///
/// # Errors
/// When the specification can't be kept, or the host refuses something.
pub fn prepare(
    specification: &Specification,
    runtime: Runtime,
    roles: &'static [RoleRule],
    particulars: impl FnOnce(&Runtime, &Network) -> Result<Particulars>,
) -> Result<Box<dyn Instance>> {
    specification.check()?;
    HostInstance::prepare(&specification.directory, |journal| {
        let network = Network::prepare(specification, journal)?;
        let bundle = Bundle::prepare(specification, &network, journal)?;
        let Particulars { options, mounts, mut conditions } = particulars(&runtime, &network)?;
        conditions.insert("files".into(), bundle.files.into());
        conditions.insert("scratch".into(), "tmpfs".into());
        let (root, id) = (specification.directory.join("state"), specification.label.clone());
        journal.record(&Resource::Container { runtime: runtime.path.clone(), root: root.clone(), id: id.clone() })?;
        let (mut program, console) = Program::new(&runtime.path, &specification.directory)?;
        if let Some(mounts) = mounts {
            program.enter(mounts, LinkNameSpaceType::Mount);
        }
        program.argument("--root")?.argument(root)?.arguments(options)?;
        program.argument("run")?.argument("--bundle")?.argument(&bundle.path)?.argument(id)?;
        if !specification.resources.console {
            program.silence()?;
        }
        Ok(Plan {
            program: (program, console),
            files: [vec![runtime.path], specification.workload.files()].concat(),
            readiness: specification.readiness(&network),
            roles,
            network: Some(network),
            conditions,
        })
    })
}
