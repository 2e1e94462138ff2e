//! Tables of experiments with steps: what was asked of a running instance, how it answered, and what that cost.

use crate::record::table::tables;

tables! {
    /// One row per instance and step: what was asked of it, and how long that took. Step 0 is its start; the others follow in
    /// the order of their numbers.
    table steps = Step of instance {
        /// Its place in the order of the instance's steps; the start is 0.
        step: u32,
        /// Its name, such as `fft`; the start's is `start`.
        name: String,
        /// `start`, `requests` (one after the other, each on a connection of its own), `load` (see `connections_count`), `watch`
        /// (nothing is asked; see `windows`) or `weigh` (its memory is measured; see `memory`).
        kind: String,
        /// What was asked for; null where nothing was.
        path: Option<String>,
        /// Connections of a load.
        connections_count: Option<u32>,
        /// Whether a connection of a load serves one request after the other; else each has a connection of its own.
        keep_alive: Option<bool>,
        /// Time between two requests of a load at a constant rate; null: a connection asks again once it was answered.
        interval_ns: Option<u64>,
        /// When its window began. For a load the warm-up is before that.
        start_ns: i64,
        /// When its window ended.
        end_ns: i64,
        /// Whether every request was answered with status 200.
        ok: bool,
        /// The first reason why not; null when `ok`.
        error: Option<String>,
        /// Requests that were answered with status 200.
        good_count: u64,
        /// Requests that were answered otherwise or not at all.
        bad_count: u64,
        /// Requests of a load that were due and never sent, since no connection was free.
        unsent_count: u64,
        /// Length of the answers' bodies.
        body_bytes: u64,
        /// Pages of the workload's static file; null when the step does not use it.
        file_pages_count: Option<u64>,
        /// Pages of it in the host's page cache right before the step.
        file_resident_before_count: Option<u64>,
        /// The same right after it.
        file_resident_after_count: Option<u64>,
        /// What stands for the step when steps are compared: the time of the start; the median latency of requests and of loads
        /// at a constant rate; the time per good answer of other loads; the CPU time per second when nothing was asked. Null when
        /// there was no good answer, and where it is no time.
        value_ns: Option<u64>,
        /// The same where it is a size: of `weigh` the sum of the PSS of the instance's processes.
        value_bytes: Option<u64>,
    }

    /// One row per load: the latencies of its good answers. The quantiles are within a thousandth of their value, as finely as the load keeps
    /// them; the histogram is as wide as all others. At a constant rate a latency counts from
    /// when the request was due, so that a stall of the workload is in the latencies of all requests that it delayed.
    table latency = Latency of instance {
        /// The step, as in `steps`.
        step: u32,
        /// Answers in the histogram.
        count: u64,
        /// Shortest latency.
        min_ns: u64,
        /// Half of the answers took no longer.
        p50_ns: u64,
        /// 90 % of the answers took no longer.
        p90_ns: u64,
        /// 99 % of the answers took no longer.
        p99_ns: u64,
        /// 99.9 % of the answers took no longer.
        p999_ns: u64,
        /// Longest latency.
        max_ns: u64,
        /// Shortest latency of each bucket that is not empty, ascending.
        bucket_floor_ns: Vec<u64>,
        /// Answers in each of these buckets.
        bucket_count: Vec<u64>,
    }

    /// One row per step and kind of answer: how requests were answered, or why not.
    table answers = Answer of instance {
        /// The step, as in `steps`.
        step: u32,
        /// HTTP status; null when there was no answer.
        status: Option<u16>,
        /// Why there was none; null when there was one.
        error: Option<String>,
        /// How many requests.
        count: u64,
    }

    /// One row per step with probes, kind of activity, role and detail: what the host did for the instance in the very window of
    /// the step. Rows of one kind do not overlap; kinds do.
    table activity = Activity of instance {
        /// The step, as in `steps`.
        step: u32,
        /// `guest`, `exit_handling`, `kvm_run`, `user`, `fault_handling`, `interrupt_handling`, `kernel`, `runnable`, `throttled`,
        /// `blocked` (time of threads, which adds up to their lives in the window), `exit`, `wakeup`, `syscall`, `fault`, `block_read`,
        /// `block_write`.
        kind: String,
        /// Role of the threads.
        role: Option<String>,
        /// More on it: the reason of an exit, the cause of a wake-up, the name of a system call, the access of a fault, the
        /// device.
        detail: Option<String>,
        /// How often it happened; for the time of threads, how many threads.
        count: u64,
        /// How long, over all threads; null where it does not apply.
        time_ns: Option<u64>,
        /// How much; null where it does not apply.
        size_bytes: Option<u64>,
    }

    /// One row per step with probes and direction: the frames that passed the host's end of the instance's own device, from the
    /// beginning of the step's window to its last answer. The warm-up of a load is before that; in results of versions 1 and 2 it is included.
    table traffic = Traffic of instance {
        /// The step, as in `steps`.
        step: u32,
        /// `from_sandbox` or `to_sandbox`.
        direction: String,
        /// Frames, as the kernel hands them over: with segmentation offload one may be many packets.
        frames_count: u64,
        /// Their length with link-layer headers.
        size_bytes: u64,
        /// Frames of them whose TCP data had passed before, by the sequence numbers on the device (IPv4). Data that is lost before
        /// it comes there is not seen to be sent again.
        retransmits_count: u64,
        /// Shortest length of each bucket that is not empty, ascending.
        frame_floor_bytes: Vec<u64>,
        /// Frames in each of these buckets.
        frame_count: Vec<u64>,
    }

    /// One row per step with probes: how long the sandbox took to answer, seen on its own device: from the first frame with data
    /// of a request to the next frame with data of the same TCP connection out of the sandbox.
    table responses = Response of instance {
        /// The step, as in `steps`.
        step: u32,
        /// Requests that were answered.
        count: u64,
        /// All these times together.
        time_ns: u64,
        /// Shortest time of each bucket that is not empty, ascending.
        bucket_floor_ns: Vec<u64>,
        /// Requests in each of these buckets.
        bucket_count: Vec<u64>,
    }

    /// One row per step with probes of a virtual machine whose VMM reads its tap device by system calls: how long frames waited
    /// between the host's end of the instance's own device and the VMM.
    table pickups = Pickup of instance {
        /// The step, as in `steps`.
        step: u32,
        /// Frames that the VMM took.
        count: u64,
        /// All these times together, each to the return of the system call with the frame.
        time_ns: u64,
        /// Frames to the sandbox that the VMM was not seen to take: dropped on the way, or still waiting at the end.
        unseen_count: u64,
        /// Shortest time of each bucket that is not empty, ascending.
        bucket_floor_ns: Vec<u64>,
        /// Frames in each of these buckets.
        bucket_count: Vec<u64>,
    }

    /// One row per instance and step whose value lies far from the others of its cell: outside of the quartiles by more than
    /// three times the distance between them (Tukey's "far out"). They are in all tables and in all medians.
    table outliers = Outlier of instance {
        /// The step, as in `steps`.
        step: u32,
        /// Its value, as in `steps`.
        value_ns: Option<u64>,
        /// Values from here on are no outliers.
        low_ns: Option<i64>,
        /// Values up to here are no outliers.
        high_ns: Option<i64>,
        /// Its value where that is a size, as in `steps`.
        value_bytes: Option<u64>,
        /// Sizes from here on are no outliers.
        low_bytes: Option<i64>,
        /// Sizes up to here are no outliers.
        high_bytes: Option<i64>,
    }

    /// One row per cell and step of a finished suite: the median over the instances, and how sure it is.
    table cells = Cell of run {
        /// Name of the experiment.
        experiment: String,
        /// Variant of the experiment; empty when it has only one.
        variant: String,
        /// Kind of the sandbox.
        sandbox: String,
        /// What ran inside.
        workload: String,
        /// Whether probes were attached.
        probes: bool,
        /// Name of the step, as in `steps`.
        name: String,
        /// Instances with a value.
        instances_count: u32,
        /// Instances on which the step failed (`steps.ok`): a request was answered otherwise than with status 200, or not at all. Those
        /// with a good answer have a value nevertheless. In results of versions 1 and 2 only those without a value.
        failed_count: u32,
        /// Good answers on all of them; null, as the next, in results of versions 1 and 2.
        good_count: Option<u64>,
        /// Requests on all of them that were answered otherwise, not at all, or never sent though due.
        bad_count: Option<u64>,
        /// Instances whose value is an outlier; they are part of the median.
        outliers_count: u32,
        /// Median of their values, where these are times.
        median_ns: Option<u64>,
        /// Lower end of the median's 95 % confidence interval (bootstrap); null with fewer than three values.
        low_ns: Option<u64>,
        /// Upper end of it.
        high_ns: Option<u64>,
        /// Median of their values, where these are sizes.
        median_bytes: Option<u64>,
        /// Lower end of its interval, as `low_ns`.
        low_bytes: Option<u64>,
        /// Upper end of it.
        high_bytes: Option<u64>,
    }
}
