//! What can be attached to: how it is named, and which processes of the host it consists of.

use super::members::{Members, threads_of};
use crate::{host::control_group::ControlGroup, sandbox::docker::daemon::Daemon};
use anyhow::{Context, Result, bail};
use procfs::process::{FDTarget, Process, all_processes};
use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    path::{Path, PathBuf},
    str::FromStr,
};

/// How targets are named.
pub const SYNTAX: &str =
    "pid:NUMBER, cgroup:PATH, container:NAME_OR_ID, firecracker:ID_OR_PID, qemu:NAME_OR_PID or all-vms";

/// Somebody to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A process and its descendants.
    Pid(i32),
    /// The processes of a control group and of those below it.
    Cgroup(PathBuf),
    /// A container of the Docker daemon.
    Container(String),
    /// A Firecracker, by the id that it was given or by its process.
    Firecracker(String),
    /// A QEMU, by the name that it was given or by its process.
    Qemu(String),
    /// Every process with a KVM virtual machine, each for itself.
    AllVms,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all-vms" {
            return Ok(Self::AllVms);
        }
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(|| wrong(text))?;
        Ok(match kind {
            "pid" => match name.parse() {
                Ok(pid) if pid > 0 => Self::Pid(pid),
                _ => return Err(format!("{name:?} is no process number")),
            },
            "cgroup" => Self::Cgroup(name.into()),
            "container" => Self::Container(name.to_owned()),
            "firecracker" => Self::Firecracker(name.to_owned()),
            "qemu" => Self::Qemu(name.to_owned()),
            _ => return Err(wrong(text)),
        })
    }
}

fn wrong(text: &str) -> String {
    format!("{text:?} names no target: use {SYNTAX}")
}

impl Display for Target {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(out, "pid:{pid}"),
            Self::Cgroup(path) => write!(out, "cgroup:{}", path.display()),
            Self::Container(name) => write!(out, "container:{name}"),
            Self::Firecracker(id) => write!(out, "firecracker:{id}"),
            Self::Qemu(name) => write!(out, "qemu:{name}"),
            Self::AllVms => out.write_str("all-vms"),
        }
    }
}

/// A target that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is called in the results.
    pub name: String,
    /// Who belongs to it.
    pub members: Members,
}

impl Found {
    fn tree(name: impl Into<String>, pid: i32) -> Self {
        Self { name: name.into(), members: Members::tree(pid) }
    }
}

impl Target {
    /// Looks the target up; several for [`Target::AllVms`].
    ///
    /// # Errors
    /// When there is no such thing; says what was looked for and where.
    pub async fn find(&self) -> Result<Vec<Found>> {
        let name = self.to_string();
        match self {
            Self::Pid(pid) => Ok(vec![Found { name, members: process(*pid)? }]),
            Self::Cgroup(path) => Ok(vec![Found { name, members: group(path)? }]),
            Self::Container(container) => Ok(vec![Found { name, members: of_container(container).await? }]),
            Self::Firecracker(id) => Ok(vec![vmm(name, id, "firecracker", &["--id"])?]),
            Self::Qemu(id) => Ok(vec![vmm(name, id, "qemu-system", &["-name", "--name"])?]),
            Self::AllVms => {
                let found: Vec<Found> =
                    vms().into_iter().map(|(pid, comm)| Found::tree(format!("{comm}:{pid}"), pid)).collect();
                if found.is_empty() {
                    bail!("no process of this host has a KVM virtual machine open that this user may see");
                }
                Ok(found)
            }
        }
    }
}

/// A process, named by the number of its first thread.
fn process(pid: i32) -> Result<Members> {
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

async fn of_container(name: &str) -> Result<Members> {
    let daemon = Daemon::connect().await?;
    let details = daemon.client.inspect_container(name, None).await;
    let details = details.with_context(|| format!("the Docker daemon has no container {name:?}"))?;
    let pid = details.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
    let pid = pid.with_context(|| format!("the container {name:?} does not run"))?;
    // Runtimes with a process beside the container's own (a gofer, a VMM) keep them in its control groups.
    let id = details.id.unwrap_or_default();
    let groups = if id.is_empty() { Vec::new() } else { ControlGroup::matching(|group| group.contains(&id)) };
    Ok(Members { roots: [pid].into(), groups })
}

/// The VMM whose program's name begins with `program`, by its process number or by the value of one of these options.
fn vmm(name: String, wanted: &str, program: &str, options: &[&str]) -> Result<Found> {
    let all = all_processes().context("can't read the processes of this host")?;
    let mut matches = Vec::new();
    for process in all.filter_map(Result::ok) {
        let Ok(arguments) = process.cmdline() else { continue };
        let Some(executable) = arguments.first().and_then(|path| Path::new(path).file_name()?.to_str()) else {
            continue;
        };
        if !executable.starts_with(program) {
            continue;
        }
        let named = options.iter().any(|option| value_of(&arguments, option).is_some_and(|value| value == wanted));
        if named || wanted.parse() == Ok(process.pid) {
            matches.push(process.pid);
        }
    }
    match matches[..] {
        [pid] => Ok(Found::tree(name, pid)),
        [] => bail!("no {program} process runs with the number or the {} {wanted:?}", options[0]),
        _ => bail!("{} {program} processes match {wanted:?}: {matches:?}; choose one by its number", matches.len()),
    }
}

/// Value of an option; of a list of properties (`guest=a,debug-threads=on`) the first.
fn value_of<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| {
        argument == option || argument.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
    })?;
    let value = match arguments[at].split_once('=') {
        Some((name, value)) if name == option => value,
        _ => arguments.get(at + 1)?,
    };
    let first = value.split(',').next()?;
    Some(first.strip_prefix("guest=").unwrap_or(first))
}

/// Processes that have a KVM virtual machine open, with their names.
fn vms() -> Vec<(i32, String)> {
    let Ok(all) = all_processes() else { return Vec::new() };
    all.filter_map(|process| {
        let process = process.ok()?;
        let is_vm = |target: FDTarget| matches!(target, FDTarget::AnonInode(name) if name == "kvm-vm");
        let has_vm = process.fd().ok()?.filter_map(Result::ok).any(|fd| is_vm(fd.target));
        has_vm.then_some(())?;
        Some((process.pid, process.stat().ok()?.comm))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["pid:12", "cgroup:/a/b", "container:web", "firecracker:vm1", "qemu:dev", "all-vms"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (text, complaint) in [
            ("pid:x", "no process number"),
            ("pid:-3", "no process number"),
            ("web", "names no target"),
            ("pid:", "use pid:"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn the_name_of_a_vm_is_the_first_property() {
        let arguments = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(value_of(&arguments("qemu -name guest=dev,debug-threads=on -m 64"), "-name"), Some("dev"));
        assert_eq!(value_of(&arguments("firecracker --id=vm1 --no-api"), "--id"), Some("vm1"));
        assert_eq!(value_of(&arguments("firecracker --id vm1"), "--id"), Some("vm1"));
        assert_eq!(value_of(&arguments("qemu -m 64"), "-name"), None);
    }
}
