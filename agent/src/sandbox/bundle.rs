//! The OCI bundle that runc and runsc start: the workload, its file, and as little else as they accept.
//!
//! Unless a copy is asked for, the workload's files are not copied: a hard link, or where the file systems differ a bind mount,
//! leads to the same inode, so that all sandboxes and the host share its pages in the page cache and "primed" means the same
//! for each.

use super::{
    Specification,
    child::SEARCH_PATH,
    files,
    journal::{Journal, Resource},
    network::Network,
    undo::CGROUP_PREFIX,
};
use crate::workload::Content;
use anyhow::{Context as _, Result, ensure};
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, SpecBuilder, UserBuilder, get_default_maskedpaths, get_default_readonly_paths,
};
use rustix::process::{Resource as Limit, getrlimit};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the file of `/static` is, inside.
pub const STATIC_FILE: &str = "/static_file";

/// Where the workload may write, inside: a directory that it makes itself on the tmpfs `/tmp`.
pub const SCRATCH: &str = "/tmp/unzipped";

/// Most that a workload may write to its tmpfs.
pub const SCRATCH_SIZE: &str = "size=1g";

/// Open files that a workload may have, if the host lets it: enough for a burst of connections.
const OPEN_FILES: u64 = 65_536;

/// A bundle on disk.
#[derive(Debug)]
pub struct Bundle {
    /// The directory to give to the runtime.
    pub path: PathBuf,
    /// How its files came to it, such as `hard link`.
    pub files: &'static str,
}

impl Bundle {
    /// Makes the bundle of an instance in its directory, with the cgroup `sandscope-LABEL`.
    ///
    /// # Errors
    /// When the workload can't be used, or the host refuses a file, mount or cgroup.
    pub fn prepare(specification: &Specification, network: &Network, journal: &mut Journal) -> Result<Self> {
        let path = specification.directory.join("bundle");
        fs::create_dir_all(&path).with_context(|| format!("could not make {}", path.display()))?;
        let files = files::provide(specification, &path, "rootfs", STATIC_FILE)?;
        let cgroup = format!("/{CGROUP_PREFIX}{}", specification.label);
        record_cgroups(&cgroup, journal)?;

        let linux = LinuxBuilder::default()
            .namespaces(namespaces(network)?)
            .cgroups_path(cgroup)
            .resources(resources(specification)?)
            .masked_paths(get_default_maskedpaths())
            .readonly_paths(get_default_readonly_paths());
        let spec = SpecBuilder::default()
            // What is used here is as old as that; runtimes refuse a newer version than theirs.
            .version("1.0.2")
            .hostname(specification.label.clone())
            .root(RootBuilder::default().path("rootfs").readonly(files != "overlay").build()?)
            .process(process(specification, network)?)
            .mounts(mounts(specification)?)
            .linux(linux.build()?)
            .build()?;
        let config = path.join("config.json");
        spec.save(&config).with_context(|| format!("could not write {}", config.display()))?;
        Ok(Self { path, files })
    }
}

/// The path below the root directory of what is at the absolute `path` inside.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn resources(specification: &Specification) -> Result<LinuxResources> {
    /// Of a CPU bandwidth limit, in microseconds: the kernel's default.
    const PERIOD_US: u64 = 100_000;
    let limits = &specification.resources;
    let mut resources = LinuxResourcesBuilder::default()
        .devices([LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?]);
    if let Some(bytes) = limits.memory_bytes {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(i64::try_from(bytes)?).build()?);
    }
    if let Some(cpus) = limits.vcpus {
        let quota_us = i64::from(cpus) * PERIOD_US as i64;
        resources = resources.cpu(LinuxCpuBuilder::default().period(PERIOD_US).quota(quota_us).build()?);
    }
    Ok(resources.build()?)
}

/// Writes down every directory that the runtime may make for this cgroup: one in each hierarchy.
fn record_cgroups(cgroup: &str, journal: &mut Journal) -> Result<()> {
    let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo());
    for mount in mounts.context("could not read /proc/self/mountinfo")? {
        if !matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2") {
            continue;
        }
        let path = inside(&mount.mount_point, cgroup);
        ensure!(
            !path.exists(),
            "the cgroup {} exists: `sandscope clean` removes what a killed run left",
            path.display()
        );
        journal.record(&Resource::Cgroup { path })?;
    }
    Ok(())
}

fn namespaces(network: &Network) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network as Net, Pid, Uts};
    let mut kinds = vec![Pid, Ipc, Uts, Mount];
    if Path::new("/proc/self/ns/cgroup").exists() {
        kinds.push(Cgroup);
    }
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = kinds.into_iter().map(new).collect::<Result<Vec<_>, _>>()?;
    if let Some(private) = network.private() {
        namespaces.push(LinuxNamespaceBuilder::default().typ(Net).path(&private.namespace_path).build()?);
    }
    Ok(namespaces)
}

fn process(specification: &Specification, network: &Network) -> Result<Process> {
    let none = Capabilities::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none.clone())
        .effective(none.clone())
        .inheritable(none.clone())
        .permitted(none.clone())
        .ambient(none)
        .build()?;
    // Without CAP_SYS_RESOURCE a runtime can't raise the limit.
    let open_files = getrlimit(Limit::Nofile).maximum.map_or(OPEN_FILES, |limit| limit.min(OPEN_FILES));
    let mut arguments = specification.workload.content.command();
    let static_file = specification.workload.static_file.as_ref().map(|_| Path::new(STATIC_FILE));
    arguments.extend(specification.arguments(network, static_file, Path::new(SCRATCH)));
    Ok(ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(arguments)
        .env([format!("PATH={SEARCH_PATH}")])
        .cwd("/")
        .capabilities(capabilities)
        .rlimits([PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .hard(open_files)
            .soft(open_files)
            .build()?])
        .no_new_privileges(true)
        .build()?)
}

fn mounts(specification: &Specification) -> Result<Vec<Mount>> {
    let options = |options: &[&str]| options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>();
    let mut mounts = vec![
        MountBuilder::default().destination("/proc").typ("proc").source("proc").options(Vec::new()).build()?,
        MountBuilder::default()
            .destination("/dev")
            .typ("tmpfs")
            .source("tmpfs")
            .options(options(&["nosuid", "mode=755", "size=64k"]))
            .build()?,
        MountBuilder::default()
            .destination("/tmp")
            .typ("tmpfs")
            .source("tmpfs")
            .options(options(&["nosuid", "nodev", "noexec", "mode=1777", SCRATCH_SIZE]))
            .build()?,
    ];
    // A root file system is used as it is, so nothing can be linked into it.
    if let (Content::Root(_), Some(file)) = (&specification.workload.content, &specification.workload.static_file) {
        let file = file.canonicalize().with_context(|| format!("could not find {}", file.display()))?;
        let bind = MountBuilder::default().destination(STATIC_FILE).typ("bind").source(file);
        mounts.push(bind.options(options(&["bind", "ro"])).build()?);
    }
    Ok(mounts)
}
