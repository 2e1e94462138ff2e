//! Who belongs to a target at any time: the descendants of processes, and the threads in control groups. A target is looked at
//! again and again, since what matters is who is there now.
//!
//! What sandscope itself is, or has started, belongs to no target: it would be in its own figures.

use procfs::process::{Process, all_processes};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Who belongs to a target. Both may be given; then whoever is in either belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// These processes and all that descend from them.
    pub roots: BTreeSet<i32>,
    /// The threads in these control groups and in those below them.
    pub groups: Vec<ControlGroup>,
}

/// A control group of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ControlGroup {
    /// Its folder.
    pub directory: PathBuf,
    /// Number of its hierarchy, as the kernel gives them out; 0 is that of version 2.
    pub hierarchy: u32,
    /// Its name from the root of the hierarchy, such as `/system.slice/docker-4711.scope`; `/` is the root. `None` where this
    /// process sees only a part of the hierarchy.
    pub path: Option<String>,
}

/// A hierarchy of control groups that is mounted.
struct Hierarchy {
    number: u32,
    mount_point: PathBuf,
    /// What of the hierarchy is mounted there.
    root: String,
}

impl Members {
    /// The process and its descendants.
    pub fn tree(pid: i32) -> Self {
        Self { roots: [pid].into(), groups: Vec::new() }
    }

    /// Its threads that are there now, each with its process. What has ended and is not taken notice of is no thread.
    pub fn threads(&self) -> BTreeMap<u32, u32> {
        let parents = parents();
        let own = descendants([own_pid()].into(), &parents);
        let mut threads = BTreeMap::new();
        if !self.roots.is_empty() {
            for pid in descendants(self.roots.clone(), &parents).difference(&own) {
                threads.extend(threads_of(pid.cast_unsigned()).into_iter().map(|tid| (tid, pid.cast_unsigned())));
            }
        }
        let grouped: BTreeSet<u32> = self.groups.iter().flat_map(|group| group.threads()).collect();
        for tid in grouped {
            let Some(pid) = process_of(tid).filter(|pid| !own.contains(&pid.cast_signed())) else { continue };
            threads.entry(tid).or_insert(pid);
        }
        threads
    }

    /// Its processes that are there now.
    pub fn processes(&self) -> BTreeSet<i32> {
        self.threads().into_values().map(u32::cast_signed).collect()
    }
}

impl ControlGroup {
    /// The control groups that a name means: a folder, or a path from the root of a hierarchy, in each hierarchy that has it. The
    /// name may also be that of one of their files, such as `cgroup.procs`.
    pub fn named(path: &Path) -> Vec<Self> {
        const FILES: [&str; 3] = ["cgroup.procs", "cgroup.threads", "tasks"];
        let is_file = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| FILES.contains(&name));
        let path = if is_file { path.parent().unwrap_or(path) } else { path };
        let hierarchies = hierarchies();
        let inside = hierarchies.iter().filter(|hierarchy| path.starts_with(&hierarchy.mount_point));
        if let Some(hierarchy) = inside.max_by_key(|hierarchy| hierarchy.mount_point.as_os_str().len()) {
            return hierarchy.group(path.to_owned()).into_iter().collect();
        }
        let relative = path.strip_prefix("/").unwrap_or(path);
        hierarchies.iter().filter_map(|hierarchy| hierarchy.group(hierarchy.mount_point.join(relative))).collect()
    }

    /// The control groups whose own name `wanted` accepts, in every hierarchy.
    pub fn matching(wanted: impl Fn(&str) -> bool) -> Vec<Self> {
        let mut found = Vec::new();
        for hierarchy in hierarchies() {
            let mut waiting = vec![hierarchy.mount_point.clone()];
            while let Some(directory) = waiting.pop() {
                for below in folders(&directory) {
                    let name = below.file_name().and_then(|name| name.to_str());
                    if name.is_some_and(&wanted) {
                        found.extend(hierarchy.group(below));
                    } else {
                        waiting.push(below);
                    }
                }
            }
        }
        found
    }

    /// The threads in it and below.
    pub fn threads(&self) -> BTreeSet<u32> {
        let mut threads = BTreeSet::new();
        let mut waiting = vec![self.directory.clone()];
        while let Some(directory) = waiting.pop() {
            // Those of version 2 and of version 1. `cgroup.procs` can't be read in a threaded group.
            let list =
                ["cgroup.threads", "tasks"].iter().find_map(|name| fs::read_to_string(directory.join(name)).ok());
            threads.extend(list.unwrap_or_default().lines().filter_map(|line| line.parse::<u32>().ok()));
            waiting.extend(folders(&directory));
        }
        // Those of another pid namespace have no number here.
        threads.remove(&0);
        threads
    }
}

