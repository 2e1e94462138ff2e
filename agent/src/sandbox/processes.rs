//! Finds and kills the processes of one instance, also those that nobody recorded.
//!
//! Process ids can't be trusted for that: they are reused, and whoever was killed in mid-run wrote none down. So a process
//! belongs to an instance when it is in one of the instance's network namespaces or cgroups, or inherited the variable
//! [`MARKER`] from the child that the agent started.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, waitpid},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Environment variable of every child that a sandbox starts; its value is the directory of the instance.
pub const MARKER: &str = "SANDSCOPE_INSTANCE";

/// How long a killed process may take to be gone. One in uninterruptible sleep may take longer; that is reported.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Flag of a task that began to exit, in `/proc/PID/stat`.
const PF_EXITING: u32 = 4;

/// Children that the agent itself waits for. Held while one is started, so that [`reap_orphans`] never takes the status of
/// such a child.
static AWAITED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The children that the agent itself waits for, locked.
pub fn awaited() -> MutexGuard<'static, BTreeSet<i32>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What makes a process part of an instance.
#[derive(Debug)]
pub struct Membership {
    /// The instance's directory: the value of [`MARKER`].
    directory: PathBuf,
    /// Device and inode of its network namespaces.
    namespaces: Vec<(u64, u64)>,
    cgroups: Vec<PathBuf>,
}

impl Membership {
    /// Of the instance with this directory, these files that name network namespaces, and these cgroup directories.
    ///
    /// # Errors
    /// When a namespace can't be examined, or is the one that this process is in: killing its members would be fatal to
    /// the host.
    pub fn new(directory: &Path, namespaces: &[PathBuf], cgroups: Vec<PathBuf>) -> Result<Self> {
        let own = identity(Path::new("/proc/self/ns/net")).context("could not examine /proc/self/ns/net")?;
        let mut identities = Vec::new();
        for path in namespaces {
            let identity = identity(path).with_context(|| format!("could not examine {}", path.display()))?;
            if identity == own {
                bail!("{} is the network namespace of this process: its members are left alone", path.display());
            }
            identities.push(identity);
        }
        Ok(Self { directory: directory.to_owned(), namespaces: identities, cgroups })
    }

    /// Kills all members, waits until none is left, and takes the status of those that became children of this process.
    ///
    /// # Errors
    /// When some remain.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_LIMIT;
        let mut killed = BTreeMap::new();
        loop {
            let members = self.kill_once().context("could not look for the instance's processes")?;
            if members.is_empty() {
                break;
            }
            killed.extend(members);
            await_ends(&mut killed, deadline)?;
            ensure!(Instant::now() < deadline, "new processes appear faster than they can be killed: a fork bomb?");
        }
        reap_orphans(deadline)
    }

    /// Sends SIGKILL to each member; returns whom.
    fn kill_once(&self) -> Result<BTreeMap<i32, OwnedFd>> {
        let members = self.members()?;
        for process in members.values() {
            // It may be gone already, which is as good.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        Ok(members)
    }

    /// The members that live, by their numbers.
    ///
    /// # Errors
    /// When `/proc` can't be listed.
    pub fn members(&self) -> Result<BTreeMap<i32, OwnedFd>> {
        let in_cgroups = self.in_cgroups();
        let mut members = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("could not list /proc")? {
            let Some(pid) =
                entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            if pid == getpid() {
                continue;
            }
            // The descriptor comes first: it pins whom it is about, whatever becomes of the number meanwhile.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if in_cgroups.contains(&pid.as_raw_pid()) && is_alive(pid) || self.contains(pid) {
                members.insert(pid.as_raw_pid(), process);
            }
        }
        Ok(members)
    }

    fn in_cgroups(&self) -> BTreeSet<i32> {
        let lists = self.cgroups.iter().filter_map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Whether the process is in a namespace of the instance or carries its mark. A zombie has neither.
    fn contains(&self, pid: Pid) -> bool {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        if identity(&process.join("ns/net")).is_ok_and(|namespace| self.namespaces.contains(&namespace)) {
            return true;
        }
        let marker = [MARKER.as_bytes(), b"=", self.directory.as_os_str().as_bytes()].concat();
        fs::read(process.join("environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == marker))
    }
}

/// Waits until each of these processes is gone or a zombie, and forgets it.
fn await_ends(processes: &mut BTreeMap<i32, OwnedFd>, deadline: Instant) -> Result<()> {
    while let Some(entry) = processes.first_entry() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().context("the time limit is too long")?;
        match poll(&mut [PollFd::new(entry.get(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => bail!(
                "processes {:?} still run {} s after SIGKILL: see /proc/PID/stack for what they wait for",
                processes.keys().collect::<Vec<_>>(),
                KILL_LIMIT.as_secs()
            ),
            Ok(_) => drop(entry.remove()),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error).context("could not wait for a killed process"),
        }
    }
    Ok(())
}

/// Takes the status of processes that the sandboxes left behind and that became children of the agent, which is their
/// subreaper; without this they would stay as zombies. Waits for those that are about to be one.
fn reap_orphans(deadline: Instant) -> Result<()> {
    loop {
        let orphans = dying_orphans()?;
        if orphans.is_empty() {
            return Ok(());
        }
        await_ends(&mut orphans.iter().filter_map(|pid| Some((pid.as_raw_pid(), open(*pid)?))).collect(), deadline)?;
        for pid in orphans {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        // Again, since their own children have become ours.
    }
}

/// Children of this process that it does not wait for elsewhere and that are dead, or on the way: then nothing but the process
/// itself tells any more whose it was.
fn dying_orphans() -> Result<Vec<Pid>> {
    let me =
        procfs::process::Process::myself().and_then(|process| process.stat()).context("could not read /proc/self")?;
    let all = procfs::process::all_processes().context("could not list /proc")?;
    let awaited = awaited();
    let dying = all.filter_map(|process| process.ok()?.stat().ok()).filter(|stat| {
        let exiting = stat.state == 'Z' || stat.flags & PF_EXITING != 0;
        // Children of other code in the agent share its session; what a sandbox starts never does.
        exiting && stat.ppid == me.pid && stat.session != me.session && !awaited.contains(&stat.pid)
    });
    Ok(dying.filter_map(|stat| Pid::from_raw(stat.pid)).collect())
}

/// The process, whatever becomes of its number.
fn open(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Device and inode of what the path leads to.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// False for a zombie: it is dead, and gone when its parent takes notice.
fn is_alive(pid: Pid) -> bool {
    procfs::process::Process::new(pid.as_raw_pid())
        .and_then(|process| process.stat())
        .is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_own_namespace_are_never_killed() {
        let error = Membership::new(Path::new("/nowhere"), &["/proc/self/ns/net".into()], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("left alone"), "{error}");
    }

    #[test]
    fn marked_processes_are_found_and_killed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut marked = std::process::Command::new("sleep").arg("60").env(MARKER, directory.path()).spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").env(MARKER, "/elsewhere").spawn().unwrap();
        Membership::new(directory.path(), &[], Vec::new()).unwrap().kill_all().unwrap();
        assert!(!marked.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
