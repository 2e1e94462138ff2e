//! What the kernel has in memory on behalf of an instance: page tables, stacks, slabs, sockets. No process maps it, so only the
//! instance's cgroup tells.

use procfs::process::Process;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Memory of a cgroup by what it is, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMemory {
    /// The cgroup, below the root of its hierarchy.
    pub cgroup: String,
    /// By the kernel's own names, such as `kernel_stack`; `kernel` is the sum.
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// Names of `memory.stat` in version 2 that are memory of the kernel; `kernel` (since 5.18) is their sum and what has no name.
const KINDS: [&str; 9] = [
    "kernel",
    "kernel_stack",
    "pagetables",
    "sec_pagetables",
    "percpu",
    "sock",
    "vmalloc",
    "slab_reclaimable",
    "slab_unreclaimable",
];

/// The hierarchy that counts memory.
enum Hierarchy {
    /// Version 2, mounted here.
    Unified(PathBuf),
    /// Version 1, mounted here.
    Memory(PathBuf),
}

/// Memory of the cgroups that these processes are in, without the one of the agent: what is in that can't be told apart from what
/// the agent itself has.
pub fn of_processes(pids: &[i32]) -> Vec<KernelMemory> {
    let Some(hierarchy) = hierarchy() else { return Vec::new() };
    let own = Process::myself().ok().and_then(|own| cgroup_of(own.pid, &hierarchy));
    let cgroups: BTreeSet<String> = pids.iter().filter_map(|&pid| cgroup_of(pid, &hierarchy)).collect();
    let others = cgroups.into_iter().filter(|cgroup| Some(cgroup) != own.as_ref() && cgroup != "/");
    others.filter_map(|cgroup| read(&hierarchy, cgroup)).collect()
}

/// The hierarchy whose controller is `memory`: version 1's where it is mounted, since a controller can be in only one.
fn hierarchy() -> Option<Hierarchy> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    let mut unified = None;
    for mount in mounts {
        match mount.fs_type.as_str() {
            "cgroup" if mount.super_options.contains_key("memory") => {
                return Some(Hierarchy::Memory(mount.mount_point));
            }
            "cgroup2" => unified = unified.or(Some(mount.mount_point)),
            _ => (),
        }
    }
    unified.map(Hierarchy::Unified)
}

fn cgroup_of(pid: i32, hierarchy: &Hierarchy) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup_in(&text, matches!(hierarchy, Hierarchy::Unified(_)))
}

/// Lines are `NUMBER:CONTROLLERS:PATH`; version 2 has the number 0 and no controllers.
fn cgroup_in(text: &str, unified: bool) -> Option<String> {
    text.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = if unified { number == "0" } else { controllers.split(',').any(|name| name == "memory") };
        is_it.then(|| path.to_owned())
    })
}

fn read(hierarchy: &Hierarchy, cgroup: String) -> Option<KernelMemory> {
    let inside = Path::new(cgroup.trim_start_matches('/'));
    let by_kind = match hierarchy {
        Hierarchy::Unified(mount) => {
            let text = fs::read_to_string(mount.join(inside).join("memory.stat")).ok()?;
            kinds(&text)
        }
        Hierarchy::Memory(mount) => {
            let text = fs::read_to_string(mount.join(inside).join("memory.kmem.usage_in_bytes")).ok()?;
            BTreeMap::from([("kernel", text.trim().parse().ok()?)])
        }
    };
    Some(KernelMemory { cgroup, by_kind })
}

fn kinds(text: &str) -> BTreeMap<&'static str, u64> {
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let name = KINDS.into_iter().find(|known| *known == name)?;
        Some((name, value.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let text = "4:memory:/sandscope-a1/x\n1:name=systemd:/user\n0::/unified\n";
        assert_eq!(cgroup_in(text, false).as_deref(), Some("/sandscope-a1/x"));
        assert_eq!(cgroup_in(text, true).as_deref(), Some("/unified"));
        assert_eq!(cgroup_in("1:cpu,cpuacct:/\n", false), None);
    }

    #[test]
    fn memory_of_the_kernel_is_told_from_that_of_processes() {
        let found = kinds("anon 4096\nkernel 8192\nkernel_stack 4096\nslab_reclaimable 12\nworkingset 3\n");
        assert_eq!(found, BTreeMap::from([("kernel", 8192), ("kernel_stack", 4096), ("slab_reclaimable", 12)]));
    }
}
