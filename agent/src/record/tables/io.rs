//! Tables of what went through memory, disks and networks.

use crate::record::table::tables;

tables! {
    /// One row per thread and phase: user page faults, by what the access was.
    table faults = Fault of instance {
        /// The thread.
        tid: u32,
        /// Role of the thread.
        role: String,
        /// Name of the phase, as in `phases`.
        phase: String,
        /// Faults on loads.
        read_count: u64,
        /// Faults on stores.
        write_count: u64,
        /// Faults on instruction fetches.
        exec_count: u64,
        /// Faults whose access the architecture does not tell.
        unknown_count: u64,
    }

    /// One row per block request that a thread of the instance submitted.
    table block = Block of instance {
        /// The submitting thread.
        tid: u32,
        /// Role of the thread.
        role: String,
        /// The device as `MAJOR:MINOR`.
        device: String,
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// Length of the request.
        size_bytes: u64,
        /// Whether it writes.
        write: bool,
        /// When it was queued.
        queued_ns: i64,
        /// When the driver got it.
        issued_ns: Option<i64>,
        /// When it completed.
        completed_ns: i64,
        /// 0, or the negative error number it failed with.
        error_code: i32,
    }

    /// One row per instance, step, device and direction with probes: block requests that threads of the instance submitted and
    /// that completed in the step, summed; `block` has them one by one.
    table block_latency = BlockLatency of instance {
        /// The step, as in `steps`; 0 is the start.
        step: u32,
        /// The device as `MAJOR:MINOR`.
        device: String,
        /// Whether they write.
        write: bool,
        /// How many of them.
        count: u64,
        /// Their length.
        size_bytes: u64,
        /// Time from queueing to completion, all together.
        time_ns: u64,
        /// Shortest such time of each bucket that is not empty, ascending.
        latency_floor_ns: Vec<u64>,
        /// Requests in each of these buckets.
        latency_count: Vec<u64>,
        /// Shortest length of each bucket that is not empty, ascending.
        request_floor_bytes: Vec<u64>,
        /// Requests in each of these buckets.
        request_count: Vec<u64>,
    }

    /// One row per instance, step, role and direction with probes: system calls that read or wrote regular files (those that `files`
    /// counts) and returned in the step, summed.
    table file_latency = FileLatency of instance {
        /// The step, as in `steps`; 0 is the start.
        step: u32,
        /// Role of the threads that made them, such as `workload`, `vmm`, `sentry`.
        role: String,
        /// Whether they write.
        write: bool,
        /// How many of them.
        count: u64,
        /// Bytes that they moved.
        size_bytes: u64,
        /// Time from entry to return, all together.
        time_ns: u64,
        /// Shortest such time of each bucket that is not empty, ascending.
        latency_floor_ns: Vec<u64>,
        /// Calls in each of these buckets.
        latency_count: Vec<u64>,
        /// Fewest bytes of each bucket that is not empty, ascending.
        call_floor_bytes: Vec<u64>,
        /// Calls in each of these buckets.
        call_count: Vec<u64>,
    }

    /// One row per instance, step and file with probes: what system calls of the sandbox read and wrote, and which pages came into
    /// the host's page cache for that.
    table files = File of instance {
        /// The step, as in `steps`; 0 is the start.
        step: u32,
        /// Device of its file system as `MAJOR:MINOR`; null in the sum of the files that found no room in the map.
        device: Option<String>,
        /// Its inode; null as `device`.
        inode: Option<u64>,
        /// Its name without folders, for those files that the start is known to read.
        name: Option<String>,
        /// System calls that read some of it (`read`, `pread64`, `readv`, `preadv`, `preadv2`).
        reads_count: u64,
        /// Bytes that they got.
        read_bytes: u64,
        /// Part of it that was read past the page cache, from files that were opened with `O_DIRECT`; null in results of versions 1 and 2,
        /// which have it in `hit_bytes`.
        direct_bytes: Option<u64>,
        /// Part of it that was in the page cache: what is left without `direct_bytes` and the pages that came in for reads; 0 where read-ahead
        /// brought in more than was read.
        hit_bytes: u64,
        /// Pages that came into the page cache for reads, read-ahead included: misses.
        read_misses_count: u64,
        /// Pages that came in otherwise, for page faults of mappings or by advice: misses too.
        other_misses_count: u64,
        /// Page faults of mappings that the pages around did not answer; null on kernels before 6.10, which do not tell.
        faults_count: Option<u64>,
        /// System calls that wrote to it (`write`, `pwrite64`, `writev`, `pwritev`, `pwritev2`).
        writes_count: u64,
        /// Bytes that they wrote.
        written_bytes: u64,
        /// Pages that came into the page cache to be written.
        written_pages_count: u64,
    }

    /// One row per network device of an instance with probes: what it leaves to others, right after the start. Without offload
    /// each packet of a large answer goes its way alone.
    table offloads = Offload of instance {
        /// `host_end` of the pair of devices, `sandbox_end` of it, or the `tap` of a guest, which has what guest and VMM agreed on.
        place: String,
        /// Name of the device.
        device: String,
        /// Checksums of what it sends.
        tx_checksum: bool,
        /// Checksums of what it receives.
        rx_checksum: bool,
        /// Putting frames together from pieces of memory.
        scatter_gather: bool,
        /// Segmentation of TCP by the device.
        tso: bool,
        /// Segmentation right before the device.
        gso: bool,
        /// Putting received segments together.
        gro: bool,
        /// Whether the guest merges its receive buffers, so that one frame may fill several. Only for a `tap`, and of a VMM that tells
        /// what its guest has accepted (QEMU 7.2 or later); else null.
        mergeable_buffers: Option<bool>,
    }

    /// One row per network device and direction: the frames that passed the host's end.
    table net = Net of instance {
        /// Name of the device on the host.
        device: String,
        /// `from_sandbox` or `to_sandbox`.
        direction: String,
        /// Frames that passed.
        frames_count: u64,
        /// Their length with link-layer headers.
        size_bytes: u64,
        /// When the first one passed.
        first_frame_ns: Option<i64>,
    }
}
