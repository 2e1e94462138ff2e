//! Files that a sandbox reads and writes, and which of their pages had to come into the page cache for that.

use super::Probes;
use crate::{
    host::btf::KernelTypes,
    probe::{Definition, Event::Classic, Global, Hook, Kernel},
};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use rustix::fs::OFlags;
use sandscope_ebpf::map::{FileCounts, FileKey};
use std::collections::BTreeMap;
use syscalls::Sysno;

const ADDED: &str = "mm_filemap_add_to_page_cache";

/// Since Linux 6.10.
const FAULT: (&str, &str) = ("filemap", "mm_filemap_fault");

pub(super) const PROBE: Definition = Definition {
    name: "file",
    required: false,
    hooks: |kernel| {
        const PAGES: Hook = Hook { program: ADDED, event: Classic("filemap", ADDED) };
        if kernel.tracefs.has(FAULT.0, FAULT.1) {
            &[PAGES, Hook { program: FAULT.1, event: Classic(FAULT.0, FAULT.1) }]
        } else {
            &[PAGES]
        }
    },
    globals: |kernel| {
        let types = kernel.types;
        let mut globals = descriptors(types)?;
        globals.extend([
            ("FILE_INODE_RDEV", types.offset("inode", "i_rdev")?),
            ("FILE_INODE_INO", types.offset("inode", "i_ino")?),
            ("FILE_INODE_SB", types.offset("inode", "i_sb")?),
            ("FILE_SB_DEV", types.offset("super_block", "s_dev")?),
            ("FILE_FILE_FLAGS", types.offset("file", "f_flags")?),
            ("FILE_DIRECT", OFlags::DIRECT.bits()),
        ]);
        globals.extend(calls());
        globals.extend(kernel.fields("filemap", ADDED, &[("ADDED_INODE", "i_ino"), ("ADDED_DEV", "s_dev")])?);
        globals.extend(order(kernel));
        if kernel.tracefs.has(FAULT.0, FAULT.1) {
            globals.extend(kernel.fields(FAULT.0, FAULT.1, &[("FAULT_INODE", "i_ino"), ("FAULT_DEV", "s_dev")])?);
        }
        Ok(globals)
    },
};

/// What it takes to find the file of a descriptor.
pub(super) fn descriptors(types: &KernelTypes) -> Result<Vec<Global>> {
    Ok(vec![
        ("FILE_TASK_FILES", types.offset("task_struct", "files")?),
        ("FILE_FILES_FDT", types.offset("files_struct", "fdt")?),
        ("FILE_FDT_FD", types.offset("fdtable", "fd")?),
        ("FILE_FDT_MAX", types.offset("fdtable", "max_fds")?),
        ("FILE_FILE_INODE", types.offset("file", "f_inode")?),
        ("FILE_INODE_MODE", types.offset("inode", "i_mode")?),
    ])
}

/// Numbers of the system calls that read and write files, plus one.
fn calls() -> [Global; 10] {
    [
        ("FILE_READ", Sysno::read),
        ("FILE_PREAD64", Sysno::pread64),
        ("FILE_READV", Sysno::readv),
        ("FILE_PREADV", Sysno::preadv),
        ("FILE_PREADV2", Sysno::preadv2),
        ("FILE_WRITE", Sysno::write),
        ("FILE_PWRITE64", Sysno::pwrite64),
        ("FILE_WRITEV", Sysno::writev),
        ("FILE_PWRITEV", Sysno::pwritev),
        ("FILE_PWRITEV2", Sysno::pwritev2),
    ]
    .map(|(global, call)| (global, call.id().cast_unsigned() + 1))
}

/// How many pages come in one piece. Kernels without the field tell of each page by itself.
fn order(kernel: &Kernel<'_>) -> Option<Global> {
    let format = kernel.tracefs.format("filemap", ADDED).ok()?;
    Some(("ADDED_ORDER", format.offset("order").ok()?))
}

