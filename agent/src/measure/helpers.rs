//! Threads of the kernel that work for one sandbox, and what the host takes or spends besides: they are in no cgroup of it.

use super::run_time;
use std::{collections::BTreeSet, fs};

/// Names of such threads, each followed by the number of the process that they work for.
const HELPERS: [&str; 3] = ["kvm-pit/", "vhost-", "kvm-nx-lpage-recovery-"];

/// The kernel's threads that work for one of these processes alone. Kernels since 6.4 make `vhost` threads of the process itself.
pub fn of(processes: &BTreeSet<u32>) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let tid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(format!("/proc/{tid}/comm")).ok()?;
        let is_its = processes.contains(&works_for(comm.trim_end())?);
        (is_its && is_of_kernel(tid)).then_some(tid)
    })
    .collect()
}

fn is_of_kernel(tid: u32) -> bool {
    run_time::status(tid, tid).is_some_and(|status| status.flags & run_time::OF_KERNEL != 0)
}

/// Number of the process that a thread of this name works for.
fn works_for(comm: &str) -> Option<u32> {
    HELPERS.iter().find_map(|prefix| comm.strip_prefix(prefix)?.parse().ok())
}

/// `ksmd` at one instant: its CPU time, the pages that it looks after for some processes, and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ksmd {
    cpu_ns: u64,
}

impl Ksmd {
    /// Reads it; `None` where there is no `ksmd`.
    pub fn read() -> Option<Self> {
        let tid = fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let tid = entry.file_name().to_str()?.parse::<u32>().ok()?;
            (fs::read_to_string(format!("/proc/{tid}/comm")).ok()?.trim_end() == "ksmd").then_some(tid)
        })?;
        // On-CPU time in nanoseconds is the first word.
        let schedstat = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
        Some(Self { cpu_ns: schedstat.split_ascii_whitespace().next()?.parse().ok()? })
    }

    /// The part of its CPU time since `before` that is due to these processes, by the pages that it looks after.
    pub fn share_since(self, before: Self, processes: &BTreeSet<u32>) -> u64 {
        let spent = self.cpu_ns.saturating_sub(before.cpu_ns);
        if spent == 0 {
            return 0;
        }
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let (mut own, mut total) = (0u64, 0u64);
        for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let items = rmap_items(&fs::read_to_string(format!("/proc/{pid}/ksm_stat")).unwrap_or_default());
            total += items;
            if processes.contains(&pid) {
                own += items;
            }
        }
        if total == 0 { 0 } else { (u128::from(spent) * u128::from(own) / u128::from(total)) as u64 }
    }
}

/// Pages of a process that `ksmd` looks after.
fn rmap_items(ksm_stat: &str) -> u64 {
    let line = ksm_stat.lines().find_map(|line| line.strip_prefix("ksm_rmap_items "));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Time that the host's own hypervisor gave to others, all CPUs together; `None` where the kernel does not say.
pub fn stolen_ns() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    // `cpu user nice system idle iowait irq softirq steal …`, in hundredths of a second (`USER_HZ`).
    let steal: u64 = text.lines().next()?.split_ascii_whitespace().nth(8)?.parse().ok()?;
    Some(steal * 10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_told_by_their_names() {
        assert_eq!(works_for("kvm-pit/4711"), Some(4711));
        assert_eq!(works_for("vhost-12"), Some(12));
        assert_eq!(works_for("kvm-nx-lpage-recovery-7"), Some(7));
        assert_eq!(works_for("vhost-x"), None);
        assert_eq!(works_for("kworker/0:1"), None);
    }

    #[test]
    fn a_process_with_the_name_of_a_helper_is_none() {
        let (own, directory) = (std::process::id(), tempfile::tempdir().unwrap());
        let program = directory.path().join(format!("vhost-{own}"));
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut impostor = std::process::Command::new(&program).arg("30").spawn().unwrap();
        let comm = || fs::read_to_string(format!("/proc/{}/comm", impostor.id())).unwrap();
        let is_named = (0..1000).any(|_| works_for(comm().trim_end()) == Some(own));
        let found = of(&[own].into());
        impostor.kill().unwrap();
        impostor.wait().unwrap();
        assert!(is_named && found.is_empty(), "{found:?}");
        assert!(!is_of_kernel(own) && !is_of_kernel(1));
    }

    #[test]
    fn pages_are_read() {
        assert_eq!(rmap_items("ksm_rmap_items 512\nksm_zero_pages 0\n"), 512);
        assert_eq!(rmap_items(""), 0);
    }
}
