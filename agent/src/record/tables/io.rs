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
