//! Who belongs to a target at any time: the descendants of processes, and the threads in control groups. A target is looked at
//! again and again, since what matters is who is there now.
//!
//! What sandscope itself is, or has started, belongs to no target: it would be in its own figures.

use crate::{
    host::control_group::ControlGroup,
    measure::{memory::living::lives, run_time},
};
use procfs::process::all_processes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Who belongs to a target. Both may be given; then whoever is in either belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// These processes and all that descend from them.
    pub roots: BTreeSet<i32>,
    /// The threads in these control groups and in those below them.
    pub groups: Vec<ControlGroup>,
}

impl Members {
    /// The process and its descendants.
    pub fn tree(pid: i32) -> Self {
        Self { roots: [pid].into(), groups: Vec::new() }
    }

    /// Its threads that are there now, each with its process. What has ended and is not taken notice of is no thread.
    pub fn threads(&self) -> BTreeMap<u32, u32> {
        let parents = parents();
        let mut own = descendants([own_pid()].into(), &parents);
        // Who names something that this process has started means it.
        let named = self.roots.iter().filter(|&&root| root != own_pid() && own.contains(&root)).copied().collect();
        for pid in descendants(named, &parents) {
            own.remove(&pid);
        }
        let mut threads = BTreeMap::new();
        if !self.roots.is_empty() {
            for pid in descendants(self.roots.clone(), &parents).difference(&own) {
                threads.extend(threads_of(pid.cast_unsigned()).into_iter().map(|tid| (tid, pid.cast_unsigned())));
            }
        }
        let grouped: BTreeSet<u32> = self.groups.iter().flat_map(ControlGroup::threads).collect();
        for tid in grouped {
            let Some(pid) = process_of(tid).filter(|pid| !own.contains(&pid.cast_signed())) else { continue };
            threads.entry(tid).or_insert(pid);
        }
        threads
    }

    /// Threads that are in its control groups now and were not when `known` was written, each with its process; `known` is what is there
    /// now. What descends from members is followed without being looked for.
    pub fn joined(&self, known: &mut BTreeSet<u32>) -> BTreeMap<u32, u32> {
        let grouped: BTreeSet<u32> = self.groups.iter().flat_map(ControlGroup::threads).collect();
        let new = grouped.difference(known).filter_map(|&tid| Some((tid, process_of(tid)?)));
        let new = new.filter(|(_, pid)| pid.cast_signed() != own_pid()).collect();
        *known = grouped;
        new
    }

    /// Its processes that are there now.
    pub fn processes(&self) -> BTreeSet<i32> {
        self.threads().into_values().map(u32::cast_signed).collect()
    }
}

/// Threads of a process that have not ended; none when it has. A process lives as long as any of its threads, the first or not.
pub(super) fn threads_of(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let numbers = tasks.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
    let mut threads: BTreeSet<u32> = numbers.collect();
    // Only the first stays when it ends before the others.
    if threads.contains(&pid) && !run_time::status(pid, pid).is_some_and(|status| lives(status.state)) {
        threads.remove(&pid);
    }
    threads
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
        assert_eq!(Members::tree(pid).processes(), [pid].into(), "it is named");
        let above = parents()[&parent];
        let seen = Members::tree(above).processes();
        assert!(!seen.contains(&parent) && !seen.contains(&pid), "{seen:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
