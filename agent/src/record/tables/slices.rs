//! Tables of single events, for looking at one start on a time axis. They are written for some instances only
//! (`--timeline`): one instance fills them with as many rows as all other tables of many instances together.

use crate::record::table::tables;

tables! {
    /// One row per stretch of the critical path: `attribution` in order. The rows of an instance follow each other without gaps from the
    /// launch to the first response.
    table attribution_slices = AttributionSlice of instance {
        /// When it began.
        start_ns: i64,
        /// When it ended.
        end_ns: i64,
        /// Name of the phase, as in `phases`.
        phase: String,
        /// What the time was spent on, as in `attribution`.
        category: String,
        /// Role of the thread on the path, as in `attribution`.
        role: Option<String>,
        /// Number of that thread, as in `thread_slices`.
        thread: Option<u32>,
        /// The system call, or `page fault`, as in `attribution`.
        syscall: Option<String>,
        /// What that call is about, as in `attribution`.
        object: Option<String>,
        /// More on it, as in `attribution`.
        detail: Option<String>,
        /// Where in the kernel it waits, as in `attribution`.
        stack: Option<String>,
    }

    /// One row per stretch of a thread's life in one state, from the launch to the end of the recording. The rows of a
    /// thread do not overlap, and add up to its row in `sched`.
    table thread_slices = ThreadSlice of instance {
        /// Number of the thread within the instance. Unlike `tid` it is never used again.
        thread: u32,
        /// The thread, as the host numbers it.
        tid: u32,
        /// Its process.
        tgid: u32,
        /// Its last name.
        comm: String,
        /// Its role at that time.
        role: String,
        /// Number of the vCPU that it is, if it is one.
        vcpu: Option<u32>,
        /// When it began.
        start_ns: i64,
        /// When it ended.
        end_ns: i64,
        /// `guest`, `exit`, `kvm_run`, `user`, `fault`, `interrupt`, `kernel`, `runnable`, `throttled` or `blocked`, as in `sched`.
        category: String,
        /// Reason of the exit, or the system call in which it works or waits.
        detail: Option<String>,
        /// What that call is about, as in `attribution`.
        object: Option<String>,
    }

    /// One row per stretch of a vCPU's life in one state, from its first run on. The rows of a vCPU follow each other
    /// without gaps.
    table vcpu_slices = VcpuSlice of instance {
        /// Number of the vCPU.
        vcpu: u32,
        /// When it began.
        start_ns: i64,
        /// When it ended.
        end_ns: i64,
        /// `guest`; `exit`; `kvm_run` (either of these, where the host does not tell); `poll` or `halt` (the guest has
        /// halted, and KVM polls or sleeps); `run_queue` (no CPU); `vmm`, `kernel`, `blocked` (outside `KVM_RUN`).
        state: String,
        /// Reason of the exit, or the system call.
        detail: Option<String>,
    }

    /// One row per exit of a vCPU and source that tells of it: what `exits` sums up.
    table exit_events = ExitEvent of instance {
        /// Number of the vCPU.
        vcpu: u32,
        /// When it happened.
        at_ns: i64,
        /// Tracepoint that tells of it, as in `exits`.
        source: String,
        /// Why, as in `exits`.
        reason: String,
        /// More on it, as in `exits`.
        detail: Option<String>,
        /// Time until the vCPU went on; null where the source does not tell, or it did not go on.
        time_ns: Option<u64>,
    }

    /// One row per wake-up of a thread.
    table wakeup_flows = WakeupFlow of instance {
        /// When it happened.
        at_ns: i64,
        /// The woken thread, as in `thread_slices`.
        thread: u32,
        /// The same as the host numbers it.
        tid: u32,
        /// Role of the woken thread.
        role: String,
        /// What woke it, as in `wakeups`.
        cause: String,
        /// More on the cause, as in `wakeups`.
        detail: Option<String>,
        /// The waking thread, as in `thread_slices`; null when it is none of the instance's, or the cause is no task.
        waker_thread: Option<u32>,
        /// Role or name of the task that woke it; null unless the cause is `task`.
        waker: Option<String>,
        /// Time that it had waited; null when the wake-up ended no wait.
        waited_ns: Option<u64>,
    }

    /// One row per line that the sandbox printed, each cut to 240 characters and made harmless for a terminal.
    table console_lines = ConsoleLine of instance {
        /// When its end was seen.
        at_ns: i64,
        /// `console`: the agent read it from the sandbox's output; `kvm_pio`: probes saw the guest send it to its serial
        /// port, which is earlier and more exact.
        source: String,
        /// Its number among the lines of that source, from 0; null in results of earlier versions.
        number: Option<u32>,
        /// The line, shortened and made harmless.
        line: String,
    }

    /// One row per change of a number.
    table counters = Counter of instance {
        /// When it changed.
        at_ns: i64,
        /// `user_page_faults` (of the sandbox, so far), `halt_poll` (how long KVM polls for a halted vCPU at most) or
        /// `block_in_flight` (block requests that are on their way).
        counter: String,
        /// Unit of the value: `count`, `ns` or `bytes`.
        unit: String,
        /// Number of the vCPU that it belongs to, if to one.
        vcpu: Option<u32>,
        /// The number from then on.
        value: u64,
    }
}
