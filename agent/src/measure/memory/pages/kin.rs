//! Processes without which the agent can't go on, so that it must never stop them: itself, those that it descends from, and those
//! that lead its session and its group of processes.
//!
//! A shell that is stopped no longer hands on what is typed, `sudo` no longer hands on signals, and an agent that stops itself waits
//! for itself for good. A target may contain them: the own shell, the control group of the own session, all that is below process 1.

use procfs::process::{Process, Stat};
use std::collections::BTreeSet;

/// The agent and those that it descends from.
pub fn lineage() -> BTreeSet<i32> {
    lineage_of(std::process::id().cast_signed(), stat_of)
}

/// Those of these processes that descend from the agent: its helpers.
pub fn descendants(pids: &BTreeSet<i32>) -> BTreeSet<i32> {
    let own = std::process::id().cast_signed();
    pids.iter().copied().filter(|&pid| pid != own && ancestors(pid, stat_of).contains(&own)).collect()
}

/// Who a process descends from, and how it is grouped.
#[derive(Clone, Copy)]
struct Parentage {
    parent: i32,
    group: i32,
    session: i32,
}

fn stat_of(pid: i32) -> Option<Parentage> {
    let Stat { ppid, pgrp, session, .. } = Process::new(pid).ok()?.stat().ok()?;
    Some(Parentage { parent: ppid, group: pgrp, session })
}

fn lineage_of(own: i32, of: impl Fn(i32) -> Option<Parentage> + Copy) -> BTreeSet<i32> {
    let mut lineage = ancestors(own, of);
    lineage.insert(own);
    // Whoever leads them may be no ancestor any more: one in between may have ended, and its children gone to another.
    if let Some(Parentage { group, session, .. }) = of(own) {
        lineage.extend([group, session]);
    }
    lineage
}

fn ancestors(pid: i32, of: impl Fn(i32) -> Option<Parentage>) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next = of(pid).map(|parentage| parentage.parent);
    // 0 is the parent of process 1, and of one whose parent is outside of the namespace. A number that comes again is that of a new
    // process: who is looked at meanwhile may end.
    while let Some(parent) = next.filter(|&parent| parent > 0 && found.insert(parent)) {
        next = of(parent).map(|parentage| parentage.parent);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 ─ 10 (session) ─ 20 ─ 30 ─ 40, and 50 whose parent has ended.
    fn family(pid: i32) -> Option<Parentage> {
        let parent = match pid {
            1 => 0,
            10 | 50 => 1,
            20 => 10,
            30 => 20,
            40 => 30,
            _ => return None,
        };
        Some(Parentage { parent, group: 20, session: 10 })
    }

    #[test]
    fn all_ancestors_are_kin_and_nobody_else() {
        assert_eq!(lineage_of(30, family), [1, 10, 20, 30].into());
        assert_eq!(ancestors(40, family), [1, 10, 20, 30].into());
    }

    #[test]
    fn who_leads_the_session_is_kin_though_it_is_no_ancestor_any_more() {
        assert_eq!(lineage_of(50, family), [1, 10, 20, 50].into());
    }

    #[test]
    fn a_circle_of_numbers_ends() {
        let circle = |pid| Some(Parentage { parent: if pid == 1 { 2 } else { 1 }, group: 1, session: 1 });
        assert_eq!(ancestors(1, circle), [1, 2].into());
    }

    #[test]
    fn the_own_lineage_has_the_parent_and_a_child_is_a_descendant() {
        let own = std::process::id().cast_signed();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let lineage = lineage();
        assert!(lineage.contains(&own) && lineage.contains(&parent), "{lineage:?}");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(descendants(&[own, parent, pid].into()), [pid].into());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
