//! Tables of what running instances have in memory.

use crate::record::table::tables;

tables! {
    /// One row per process of an instance and moment: what it has in memory while so many instances run.
    table memory = Memory of instance {
        /// Instances of the sandbox that run at that moment.
        instances_count: u32,
        /// The process, as the host numbers it.
        tgid: u32,
        /// Name of the process.
        comm: String,
        /// Its role, such as `workload`, `vmm`, `sentry` or `shim`.
        role: String,
        /// In memory and mapped (RSS).
        rss_bytes: u64,
        /// The same, each page divided by the number of its mappings on the host (PSS).
        pss_bytes: u64,
        /// Part of `pss_bytes` that is anonymous.
        pss_anonymous_bytes: u64,
        /// Part of `pss_bytes` that is of files: other programs can have it as soon as they need it.
        pss_file_bytes: u64,
        /// Part of `pss_bytes` that is of memfds and tmpfs.
        pss_shmem_bytes: u64,
        /// Mapped by nobody else (USS): what the end of the process would give back.
        uss_bytes: u64,
        /// Mapped by others too, and not changed.
        shared_clean_bytes: u64,
        /// Mapped by others too, and changed.
        shared_dirty_bytes: u64,
        /// Swapped out.
        swap_bytes: u64,
        /// Mapped by huge pages.
        huge_bytes: u64,
        /// On pages of hugetlbfs, which no other column has.
        hugetlb_bytes: u64,
        /// Merged by KSM; null where the kernel does not tell (before 6.6).
        ksm_bytes: Option<u64>,
        /// The lowest level of its page tables.
        page_tables_bytes: u64,
        /// Page faults since its start that needed no disk.
        minor_faults_count: u64,
        /// Page faults since its start that needed one.
        major_faults_count: u64,
        /// Time that the minor faults took, estimated: their number times what one of anonymous memory takes on this host,
        /// measured in the same run. Null for a run that did not measure it.
        minor_faults_estimated_ns: Option<u64>,
    }

    /// One row per guest and moment: the memory that a VMM, or gVisor, gives to its guest.
    table guest_memory = GuestMemory of instance {
        /// Instances of the sandbox that run at that moment.
        instances_count: u32,
        /// The process that has it mapped.
        tgid: u32,
        /// Role of the process.
        role: String,
        /// `anonymous`, `shmem`, `hugetlb` or `file`.
        backing: String,
        /// What the guest can have.
        size_bytes: u64,
        /// Part of it that is in memory.
        populated_bytes: u64,
        /// Part of it that is not: never touched, or given back.
        untouched_bytes: u64,
    }

    /// One row per cgroup of an instance, kind of memory and moment: what the kernel has in memory on the instance's behalf. No
    /// rows: the instance has no cgroup of its own.
    table kernel_memory = KernelMemory of instance {
        /// Instances of the sandbox that run at that moment.
        instances_count: u32,
        /// The cgroup, below the root of its hierarchy.
        cgroup: String,
        /// By the kernel's own names, such as `kernel_stack`; `kernel` is the sum of them and of what has no name.
        kind: String,
        /// So much of it.
        size_bytes: u64,
    }

    /// One row per started instance: what the host has left, beside what the instances that run have. The instance is the one
    /// that was started last. The parts of the loss add up to it.
    table memory_host = MemoryHost of instance {
        /// Kind of the sandbox.
        sandbox: String,
        /// Instances of it that run at that moment.
        instances_count: u32,
        /// `MemAvailable` of the host.
        available_bytes: u64,
        /// What `MemAvailable` lost since before the first instance, as all columns below.
        lost_bytes: i64,
        /// Part of the loss: anonymous and shmem pages.
        lost_mapped_bytes: i64,
        /// Part of the loss: page tables.
        lost_page_tables_bytes: i64,
        /// Part of the loss: stacks of the kernel.
        lost_kernel_stack_bytes: i64,
        /// Part of the loss: slabs that can't be given back.
        lost_slab_bytes: i64,
        /// Part of the loss: memory per CPU.
        lost_per_cpu_bytes: i64,
        /// Part of the loss that is in none of the kernel's books.
        lost_other_bytes: i64,
        /// Part of the loss that is none: the kernel counts only a part of the page cache as available.
        lost_estimate_bytes: i64,
        /// Sum of the PSS of all processes of all instances that run.
        pss_bytes: u64,
        /// Part of `pss_bytes` that is of files and can be had again, so that `MemAvailable` does not miss it.
        pss_file_bytes: u64,
        /// Sum of the page tables of all these processes, of the lowest level.
        page_tables_bytes: u64,
        /// Sum of what the kernel has in the instances' cgroups; null when they have none of their own.
        kernel_bytes: Option<u64>,
    }

    /// One row per role of an instance, kind of memory, class, state and reason: pages in memory by what else holds the same. One
    /// frame counts once in an instance, however often that maps it.
    table pages = Page of instance {
        /// Instances of the sandbox that run at that moment.
        instances_count: u32,
        /// Whether KSM was let loose on the instances before; false for the rows that say what it could do.
        merged: bool,
        /// Role of the process.
        role: String,
        /// Kind of memory: `guest`, `anonymous`, `heap`, `stack`, `file`, `shmem` or `hugetlb`.
        region: String,
        /// What holds the same, the first that applies: `zero`; `same_as_file`, a file in the host's page cache; `same_across`,
        /// another instance; `same_within`, the instance itself; `unique`, nothing; `unread`, not known.
        class: String,
        /// `already`: all who hold the same use its frame, or it is KSM's or the page cache's; `could`: another frame holds the same
        /// and the two could be one, however many use each; `could_not`.
        state: String,
        /// Why it is not shared; null when it is. The first that applies: `unique`; `written` to a private copy of a file, such as
        /// the memory of a snapshot; `hugetlb` and `shared_mapping`, which nothing merges; `file_copy`, the page cache has the same of
        /// another file; `guest_page_cache`, a guest caches what the host caches; `private_file_copy`; `huge_page`;
        /// `not_yet_merged`, KSM was asked; `not_mergeable`, KSM was not asked; `unreadable`.
        reason: Option<String>,
        /// Whether class or state is inferred, since the page or its frame could not be looked at.
        inferred: bool,
        /// So many pages.
        pages_count: u64,
        /// Different contents among them: half as many when the instance has each twice.
        distinct_pages_count: u64,
        /// Their size.
        size_bytes: u64,
        /// Mappings of frames that KSM has merged: more than pages where the instance maps a frame twice.
        ksm_pages_count: u64,
        /// Frames that KSM would free if it merged all that it could, each counted once, however many use it.
        freeable_pages_count: u64,
    }

    /// One row per analysis of pages: how it was made, and how far it can be trusted. The instance is the one that was started
    /// last.
    table page_scans = PageScan of instance {
        /// Kind of the sandbox.
        sandbox: String,
        /// Instances of it that run at that moment.
        instances_count: u32,
        /// Whether KSM was let loose on the instances before.
        merged: bool,
        /// What was copied and hashed, files in the page cache included.
        scanned_bytes: u64,
        /// Time for that.
        scan_ns: u64,
        /// For how long the instances stood still; null when they went on meanwhile.
        paused_ns: Option<u64>,
        /// Threads that went on although they were to stand still.
        running_threads_count: u64,
        /// Pairs of equal pages that were compared byte by byte.
        verified_count: u64,
        /// Those of them that differed: the instances changed them meanwhile.
        differed_count: u64,
        /// Pages that nothing equals, and that were looked for at other places: a sample.
        sampled_pages_count: u64,
        /// Those of them whose content is somewhere else, but shifted.
        shifted_pages_count: u64,
        /// Size of all pages whose content is somewhere else but shifted, estimated from the sample.
        shifted_estimated_bytes: u64,
        /// Memory that the analysis took for its table.
        table_bytes: u64,
        /// Processes that went on since sandscope can't do without them: it itself and those that it descends from. Null for results
        /// of before.
        spared_processes_count: Option<u64>,
        /// Whether the instances were let go before all was looked at, since that took longer than anybody may be held. Null for
        /// results of before.
        cut_short: Option<bool>,
        /// Pages that were found, each mapping counted, without the processes that were spared. Null for results of before.
        mapped_pages_count: Option<u64>,
        /// As many as the kernel counts for the same processes (RSS and hugetlbfs); null for results of before.
        kernel_pages_count: Option<u64>,
        /// Pages of the page cache that it also holds of another file: the same content at the same place of a copy. Each content
        /// but the first of its frames. Null for results of before.
        file_copies_bytes: Option<u64>,
    }

    /// One row per look at KSM while it merges the instances that run. The instance is the one that was started last.
    table ksm = Ksm of instance {
        /// Kind of the sandbox.
        sandbox: String,
        /// Instances of it that run at that moment.
        instances_count: u32,
        /// Since KSM was turned on.
        after_ns: u64,
        /// How often KSM has looked at all mergeable memory of the host.
        full_scans_count: u64,
        /// Frames of the host that were merged into.
        shared_pages_count: u64,
        /// Frames of the host that were freed.
        sharing_pages_count: u64,
        /// Pages of the host that nothing equals.
        unshared_pages_count: u64,
        /// Pages of the host that change too fast.
        volatile_pages_count: u64,
        /// What merging saves on the host, less what the books of KSM take; null where the kernel does not tell (before 6.4).
        profit_bytes: Option<i64>,
        /// Pages of the instances that are merged, mappings of one frame each counted; null where the kernel does not tell.
        merged_pages_count: Option<u64>,
        /// Merges since KSM was turned on, by the kernel's tracepoints; null where it has none.
        merges_count: Option<u64>,
        /// Time of the kernel's thread that merges, since KSM was turned on; null where the kernel does not tell.
        ksmd_cpu_ns: Option<u64>,
        /// Frames of the instances that could be freed, as the content of their pages said before KSM was turned on.
        possible_pages_count: u64,
    }
}
