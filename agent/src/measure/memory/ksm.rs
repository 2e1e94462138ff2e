//! KSM, the kernel's own page merging: its settings and counters, what it has merged of a process, what it costs, and how to have
//! it merge programs that know nothing of it.

use crate::host::tracefs::with_tracefs;
use anyhow::{Context as _, Result, bail};
use perf_event::{Builder, Counter, events::Tracepoint};
use procfs::{CpuInfo, Current as _};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the settings and counters are.
pub const FOLDER: &str = "/sys/kernel/mm/ksm";
/// Tracepoints of which each is one page merged: with a page that was merged before, or with another that was not.
const MERGES: [&str; 2] = ["ksm_merge_with_ksm_page", "ksm_merge_one_page"];
/// `PR_SET_MEMORY_MERGE` of `linux/prctl.h`, since Linux 6.4.
const PR_SET_MEMORY_MERGE: libc::c_int = 67;

/// The kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How often all mergeable memory was looked at.
    pub full_scans: u64,
    /// Frames that were merged into.
    pub pages_shared: u64,
    /// Frames that were freed: mappings of merged frames beyond the first of each.
    pub pages_sharing: u64,
    /// Pages that nothing equals.
    pub pages_unshared: u64,
    /// Pages that change too fast.
    pub pages_volatile: u64,
    /// What merging saves less what its books take, in bytes; `None` before 6.4.
    pub general_profit_bytes: Option<i64>,
}

impl Counters {
    /// As they are now.
    ///
    /// # Errors
    /// When the kernel has no KSM.
    pub fn read() -> Result<Self> {
        Ok(Self {
            full_scans: number("full_scans")?,
            pages_shared: number("pages_shared")?,
            pages_sharing: number("pages_sharing")?,
            pages_unshared: number("pages_unshared")?,
            pages_volatile: number("pages_volatile")?,
            general_profit_bytes: number("general_profit").ok(),
        })
    }
}

/// Path of a setting or counter.
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn number<T: std::str::FromStr>(name: &str) -> Result<T> {
    let path = path(name);
    let text = fs::read_to_string(&path).with_context(|| format!("the kernel has no KSM: no {}", path.display()))?;
    text.trim().parse().ok().with_context(|| format!("{} is not a number: {text:?}", path.display()))
}

/// Pages of a process that KSM has merged; `None` where the kernel does not tell (before 6.1), or the process is gone.
pub fn merged_pages(pid: i32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/ksm_merging_pages")).ok()?.trim().parse().ok()
}

/// Time that the kernel's thread that merges has been on a CPU, in nanoseconds; `None` where the kernel keeps no such books.
pub fn ksmd_cpu_ns() -> Option<u64> {
    let is_ksmd = |process: &procfs::process::Process| {
        // No program of a user has this parent.
        process.stat().is_ok_and(|stat| stat.comm == "ksmd" && stat.ppid == KTHREADD)
    };
    let ksmd = procfs::process::all_processes().ok()?.filter_map(Result::ok).find(is_ksmd)?;
    let text = fs::read_to_string(format!("/proc/{}/schedstat", ksmd.pid)).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The parent of all threads of the kernel.
const KTHREADD: i32 = 2;

/// Counts pages as they are merged.
pub struct Merges(Vec<Counter>);

impl Merges {
    /// Begins to count, on all CPUs.
    ///
    /// # Errors
    /// When the kernel has no such tracepoints (before 6.1), or does not let them be counted.
    pub fn count() -> Result<Self> {
        let ids = with_tracefs(|tracefs| MERGES.map(|name| tracefs.id("ksm", name)))?;
        let mut counters = Vec::new();
        let cpus = CpuInfo::current().context("could not read /proc/cpuinfo")?.num_cores();
        for id in ids.into_iter().flatten() {
            for cpu in 0..cpus {
                let mut counter = Builder::new(Tracepoint::with_id(id))
                    .any_pid()
                    .one_cpu(cpu)
                    .include_kernel()
                    .build()
                    .context("the merges of KSM can't be counted")?;
                counter.enable()?;
                counters.push(counter);
            }
        }
        if counters.is_empty() {
            bail!("this kernel has no tracepoint for merges (Linux 6.1 has them)");
        }
        Ok(Self(counters))
    }

    /// How many there were so far.
    ///
    /// # Errors
    /// When a counter can't be read.
    pub fn so_far(&mut self) -> io::Result<u64> {
        self.0.iter_mut().map(Counter::read).sum()
    }
}

/// While it lives, whatever the agent starts lets KSM merge all its memory, whatever program it is: the kernel hands the wish on at
/// fork and exec.
pub struct MergeAny(());

impl MergeAny {
    /// Begins.
    ///
    /// # Errors
    /// When the kernel knows no such wish (before 6.4), or refuses it.
    pub fn begin() -> Result<Self> {
        set_merge(true).context("the kernel can't have programs merged that don't ask for it (Linux 6.4 can)")?;
        Ok(Self(()))
    }
}

impl Drop for MergeAny {
    fn drop(&mut self) {
        // What was merged of the agent itself is taken apart again.
        if let Err(error) = set_merge(false) {
            tracing::warn!("KSM may go on to merge the agent's own memory: {error}");
        }
    }
}

fn set_merge(on: bool) -> io::Result<()> {
    // SAFETY: the request takes a number and three zeros; no memory is involved. Neither rustix nor libc wrap it.
    match unsafe { libc::prctl(PR_SET_MEMORY_MERGE, libc::c_ulong::from(on), 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
