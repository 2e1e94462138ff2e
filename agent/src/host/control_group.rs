//! Control groups of both versions: by which names they are found, where their files are, and who is in them.

use procfs::process::Process;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

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

/// The control groups that a process is in, with those above them, in each hierarchy that is mounted.
pub fn of_process(process: &Process) -> BTreeSet<ControlGroup> {
    let hierarchies = hierarchies();
    let mut found = BTreeSet::new();
    for group in process.cgroups().into_iter().flatten() {
        let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.number == group.hierarchy) else {
            continue;
        };
        let below = group.pathname.strip_prefix(hierarchy.root.trim_end_matches('/')).unwrap_or(&group.pathname);
        let directory = hierarchy.mount_point.join(below.trim_start_matches('/'));
        let above = directory.ancestors().take_while(|path| path.starts_with(&hierarchy.mount_point));
        found.extend(above.filter_map(|path| hierarchy.group(path.to_owned())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_does_not_exist_is_nothing() {
        assert_eq!(ControlGroup::named(Path::new("/sandscope-no-such-group")), []);
    }

    #[test]
    fn this_process_is_in_the_groups_that_it_is_said_to_be_in() {
        let own = std::process::id();
        for group in of_process(&Process::myself().unwrap()) {
            assert!(group.threads().contains(&own), "{group:?}");
            let named = ControlGroup::named(&group.directory.join("cgroup.procs"));
            assert_eq!(named, [group], "a folder and its file are one name");
        }
    }

    #[test]
    fn the_root_has_a_name() {
        for group in ControlGroup::named(Path::new("/")) {
            assert!(group.path.as_deref().is_none_or(|path| path.starts_with('/')), "{group:?}");
        }
    }
}
