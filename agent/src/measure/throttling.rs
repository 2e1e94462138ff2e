//! Time in which the CPU limits of control groups kept threads from running: the kernel's own count.

use crate::host::control_group;
use procfs::process::Process;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Counts of the control groups with a limit that some processes are in, or below.
#[derive(Debug, Clone, Default)]
pub struct Throttling(BTreeMap<PathBuf, u64>);

impl Throttling {
    /// Reads those that hold for these processes now.
    pub fn of(processes: &BTreeSet<u32>) -> Self {
        let processes = processes.iter().filter_map(|pid| Process::new(pid.cast_signed()).ok());
        let groups: BTreeSet<_> = processes.flat_map(|process| control_group::of_process(&process)).collect();
        let counts =
            groups.into_iter().filter_map(|group| Some((group.directory.clone(), throttled_ns(&group.directory)?)));
        Self(counts.collect())
    }

    /// Nanoseconds since this was read, all CPUs together; `None` where no control group has a count.
    pub fn since(&self) -> Option<u64> {
        let more =
            self.0.iter().filter_map(|(directory, before)| Some(throttled_ns(directory)?.saturating_sub(*before)));
        more.reduce(|sum, more| sum + more)
    }
}

/// `throttled_usec` of version 2, `throttled_time` of version 1 (nanoseconds), in `cpu.stat`.
fn throttled_ns(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("cpu.stat")).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let unit_ns = match name {
            "throttled_usec" => 1000,
            "throttled_time" => 1,
            _ => return None,
        };
        value.trim().parse::<u64>().ok()?.checked_mul(unit_ns)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_in_nanoseconds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cpu.stat");
        fs::write(&file, "usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1500\n").unwrap();
        assert_eq!(throttled_ns(folder.path()), Some(1_500_000));
        fs::write(&file, "nr_periods 3\nnr_throttled 2\nthrottled_time 1500\n").unwrap();
        assert_eq!(throttled_ns(folder.path()), Some(1500));
        fs::write(&file, "usage_usec 5\n").unwrap();
        assert_eq!(throttled_ns(folder.path()), None, "the controller is not enabled");
    }

    #[test]
    fn what_came_since_is_summed_up() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let write = |ns: u64| {
            for folder in &folders {
                fs::write(folder.path().join("cpu.stat"), format!("throttled_time {ns}\n")).unwrap();
            }
        };
        write(10);
        let before = Throttling(folders.iter().map(|folder| (folder.path().to_owned(), 10)).collect());
        assert_eq!(before.since(), Some(0));
        write(15);
        assert_eq!(before.since(), Some(10));
        assert_eq!(Throttling::default().since(), None);
    }
}
