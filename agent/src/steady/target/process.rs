//! Processes of this host by what the kernel says of them: what they execute, what they were told, what they have open. Targets are found
//! by that.

use super::bounded;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Bytes of a command line that are looked at. Those of libvirt have some ten thousand.
const MOST_ARGUMENTS: u64 = 1 << 20;
/// Descriptors of a process that are looked at.
const MOST_DESCRIPTORS: usize = 1 << 16;
/// Bytes of a list of mappings that are looked at: more than the kernel's default for how many there may be.
const MOST_MAPPINGS: u64 = 16 << 20;
/// Bytes of the list of control groups of a process that are looked at.
const MOST_GROUPS: u64 = 1 << 16;

/// A process that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of its parent.
    pub parent: i32,
    /// When it was started, in the kernel's ticks since boot.
    pub started: u64,
    /// The name of its first thread.
    pub comm: String,
    /// What it was told, with the name of the program first.
    pub arguments: Vec<String>,
    /// What it executes, with links resolved; `None` where that must not be read.
    pub executable: Option<PathBuf>,
}

impl Process {
    /// The process of this number; `None` when there is none, it has ended, or it is one of the kernel's own.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
        let arguments = bounded::bytes(&Path::new("/proc").join(pid.to_string()).join("cmdline"), MOST_ARGUMENTS)?;
        // Neither those of the kernel nor those that have ended were told anything.
        let arguments = arguments.strip_suffix(b"\0").filter(|arguments| !arguments.is_empty())?;
        let arguments = arguments.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some(Self {
            pid,
            parent: stat.ppid,
            started: stat.starttime,
            comm: stat.comm,
            arguments: arguments.collect(),
            executable: fs::read_link(format!("/proc/{pid}/exe")).ok(),
        })
    }

    /// All of this host, by their numbers.
    pub fn all() -> BTreeMap<i32, Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter_map(|pid| Some((pid, Self::of(pid)?))).collect()
    }

    /// Name of the file that it executes, also when that was removed or replaced since.
    pub fn program(&self) -> Option<&str> {
        let name = self.executable.as_ref()?.file_name()?.to_str()?;
        Some(name.strip_suffix(" (deleted)").unwrap_or(name))
    }

    /// Name of the program as it was called: through a link, or as a caller pleased.
    pub fn called(&self) -> Option<&str> {
        Path::new(self.arguments.first()?).file_name()?.to_str()
    }

    /// A file of the process below its own folder of `/proc`.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }

    /// What it has open, by descriptor; empty where that must not be read.
    pub fn descriptors(&self) -> Vec<(i32, PathBuf)> {
        let entries = fs::read_dir(self.file("fd")).into_iter().flatten().flatten().take(MOST_DESCRIPTORS);
        let open = entries.filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        });
        open.collect()
    }

    /// Whether it has mapped a file whose name begins so.
    pub fn has_mapped(&self, begins: &str) -> bool {
        let mappings = bounded::text(&self.file("maps"), MOST_MAPPINGS).unwrap_or_default();
        // Only names of files have slashes.
        mappings.lines().filter_map(|line| line.rsplit_once('/')).any(|(_, name)| name.starts_with(begins))
    }

    /// The control groups that it is in, as number of the hierarchy and path.
    pub fn groups(&self) -> Vec<(u32, String)> {
        let text = bounded::text(&self.file("cgroup"), MOST_GROUPS).unwrap_or_default();
        let groups = text.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            Some((number.parse().ok()?, rest.split_once(':')?.1.to_owned()))
        });
        groups.collect()
    }
}

/// Whether one process descends from the other.
pub fn descends(all: &BTreeMap<i32, Process>, pid: i32, ancestor: i32) -> bool {
    let mut at = pid;
    // Numbers are given out anew while this looks, so that there could be a circle.
    for _ in 0..all.len() {
        match all.get(&at) {
            Some(process) if process.parent == ancestor => return true,
            Some(process) => at = process.parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_what_it_is() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        assert_eq!(own.executable, std::env::current_exe().ok());
        assert_eq!(own.arguments, std::env::args().collect::<Vec<_>>());
        assert!(own.has_mapped(own.program().unwrap()));
        assert!(!own.has_mapped("no-such-library"));
        assert!(!own.descriptors().is_empty());
        let all = Process::all();
        assert!(descends(&all, own.pid, own.parent) && !descends(&all, own.parent, own.pid));
        assert!(all.values().all(|process| process.comm != "kthreadd"));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let process = |pid, parent| (pid, Process { pid, parent, ..Process::default() });
        let all = [process(2, 3), process(3, 2)].into();
        assert!(descends(&all, 2, 3) && !descends(&all, 2, 9));
    }
}
