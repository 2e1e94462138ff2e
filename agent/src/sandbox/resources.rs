//! What an instance may use of the host, and how it gets its files: conditions that are the same for every kind, or recorded
//! as not to be had.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::{fmt, str::FromStr};

/// Conditions of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes: a limit for a container, the size of a VM. `None`: no limit, and for a VM its kind's default.
    pub memory_bytes: Option<u64>,
    /// CPUs: a bandwidth limit for a container, the vCPUs of a VM. `None`: no limit, and one vCPU.
    pub vcpus: Option<u32>,
    /// Whether what the sandbox prints is taken. Off, containers and guests print nowhere: in a VM each byte costs an exit.
    pub console: bool,
    /// How it gets its files.
    pub files: FileSharing,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory_bytes: None, vcpus: None, console: true, files: FileSharing::Shared }
    }
}

/// How an instance gets the files of its workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSharing {
    /// The same files for all instances, read-only: they share their pages in the host's page cache.
    Shared,
    /// A copy of its own, made before the launch: nothing is shared.
    Copy,
    /// The same files below a writable layer of its own.
    Overlay,
}

impl FileSharing {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Copy => "copy",
            Self::Overlay => "overlay",
        }
    }
}

/// An amount of memory as people write it: `134217728`, `128M`, `1.5G` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

impl TryFrom<String> for Bytes {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            unit => bail!("`{unit}` in `{text}` is no unit of memory: use K, M or G"),
        };
        let Ok(number) = digits.parse::<f64>() else { bail!("`{text}` is no amount of memory: write it like 256M") };
        let bytes = number * f64::from(1u32 << shift);
        ensure!((1.0..=1e15).contains(&bytes), "`{text}` is no amount of memory that a sandbox can have");
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        match [(30, "G"), (20, "M"), (10, "K")].iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift && *bytes > 0)
        {
            Some((shift, unit)) => write!(out, "{}{unit}", bytes >> shift),
            None => write!(out, "{bytes}"),
        }
    }
}

/// CPUs as the kernel writes lists of them: `0-2,5`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct CpuList(pub Vec<usize>);

impl TryFrom<String> for CpuList {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for CpuList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        /// The kernel's own limit (`CONFIG_NR_CPUS` of the largest configurations).
        const MAX_CPU: usize = 8191;
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
                bail!("`{text}` is no list of CPUs: write it like 0-2,5");
            };
            ensure!(first <= last && last <= MAX_CPU, "`{part}` in `{text}` is no range of CPUs");
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Self(cpus))
    }
}

impl CpuList {
    /// Pins the calling thread to these CPUs until the guard is dropped; what it starts meanwhile stays on them for ever.
    ///
    /// # Errors
    /// When this process may use none of them.
    pub fn pin(&self) -> Result<Pinned> {
        let before = sched_getaffinity(None).context("can't ask for this thread's CPUs")?;
        let mut set = CpuSet::new();
        for &cpu in &self.0 {
            ensure!(cpu < CpuSet::MAX_CPU, "CPU {cpu} is beyond what can be pinned to ({})", CpuSet::MAX_CPU);
            set.set(cpu);
        }
        sched_setaffinity(None, &set).with_context(|| {
            format!("can't pin to the CPUs {self}: /sys/devices/system/cpu/online has those there are")
        })?;
        Ok(Pinned(before))
    }
}

/// A pinned thread; must be dropped on that thread.
#[must_use]
pub struct Pinned(CpuSet);

impl Drop for Pinned {
    fn drop(&mut self) {
        // The kernel gave this set, and only takes CPUs from it when they go offline.
        let _ = sched_setaffinity(None, &self.0);
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        out.write_str(&numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        for (text, bytes) in [("4096", 4096), ("128M", 128 << 20), ("1.5GiB", 3 << 29), ("64kb", 64 << 10)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "M", "12Q", "-1M", "0", "1e99", "nan"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!([Bytes(128 << 20), Bytes(3 << 29), Bytes(1000)].map(|b| b.to_string()), ["128M", "1536M", "1000"]);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!("0-2,5,1".parse::<CpuList>().unwrap().0, [0, 1, 2, 5]);
        assert_eq!("0-2,5".parse::<CpuList>().unwrap().to_string(), "0,1,2,5");
        for text in ["", "a", "3-1", "0-99999", "-1"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
