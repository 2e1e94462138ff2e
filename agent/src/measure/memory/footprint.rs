//! How much memory the processes of an instance have, by role.
//!
//! RSS counts a page in every process that maps it, PSS divides it among them, USS counts only those that nobody else maps:
//! the sum of PSS over all processes is what they have together, and USS is what ending one would give back.

use super::living;
use crate::role::{RoleRule, rule_of};
use procfs::process::Process;
use std::{collections::BTreeMap, fs, io};

/// Memory of one process, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// What it is, such as `vmm`.
    pub role: String,
    /// In memory and mapped.
    pub rss_bytes: u64,
    /// The same, with each page divided by the processes that map it.
    pub pss_bytes: u64,
    /// Part of it without a file.
    pub pss_anonymous_bytes: u64,
    /// Part of it in files.
    pub pss_file_bytes: u64,
    /// Part of it in memfds and tmpfs.
    pub pss_shmem_bytes: u64,
    /// Mapped by nobody else.
    pub uss_bytes: u64,
    /// Mapped by others too, and as it is on disk.
    pub shared_clean_bytes: u64,
    /// Mapped by others too, and changed.
    pub shared_dirty_bytes: u64,
    /// Swapped out.
    pub swap_bytes: u64,
    /// Mapped by huge pages.
    pub huge_bytes: u64,
    /// On huge pages of hugetlbfs, which no other figure has.
    pub hugetlb_bytes: u64,
    /// Merged by KSM; `None` where the kernel does not tell (before 6.6).
    pub ksm_bytes: Option<u64>,
    /// The lowest level of its page tables.
    pub page_tables_bytes: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
}

impl Footprint {
    /// Of a process, without its role.
    ///
    /// # Errors
    /// When it is gone, or may not be looked at.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        let thread = living::thread_of(pid).unwrap_or(pid);
        let rollup = Sizes::parse(&fs::read_to_string(format!("/proc/{thread}/smaps_rollup"))?);
        let status = fs::read(format!("/proc/{thread}/status"))?;
        let status = Sizes::parse(&String::from_utf8_lossy(&status));
        let stat = Process::new(pid).and_then(|process| process.stat()).map_err(io::Error::other)?;
        let bytes = |name: &str| rollup.0.get(name).copied().unwrap_or(0);
        let sum = |names: &[&str]| names.iter().map(|name| bytes(name)).sum();
        Ok(Self {
            pid,
            comm: stat.comm.replace(char::is_control, "\u{fffd}"),
            role: String::new(),
            rss_bytes: bytes("Rss"),
            pss_bytes: bytes("Pss"),
            pss_anonymous_bytes: bytes("Pss_Anon"),
            pss_file_bytes: bytes("Pss_File"),
            pss_shmem_bytes: bytes("Pss_Shmem"),
            uss_bytes: sum(&["Private_Clean", "Private_Dirty"]),
            shared_clean_bytes: bytes("Shared_Clean"),
            shared_dirty_bytes: bytes("Shared_Dirty"),
            swap_bytes: bytes("Swap"),
            huge_bytes: sum(&["AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"]),
            hugetlb_bytes: sum(&["Shared_Hugetlb", "Private_Hugetlb"]),
            ksm_bytes: rollup.0.get("KSM").copied(),
            page_tables_bytes: status.0.get("VmPTE").copied().unwrap_or(0),
            minor_faults: stat.minflt,
            major_faults: stat.majflt,
        })
    }
}

/// Lines of the form `NAME: VALUE kB`, in bytes.
struct Sizes(BTreeMap<String, u64>);

impl Sizes {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.saturating_mul(1024)))
        };
        Self(text.lines().filter_map(line).collect())
    }
}

/// The footprints of these processes; those that ended meanwhile are left out. Their roles come from what they execute.
///
/// # Errors
/// When one can't be looked at though it lives.
pub fn of_processes(pids: &[i32], rules: &'static [RoleRule]) -> io::Result<Vec<Footprint>> {
    let programs: BTreeMap<i32, Program> = pids.iter().filter_map(|&pid| Some((pid, Program::of(pid)?))).collect();
    let mut footprints = Vec::new();
    for (&pid, program) in &programs {
        match Footprint::of_process(pid) {
            Ok(footprint) => {
                let parent = programs.get(&program.parent);
                footprints.push(Footprint { role: program.role(parent, rules).to_owned(), ..footprint });
            }
            // It ended, and has no memory any more.
            Err(_) if !is_alive(pid) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(footprints)
}

/// Whether there is such a process, and any of its threads has not ended.
pub fn is_alive(pid: i32) -> bool {
    living::thread_of(pid).is_some()
}

/// What a process executes.
struct Program {
    parent: i32,
    path: String,
    arguments: Vec<String>,
}

impl Program {
    fn of(pid: i32) -> Option<Self> {
        let parent = Process::new(pid).ok()?.stat().ok()?.ppid;
        let process = Process::new(living::thread_of(pid).unwrap_or(pid)).ok()?;
        Some(Self {
            parent,
            path: process.exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            arguments: process.cmdline().unwrap_or_default(),
        })
    }

    fn role(&self, parent: Option<&Self>, rules: &'static [RoleRule]) -> &'static str {
        let Some(rule) = rule_of(rules, &self.path, &self.arguments) else { return "unknown" };
        // One that executes just what its parent does has executed nothing itself.
        let forked = parent.is_some_and(|parent| parent.path == self.path && parent.arguments == self.arguments);
        rule.forked.filter(|_| forked).unwrap_or(rule.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_own_footprint_make_up_the_whole() {
        let own = Footprint::of_process(std::process::id().cast_signed()).unwrap();
        assert!(own.uss_bytes <= own.pss_bytes && own.pss_bytes <= own.rss_bytes, "{own:?}");
        assert_eq!(own.rss_bytes, own.uss_bytes + own.shared_clean_bytes + own.shared_dirty_bytes, "{own:?}");
        let parts = own.pss_anonymous_bytes + own.pss_file_bytes + own.pss_shmem_bytes;
        // Each is rounded to whole KiB.
        assert!(own.pss_bytes.abs_diff(parts) <= 3 * 1024, "{own:?}");
        assert!(own.page_tables_bytes > 0 && own.minor_faults > 0, "{own:?}");
    }

    #[test]
    fn children_that_execute_nothing_have_a_role_of_their_own_where_there_is_one() {
        const RULES: &[RoleRule] = &[RoleRule { role: "sentry", contains: "box", forked: Some("stub") }];
        let program = |arguments: &str| Program { parent: 1, path: "x".into(), arguments: vec![arguments.into()] };
        let (sentry, stub) = (program("box"), program("box"));
        assert_eq!(sentry.role(Some(&program("shell")), RULES), "sentry");
        assert_eq!(stub.role(Some(&sentry), RULES), "stub");
        assert_eq!(program("shell").role(None, RULES), "unknown");
    }

    #[test]
    fn who_has_ended_is_left_out() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(of_processes(&[child.id().cast_signed()], &[]).unwrap(), []);
    }
}
