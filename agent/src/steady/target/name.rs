//! How targets are named on the command line.

use super::vmm::Kind;
use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
    str::FromStr,
};

/// How targets are named.
pub const SYNTAX: &str = "pid:NUMBER, cgroup:PATH, container:NAME_OR_ID, all-vms, or vm:NAME with the name, number or socket of a VM; \
    qemu:NAME, firecracker:NAME, cloud-hypervisor:NAME, crosvm:NAME and libkrun:NAME look among VMs of that kind alone";

/// Somebody to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A process and its descendants.
    Pid(i32),
    /// The processes of a control group and of those below it.
    Cgroup(PathBuf),
    /// A container of any engine.
    Container(String),
    /// A virtual machine of a kind, or of any: by the name that it was given, the number of its process, or its socket.
    Vm(Option<Kind>, String),
    /// Every virtual machine, each for itself.
    AllVms,
}

/// What stands before the colon for a virtual machine of any kind.
const ANY_VM: &str = "vm";

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
            ANY_VM => Self::Vm(None, name.to_owned()),
            _ => {
                let known = Kind::ALL.into_iter().find(|known| known.prefix() == kind);
                Self::Vm(Some(known.ok_or_else(|| wrong(text))?), name.to_owned())
            }
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
            Self::Vm(kind, name) => write!(out, "{}:{name}", kind.map_or(ANY_VM, Kind::prefix)),
            Self::AllVms => out.write_str("all-vms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in [
            "pid:12",
            "cgroup:/a/b",
            "container:web",
            "container:shop/web",
            "firecracker:vm1",
            "firecracker:/run/a.sock",
            "qemu:dev",
            "qemu:a,b c",
            "cloud-hypervisor:/run/c.sock",
            "crosvm:12",
            "libkrun:web",
            "vm:dev:1",
            "all-vms",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (text, complaint) in [
            ("pid:x", "no process number"),
            ("pid:-3", "no process number"),
            ("pid:0", "no process number"),
            ("web", "names no target"),
            ("pid:", "use pid:"),
            ("vmware:x", "names no target"),
            ("vm:", "names no target"),
            ("QEMU:dev", "names no target"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
