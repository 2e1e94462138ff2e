//! The workload as an ordinary process of the host: no isolation but a network of its own. The floor for containers.

use super::{
    Instance, RoleRule, Sandbox, Specification, Support,
    bundle::SCRATCH_SIZE,
    child::Program,
    executable::ensure_static,
    instance::{HostInstance, Plan},
    network::Network,
    runtime::missing_capabilities,
};
use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    thread::LinkNameSpaceType,
};
use std::{collections::BTreeMap, ffi::CString, fs, path::Path};

/// The kind `process`.
#[derive(Clone, Copy, Debug)]
pub struct Process;

/// Whatever runs here is the workload.
const ROLES: &[RoleRule] = &[RoleRule { role: "workload", contains: "", forked: None }];

impl Sandbox for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn about(&self) -> &'static str {
        "the workload as a process of the host: fork and exec, no isolation; the floor for containers"
    }

    fn support(&self) -> Support {
        match missing_capabilities() {
            None => Support::Ok { evidence: "fork and exec, with a network of its own".into() },
            Some(missing) => Support::Degraded {
                evidence: format!("{missing}: no network of its own"),
                remedy: "run as root, or use the host's network".into(),
            },
        }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([("process.isolation".into(), "none".into())]))
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        specification.check()?;
        HostInstance::prepare(&specification.directory, |journal| {
            let workload = &specification.workload;
            ensure_static(&workload.executable)?;
            let network = Network::prepare(specification, journal)?;
            let scratch = specification.directory.join("scratch");
            let scratch_kind = make_scratch(&scratch)?;
            let (mut program, console) = Program::new(&workload.executable, &specification.directory)?;
            let static_file = workload.static_file.as_deref();
            program.arguments(specification.arguments(&network, static_file, &scratch.join("unzipped")))?;
            if let Some(private) = network.private() {
                let namespace =
                    private.namespace.try_clone().context("could not duplicate a namespace's descriptor")?;
                program.enter(namespace, LinkNameSpaceType::Network);
            }
            Ok(Plan {
                program: (program, console),
                files: specification.files(),
                readiness: specification.readiness(&network),
                roles: ROLES,
                network: Some(network),
                conditions: BTreeMap::from([("scratch".into(), scratch_kind.into())]),
            })
        })
    }
}

/// Makes the directory in which the workload may write: like the others' a tmpfs, where that is permitted. Says which.
fn make_scratch(path: &Path) -> Result<&'static str> {
    fs::create_dir(path).with_context(|| format!("could not make {}", path.display()))?;
    if missing_capabilities().is_some() {
        return Ok("directory");
    }
    let options = CString::new(format!("mode=700,{SCRATCH_SIZE}")).context("mount options with a NUL")?;
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .with_context(|| format!("could not mount a tmpfs on {}", path.display()))?;
    Ok("tmpfs")
}
