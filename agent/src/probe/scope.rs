//! Which threads belong to which sandbox: the table that the programs of every mode keep, and that this half seeds.

use super::{Global, Kernel, mapped::MappedArray};
use anyhow::{Context, Result};
use aya::maps::MapData;
use sandscope_ebpf::map::{Entry, Membership, SCOPE_CHUNK, ScopeChunk};
use std::{
    fs,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

/// Values of the `Global`s that the programs of every mode need to know whom an event concerns.
pub(super) fn globals(kernel: &Kernel<'_>) -> Result<Vec<Global>> {
    Ok(vec![("TASK_PID", kernel.types.offset("task_struct", "pid")?)])
}

/// Elements of `SCOPE_OF` that cover every thread number this kernel hands out.
pub(super) fn chunks() -> Result<u32> {
    const PID_MAX: &str = "/proc/sys/kernel/pid_max";
    let text = fs::read_to_string(PID_MAX).with_context(|| format!("can't read {PID_MAX}"))?;
    let pid_max: usize = text.trim().parse().with_context(|| format!("{PID_MAX} holds {text:?}, not a number"))?;
    Ok(u32::try_from(pid_max.div_ceil(SCOPE_CHUNK))?)
}

/// The map `SCOPE_OF`, in the agent's own memory: single stores, no system calls, no overwriting of neighbours.
pub(super) struct ScopeTable(MappedArray<ScopeChunk>);

// SAFETY: elements are single words, which are read and written as a whole.
unsafe impl Sync for ScopeTable {}

impl ScopeTable {
    pub(super) fn map(map: &MapData, chunks: u32) -> Result<Self> {
        MappedArray::map(map, chunks).map(Self)
    }

    /// Says what a thread is from now on. Thread numbers beyond `pid_max` do not exist.
    pub(super) fn set(&self, tid: u32, membership: Membership) {
        if let Some(entry) = self.entry(tid) {
            // SAFETY: inside of the mapping.
            let field = unsafe { &raw mut (*entry.as_ptr()).membership.0 };
            // SAFETY: aligned, valid as long as `self`, and from now on used as an atomic, since others may write to it meanwhile.
            unsafe { AtomicU16::from_ptr(field) }.store(membership.0, Ordering::Release);
        }
    }

    /// What a thread is. Thread numbers beyond `pid_max` are nothing.
    pub(super) fn membership(&self, tid: u32) -> Membership {
        // SAFETY: aligned and valid as long as `self`; an entry is one word, and any bytes are one.
        self.entry(tid).map_or(Membership::NONE, |entry| unsafe { entry.read_volatile() }.membership)
    }

    /// Says what is known of a thread, its slot included. To be called while no program uses the slot that it has.
    pub(super) fn write(&self, tid: u32, value: Entry) {
        if let Some(entry) = self.entry(tid) {
            // SAFETY: aligned and valid as long as `self`; an entry is one word, so programs see the old one or the new one.
            unsafe { entry.write_volatile(value) };
        }
    }

    fn entry(&self, tid: u32) -> Option<NonNull<Entry>> {
        let chunk = self.0.at(tid / SCOPE_CHUNK as u32)?;
        // SAFETY: a chunk is an array of that many entries.
        Some(unsafe { chunk.cast::<Entry>().add(tid as usize % SCOPE_CHUNK) })
    }
}
