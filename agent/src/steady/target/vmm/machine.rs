//! Which processes are one virtual machine. A VMM may have children that inherit its descriptors, so that several processes have the
//! same machine of KVM open; they are one VM, and are found as one.

use super::super::process::{Process, descends};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// What a descriptor of a virtual machine leads to.
const VM: &str = "anon_inode:kvm-vm";

/// The kernel's number of the comparison of open files (`KCMP_FILE`).
const OPEN_FILES: libc::c_int = 0;

/// The descriptors of virtual machines of KVM that a process has open.
pub fn opened_by(process: &Process) -> Vec<i32> {
    process.descriptors().into_iter().filter(|(_, what)| what == Path::new(VM)).map(|(number, _)| number).collect()
}

/// Groups processes by the machine that they are of: by the same open file of KVM, or, where that can't be told, by descent.
pub fn grouped(holders: &BTreeMap<i32, Vec<i32>>, all: &BTreeMap<i32, Process>) -> Vec<BTreeSet<i32>> {
    group(holders.keys().copied(), |one, other| {
        let open = |pid: i32| holders[&pid].iter().map(move |&descriptor| (pid, descriptor));
        let same: Vec<_> = open(one).flat_map(|a| open(other).map(move |b| same_file(a, b))).collect();
        if same.contains(&Some(true)) {
            return true;
        }
        // A VMM without KVM, or one without a machine yet, has what it has forked: that executes the same.
        let executes = |pid: i32| all.get(&pid).map(|process| (&process.executable, &process.arguments));
        let is_unknown = same.is_empty() || same.contains(&None);
        is_unknown && executes(one) == executes(other) && (descends(all, one, other) || descends(all, other, one))
    })
}

/// Those that are the same, directly or by way of others, in one group.
fn group(members: impl Iterator<Item = i32>, same: impl Fn(i32, i32) -> bool) -> Vec<BTreeSet<i32>> {
    let mut groups: Vec<BTreeSet<i32>> = Vec::new();
    for member in members {
        let (with, without): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.iter().any(|&other| same(member, other)));
        groups = without;
        groups.push(with.into_iter().flatten().chain([member]).collect());
    }
    groups.sort();
    groups
}

/// The process of a VM that the others come from.
pub fn main(pids: &BTreeSet<i32>, all: &BTreeMap<i32, Process>) -> Option<i32> {
    let is_top = |pid: &&i32| !pids.iter().any(|&other| other != **pid && descends(all, **pid, other));
    let started = |pid: &&i32| all.get(pid).map(|process| process.started);
    pids.iter().filter(is_top).min_by_key(started).or_else(|| pids.first()).copied()
}

/// Whether two descriptors, each of a process, are of the same open file; `None` where the kernel does not tell.
fn same_file((one, descriptor): (i32, i32), (other, its): (i32, i32)) -> Option<bool> {
    // SAFETY: needed because no crate in use has this call. It takes five numbers and no pointer, and changes nothing: what a process
    // or a descriptor that is gone leads to is an error, not undefined.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, OPEN_FILES, descriptor, its) };
    // 1, 2 and 3 are an order of those that differ, -1 an error.
    (order >= 0).then_some(order == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsRawFd as _};

    #[test]
    fn the_same_file_is_told_from_another_opening_of_it() {
        let own = std::process::id().cast_signed();
        let file = File::open("/proc/self/exe").unwrap();
        let (copy, other) = (file.try_clone().unwrap(), File::open("/proc/self/exe").unwrap());
        assert_eq!(same_file((own, file.as_raw_fd()), (own, copy.as_raw_fd())), Some(true));
        assert_eq!(same_file((own, file.as_raw_fd()), (own, other.as_raw_fd())), Some(false));
        assert_eq!(same_file((own, file.as_raw_fd()), (own, 1 << 20)), None);
    }

    #[test]
    fn groups_join_by_way_of_others() {
        let same = |a: i32, b: i32| [(1, 3), (2, 3), (4, 5)].iter().any(|&pair| pair == (a.min(b), a.max(b)));
        assert_eq!(group(1..=6, same), [BTreeSet::from([1, 2, 3]), [4, 5].into(), [6].into()]);
    }

    #[test]
    fn what_was_forked_belongs_without_kvm_and_a_vm_of_its_own_does_not() {
        let process = |pid: i32, parent: i32, line: &str| {
            let arguments = line.split(' ').map(str::to_owned).collect();
            (pid, Process { pid, parent, started: u64::from(pid.cast_unsigned()), arguments, ..Process::default() })
        };
        let all: BTreeMap<i32, Process> =
            [process(2, 1, "qemu a"), process(3, 2, "qemu a"), process(4, 2, "qemu b"), process(5, 1, "qemu a")].into();
        let holders = [2, 3, 4, 5].map(|pid| (pid, Vec::new())).into();
        assert_eq!(grouped(&holders, &all), [BTreeSet::from([2, 3]), [4].into(), [5].into()]);
        assert_eq!(main(&[2, 3].into(), &all), Some(2));
        assert_eq!(main(&[4, 5].into(), &all), Some(4), "the one that was started first");
    }
}