impl Hierarchy {
    fn group(&self, directory: PathBuf) -> Option<ControlGroup> {
        if !directory.join("cgroup.procs").exists() {
            return None;
        }
        let below = directory.strip_prefix(&self.mount_point).ok()?.to_str()?;
        let path = format!("{}/{below}", self.root.trim_end_matches('/'));
        let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
        // Seen from a control-group namespace what is above it has no names.
        let is_whole = !path.split('/').any(|part| part == "..");
        Some(ControlGroup { directory, hierarchy: self.number, path: is_whole.then_some(path) })
    }
}

/// The hierarchies that are mounted, each once.
fn hierarchies() -> Vec<Hierarchy> {
    let Ok(own) = Process::myself() else { return Vec::new() };
    let (Ok(mounts), Ok(groups)) = (own.mountinfo(), own.cgroups()) else { return Vec::new() };
    let mut found: BTreeMap<u32, Hierarchy> = BTreeMap::new();
    for mount in mounts {
        let number = match mount.fs_type.as_str() {
            "cgroup2" => 0,
            "cgroup" => {
                let has = |controller: &String| match controller.split_once('=') {
                    Some((name, value)) => mount.super_options.get(name) == Some(&Some(value.to_owned())),
                    None => mount.super_options.contains_key(controller),
                };
                let group = groups.0.iter().find(|group| group.hierarchy != 0 && group.controllers.iter().all(has));
                let Some(group) = group else { continue };
                group.hierarchy
            }
            _ => continue,
        };
        found.entry(number).or_insert(Hierarchy { number, mount_point: mount.mount_point, root: mount.root });
    }
    found.into_values().collect()
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Threads of a process that have not ended; none when it has. A process lives as long as any of its threads, the first or not.
pub(super) fn threads_of(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let numbers = tasks.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
    let mut threads: BTreeSet<u32> = numbers.collect();
    // Only the first stays when it ends before the others.
    if threads.contains(&pid) && matches!(state_of(pid, pid), None | Some('Z' | 'X')) {
        threads.remove(&pid);
    }
    threads
}

/// The letter for what a thread does. By the file of the thread: that of the process sums up over all its threads.
pub(super) fn state_of(pid: u32, tid: u32) -> Option<char> {
    let text = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // After the name, which may hold anything, also parentheses.
    let after = text.iter().rposition(|&byte| byte == b')')? + 2;
    text.get(after).map(|&letter| char::from(letter))
}

fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// Each process with its parent.
fn parents() -> BTreeMap<i32, i32> {
    let Ok(all) = all_processes() else { return BTreeMap::new() };
    let stats = all.filter_map(|process| process.ok()?.status().ok());
    stats.map(|status| (status.pid, status.ppid)).collect()
}

/// Processes and everything that descends from them.
fn descendants(mut known: BTreeSet<i32>, parents: &BTreeMap<i32, i32>) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (&pid, &parent) in parents {
        children.entry(parent).or_default().push(pid);
    }
    let mut waiting: Vec<i32> = known.iter().copied().collect();
    while let Some(pid) = waiting.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if known.insert(child) {
                waiting.push(child);
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_descendants_belong_and_strangers_do_not() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)].into();
        assert_eq!(descendants([2].into(), &parents), [2, 3, 4].into());
        assert_eq!(descendants([1].into(), &parents), [1, 2, 3, 4, 5, 6].into());
        assert_eq!(descendants([7].into(), &parents), [7].into());
    }

    #[test]
    fn a_child_belongs_to_its_parent_but_nothing_of_this_process_to_any_target() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let parent = parents()[&pid];
        assert_eq!(parent, own_pid());
        assert!(descendants([parent].into(), &parents()).contains(&pid));
        assert!(Members::tree(parent).threads().is_empty(), "this process and what it starts");
        let above = parents()[&parent];
        let seen = Members::tree(above).processes();
        assert!(!seen.contains(&parent) && !seen.contains(&pid), "{seen:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_group_that_does_not_exist_is_nothing() {
        assert_eq!(ControlGroup::named(Path::new("/sandscope-no-such-group")), []);
    }
}
