//! The workload as an ordinary process of the host: no isolation but a network of its own. The floor for containers.

use super::{
    Instance, RoleRule, Sandbox, Specification, Support,
    bundle::SCRATCH_SIZE,
    child::Program,
    files,
    instance::{HostInstance, Plan},
    network::Network,
    runtime::missing_capabilities,
};
use crate::workload::Content;
use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountFlags, mount, mount_bind},
    thread::LinkNameSpaceType,
};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

/// The kind `process`.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {}

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
            workload.content.check()?;
            let network = Network::prepare(specification, journal)?;
            let Surroundings { root, static_file, scratch, scratch_kind, files } = surround(specification)?;
            let command = workload.content.command();
            let path = match &workload.content {
                Content::Executable(path) => path.clone(),
                Content::Root(_) => PathBuf::from(&command[0]),
            };
            let (mut program, console) = Program::new(&path, &specification.directory)?;
            program.arguments(&command[1..])?;
            program.arguments(specification.arguments(&network, static_file.as_deref(), &scratch))?;
            if let Some(root) = root {
                program.root(&root)?;
            }
            if let Some(private) = network.private() {
                let namespace =
                    private.namespace.try_clone().context("could not duplicate a namespace's descriptor")?;
                program.enter(namespace, LinkNameSpaceType::Network);
            }
            if !specification.resources.console {
                program.silence()?;
            }
            Ok(Plan {
                program: (program, console),
                files: workload.files(),
                readiness: specification.readiness(&network),
                roles: ROLES,
                network: Some(network),
                conditions: BTreeMap::from([
                    ("scratch".into(), scratch_kind.into()),
                    ("files".into(), files.into()),
                    ("limits".into(), "none: a process of the host has no limits of its own".into()),
                ]),
            })
        })
    }
}

/// What the workload finds around it; paths as it sees them.
struct Surroundings {
    /// Its root directory on the host, unless that is the host's.
    root: Option<PathBuf>,
    static_file: Option<PathBuf>,
    scratch: PathBuf,
    scratch_kind: &'static str,
    files: &'static str,
}

/// A static executable runs where it is. One that brings its own libraries sees its own root file system, and on it the host's
/// `/proc` and `/dev`: it is still not isolated.
fn surround(specification: &Specification) -> Result<Surroundings> {
    const STATIC_FILE: &str = "/static_file";
    let workload = &specification.workload;
    let Content::Root(_) = &workload.content else {
        let scratch = specification.directory.join("scratch");
        let scratch_kind = make_scratch(&scratch)?;
        return Ok(Surroundings {
            root: None,
            static_file: workload.static_file.clone(),
            scratch: scratch.join("unzipped"),
            scratch_kind,
            files: "the host's",
        });
    };
    if let Some(missing) = missing_capabilities() {
        bail!("{missing}: the workload `{}` needs a root file system of its own; run as root", workload.name);
    }
    let files = files::provide(specification, &specification.directory, "root", STATIC_FILE)?;
    let root = specification.directory.join("root");
    // Not recursive: undoing it would reach the mounts below the host's own folders where mounts propagate.
    let bind = |from: &Path, inside: &str| {
        let target = root.join(inside.trim_start_matches('/'));
        mount_bind(from, &target).with_context(|| format!("could not bind {} to {}", from.display(), target.display()))
    };
    bind(Path::new("/proc"), "proc")?;
    bind(Path::new("/dev"), "dev")?;
    if let Some(file) = &workload.static_file {
        bind(file, STATIC_FILE)?;
    }
    mount_scratch(&root.join("tmp"))?;
    Ok(Surroundings {
        root: Some(root),
        static_file: workload.static_file.as_ref().map(|_| STATIC_FILE.into()),
        scratch: "/tmp/unzipped".into(),
        scratch_kind: "tmpfs",
        files,
    })
}

/// Makes the directory in which the workload may write: like the others' a tmpfs, where that is permitted. Says which.
fn make_scratch(path: &Path) -> Result<&'static str> {
    fs::create_dir(path).with_context(|| format!("could not make {}", path.display()))?;
    if missing_capabilities().is_some() {
        return Ok("directory");
    }
    mount_scratch(path)?;
    Ok("tmpfs")
}

fn mount_scratch(path: &Path) -> Result<()> {
    let options = CString::new(format!("mode=700,{SCRATCH_SIZE}")).context("mount options with a NUL")?;
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .with_context(|| format!("could not mount a tmpfs on {}", path.display()))
}
