//! What became of the host's memory when instances were started.
//!
//! `MemAvailable` is what the kernel believes that new programs can have. Its loss is compared with what the instances map, and
//! what lies between the two is named from the kernel's own books (`/proc/meminfo`); what is in no book is what is left.

use anyhow::{Context as _, Result};
use procfs::{Current as _, Meminfo};

/// The kernel's books at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// What new programs can have.
    pub available: u64,
    /// What nobody uses.
    pub free: u64,
    /// Pages of processes without a file.
    pub anonymous: u64,
    /// memfds, tmpfs.
    pub shmem: u64,
    /// The page cache, without shmem.
    pub file: u64,
    /// Page tables, also those of VMs.
    pub page_tables: u64,
    /// Stacks of the kernel, one per thread.
    pub kernel_stack: u64,
    /// Slabs that can't be given back.
    pub slab_unreclaimable: u64,
    /// Slabs that can.
    pub slab_reclaimable: u64,
    /// Memory per CPU, which each cgroup and network namespace needs.
    pub per_cpu: u64,
    /// Huge pages of hugetlbfs, used or not.
    pub hugetlb: u64,
}

impl HostMemory {
    /// As the books are now.
    ///
    /// # Errors
    /// When `/proc/meminfo` can't be read.
    pub fn read() -> Result<Self> {
        let info = Meminfo::current().context("could not read /proc/meminfo")?;
        let shmem = info.shmem.unwrap_or(0);
        Ok(Self {
            available: info.mem_available.context("/proc/meminfo has no MemAvailable (before Linux 3.14)")?,
            free: info.mem_free,
            anonymous: info.anon_pages.unwrap_or(0),
            shmem,
            file: (info.cached + info.buffers).saturating_sub(shmem),
            page_tables: info.page_tables.unwrap_or(0) + info.secondary_page_tables.unwrap_or(0),
            kernel_stack: info.kernel_stack.unwrap_or(0),
            slab_unreclaimable: info.s_unreclaim.unwrap_or(0),
            slab_reclaimable: info.s_reclaimable.unwrap_or(0),
            per_cpu: info.per_cpu.unwrap_or(0),
            hugetlb: info.hugetlb.unwrap_or(0),
        })
    }
}

/// What `MemAvailable` lost, and to what. Negative: gained. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The loss of `MemAvailable`.
    pub available: i64,
    /// Part of it that processes and tmpfs have: anonymous and shmem pages.
    pub mapped: i64,
    /// Part of it that page tables have.
    pub page_tables: i64,
    /// Part of it that kernel stacks have.
    pub kernel_stack: i64,
    /// Part of it that slabs have that can't be given back.
    pub slab: i64,
    /// Part of it that is per CPU.
    pub per_cpu: i64,
    /// What else is gone that is in no book: memory of the kernel and its modules (KVM's, devices'), free pages that wait in
    /// the CPUs' own lists.
    pub other: i64,
    /// What the kernel's estimate itself moved, since it counts only a part of the page cache and the slabs as available.
    pub estimate: i64,
}

/// What happened between two moments.
pub fn difference(before: &HostMemory, after: &HostMemory) -> Difference {
    let gain = |of: fn(&HostMemory) -> u64| of(after).cast_signed() - of(before).cast_signed();
    let available = -gain(|memory| memory.available);
    let mapped = gain(|memory| memory.anonymous) + gain(|memory| memory.shmem) + gain(|memory| memory.hugetlb);
    let page_tables = gain(|memory| memory.page_tables);
    let kernel_stack = gain(|memory| memory.kernel_stack);
    let slab = gain(|memory| memory.slab_unreclaimable);
    let per_cpu = gain(|memory| memory.per_cpu);
    // What is not free is in one of the books.
    let given_back = gain(|memory| memory.file) + gain(|memory| memory.slab_reclaimable);
    let gone = -gain(|memory| memory.free) - given_back;
    let other = gone - mapped - page_tables - kernel_stack - slab - per_cpu;
    Difference { available, mapped, page_tables, kernel_stack, slab, per_cpu, other, estimate: available - gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_make_up_the_whole() {
        let before = HostMemory { available: 1000, free: 500, file: 400, ..HostMemory::default() };
        let after = HostMemory {
            available: 700,
            free: 100,
            anonymous: 200,
            file: 480,
            page_tables: 10,
            kernel_stack: 20,
            slab_unreclaimable: 30,
            slab_reclaimable: 5,
            per_cpu: 8,
            ..HostMemory::default()
        };
        let found = difference(&before, &after);
        let Difference { available, mapped, page_tables, kernel_stack, slab, per_cpu, other, estimate } = found;
        assert_eq!(available, 300);
        assert_eq!(mapped + page_tables + kernel_stack + slab + per_cpu + other + estimate, available);
        // 400 less are free, 85 of which can be had again, and 268 are in the books.
        assert_eq!((other, estimate), (400 - 85 - 268, 300 - (400 - 85)));
    }

    #[test]
    fn memory_that_is_taken_is_missed() {
        const BYTES: usize = 64 << 20;
        // Others on this host may give some back meanwhile, but hardly each time.
        let mut seen = Vec::new();
        for _ in 0..3 {
            let before = HostMemory::read().unwrap();
            let taken = vec![1_u8; BYTES];
            let found = difference(&before, &HostMemory::read().unwrap());
            assert!(std::hint::black_box(&taken).len() == BYTES);
            if found.mapped > BYTES as i64 / 2 {
                return;
            }
            seen.push(found);
        }
        panic!("{seen:?}");
    }
}