/// Files of a sandbox by inode and device; inode 0 stands for those that found no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSums {
    /// What was done with each.
    pub files: BTreeMap<(u64, u32), FileCounts>,
    /// Whether page faults of mappings are seen.
    pub faults_are_seen: bool,
}

impl FileSums {
    /// What has come since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let difference = |(file, now): (&(u64, u32), &FileCounts)| {
            let since = minus(now, &before.files.get(file).copied().unwrap_or_default());
            (since != FileCounts::default()).then_some((*file, since))
        };
        Self { files: self.files.iter().filter_map(difference).collect(), faults_are_seen: self.faults_are_seen }
    }
}

fn minus(now: &FileCounts, before: &FileCounts) -> FileCounts {
    FileCounts {
        reads: now.reads - before.reads,
        read_bytes: now.read_bytes - before.read_bytes,
        writes: now.writes - before.writes,
        written_bytes: now.written_bytes - before.written_bytes,
        missed_by_reads: now.missed_by_reads - before.missed_by_reads,
        made_by_writes: now.made_by_writes - before.made_by_writes,
        missed_by_faults: now.missed_by_faults - before.missed_by_faults,
        faults: now.faults - before.faults,
        direct_bytes: now.direct_bytes - before.direct_bytes,
    }
}

fn add(sum: &mut FileCounts, cpu: &FileCounts) {
    sum.reads += cpu.reads;
    sum.read_bytes += cpu.read_bytes;
    sum.writes += cpu.writes;
    sum.written_bytes += cpu.written_bytes;
    sum.missed_by_reads += cpu.missed_by_reads;
    sum.made_by_writes += cpu.made_by_writes;
    sum.missed_by_faults += cpu.missed_by_faults;
    sum.faults += cpu.faults;
    sum.direct_bytes += cpu.direct_bytes;
}

fn files(ebpf: &Ebpf) -> Result<PerCpuHashMap<&MapData, FileKey, FileCounts>> {
    let map = ebpf.map("FILES").context("the BPF object has no map FILES")?;
    Ok(PerCpuHashMap::try_from(map)?)
}

fn files_mut(ebpf: &mut Ebpf) -> Result<PerCpuHashMap<&mut MapData, FileKey, FileCounts>> {
    let map = ebpf.map_mut("FILES").context("the BPF object has no map FILES")?;
    Ok(PerCpuHashMap::try_from(map)?)
}

impl Probes {
    /// Makes room for the files of a scope that will find none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch_files(&mut self, scope: u16) -> Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("can't count the CPUs: {what}: {error}"))?;
        let key = FileKey { inode: 0, device: 0, scope, padding: 0 };
        let fresh = PerCpuValues::try_from(vec![FileCounts::default(); cpus])?;
        files_mut(&mut self.programs.ebpf)?.insert(key, fresh, 0).context("no room to watch the files of a sandbox")
    }

    /// What a scope did with files so far; `None` where this kernel does not tell.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn file_sums(&self, scope: u16) -> Result<Option<FileSums>> {
        let has = |program| self.programs.has(program);
        if !has(ADDED) {
            return Ok(None);
        }
        let map = files(&self.programs.ebpf)?;
        let mut sums = FileSums { faults_are_seen: has(FAULT.1), ..FileSums::default() };
        for key in map.keys() {
            let key = key?;
            if key.scope != scope {
                continue;
            }
            let mut sum = FileCounts::default();
            map.get(&key, 0)?.iter().for_each(|cpu| add(&mut sum, cpu));
            if sum != FileCounts::default() {
                sums.files.insert((key.inode, key.device), sum);
            }
        }
        Ok(Some(sums))
    }

    /// Forgets the files of all scopes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_files(&mut self) -> Result<()> {
        let mut map = files_mut(&mut self.programs.ebpf)?;
        let keys: Vec<FileKey> = map.keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| Ok(map.remove(key)?))
    }
}
