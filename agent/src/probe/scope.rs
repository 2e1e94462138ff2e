//! Which threads belong to which sandbox. The BPF half follows the tasks; this half seeds it.

use super::{Definition, Event::Raw, Hook};
use anyhow::{Context, Result};
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sandscope_ebpf::map::{Membership, SCOPE_CHUNK};
use std::{
    fs,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

pub(super) const PROBE: Definition = Definition {
    name: "scope",
    required: true,
    hooks: |_| {
        &[
            Hook { program: "task_newtask", event: Raw("task_newtask") },
            Hook { program: "sched_process_exec", event: Raw("sched_process_exec") },
            Hook { program: "sched_process_exit", event: Raw("sched_process_exit") },
        ]
    },
    globals: |kernel| {
        Ok(vec![
            ("TASK_PID", kernel.types.offset("task_struct", "pid")?),
            ("TASK_MM", kernel.types.offset("task_struct", "mm")?),
            ("MM_ARG_START", kernel.types.offset("mm_struct", "arg_start")?),
            ("MM_ARG_END", kernel.types.offset("mm_struct", "arg_end")?),
            ("BINPRM_FILENAME", kernel.types.offset("linux_binprm", "filename")?),
        ])
    },
};

/// Elements of `SCOPE_OF` that cover every thread number this kernel hands out.
pub(super) fn chunks() -> Result<u32> {
    const PID_MAX: &str = "/proc/sys/kernel/pid_max";
    let text = fs::read_to_string(PID_MAX).with_context(|| format!("can't read {PID_MAX}"))?;
    let pid_max: usize = text.trim().parse().with_context(|| format!("{PID_MAX} holds {text:?}, not a number"))?;
    Ok(u32::try_from(pid_max.div_ceil(SCOPE_CHUNK))?)
}

/// The map `SCOPE_OF`, in the agent's own memory: single stores, no system calls, no overwriting of neighbours.
pub(super) struct ScopeTable {
    elements: NonNull<AtomicU16>,
    length: usize,
}

// SAFETY: the mapping belongs to the table alone, and its elements are atomics.
unsafe impl Send for ScopeTable {}
// SAFETY: as above.
unsafe impl Sync for ScopeTable {}

impl ScopeTable {
    pub(super) fn map(map: &MapData, chunks: u32) -> Result<Self> {
        let length = chunks as usize * SCOPE_CHUNK;
        let bytes = length * size_of::<u16>();
        // SAFETY: a fresh shared mapping of a map made with BPF_F_MMAPABLE; the kernel keeps at least `bytes` behind it.
        let address = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map.fd().as_fd(), 0)
        }
        .with_context(|| format!("can't map the scope table ({bytes} bytes)"))?;
        let elements = NonNull::new(address.cast()).context("the scope table was mapped at address 0")?;
        Ok(Self { elements, length })
    }

    /// Says what a thread is from now on. Thread numbers beyond `pid_max` do not exist.
    pub(super) fn set(&self, tid: u32, membership: Membership) {
        let index = tid as usize;
        if index < self.length {
            // SAFETY: inside of the mapping, which lives as long as `self`, and aligned.
            let element = unsafe { self.elements.add(index).as_ref() };
            element.store(membership.0, Ordering::Release);
        }
    }
}

impl Drop for ScopeTable {
    fn drop(&mut self) {
        let bytes = self.length * size_of::<u16>();
        // SAFETY: the mapping was made with this length and nobody refers to it any more. A failure would only leak it.
        let _ = unsafe { munmap(self.elements.as_ptr().cast(), bytes) };
    }
}
