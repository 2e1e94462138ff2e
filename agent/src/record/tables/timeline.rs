//! Tables of the order of things: markers, the phases between them, where the time of each went, and what the client
//! saw.

use crate::record::table::tables;

tables! {
    /// One row per marker: a named instant of an instance's start.
    table markers = Marker of instance {
        /// Its name, such as `listen`.
        marker: String,
        /// Who saw it or told it: a probe, the launcher, the client, the guest's console or the VMM.
        source: String,
        /// When; negative before the launch.
        at_ns: i64,
        /// More on it, such as the port or the executed file.
        detail: Option<String>,
    }

    /// One row per phase: the time between two markers. The phases of an instance follow each other without gaps.
    table phases = Phase of instance {
        /// Its name, such as `runtime`.
        phase: String,
        /// When it started.
        start_ns: i64,
        /// When it ended.
        end_ns: i64,
        /// How long it took.
        time_ns: u64,
    }

    /// One row per phase and category: where the wall time went. Each nanosecond is in exactly one row, so that the
    /// rows of a phase add up to it, and those of an instance to its `wall_ns`.
    table attribution = Attribution of instance {
        /// Name of the phase, as in `phases`.
        phase: String,
        /// What the time was spent on; `unattributed` where that is not known.
        category: String,
        /// Role of the task that it is charged to, such as `runtime` or `vmm`.
        role: Option<String>,
        /// More on it, such as the reason of the exit or the system call.
        detail: Option<String>,
        /// How long that took.
        time_ns: u64,
    }

    /// One row per request of the client.
    table requests = Request of instance {
        /// Step that it belongs to, as in `steps`: 0 is the start.
        step: Option<u32>,
        /// Place in the order of the step's requests, from 0.
        position: u32,
        /// When it was due, and the first attempt to connect began.
        started_ns: i64,
        /// When the connection stood.
        connected_ns: Option<i64>,
        /// When the first byte of the response came.
        first_byte_ns: Option<i64>,
        /// When the whole response was there.
        finished_ns: Option<i64>,
        /// HTTP status.
        status: Option<u16>,
        /// Attempts to connect, the successful one included.
        attempts_count: u32,
        /// Length of the response's body.
        body_bytes: Option<u64>,
        /// Time that the workload says its work took, by its own clock.
        workload_ns: Option<u64>,
        /// Why there was no good response; null when there was.
        error: Option<String>,
    }
}
