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
        /// Its name, such as `runtime`; the same with and without probes. `unobserved`: several phases, of which nobody saw where one
        /// ends, as without probes until the callback.
        phase: String,
        /// When it started.
        start_ns: i64,
        /// When it ended.
        end_ns: i64,
        /// How long it took.
        time_ns: u64,
    }

    /// One row per phase, thread and what the time was spent on: the critical path from the launch to the first response, summed up.
    /// Each nanosecond is in exactly one row, so that the rows of a phase add up to it, and those of an instance to its `wall_ns`.
    /// docs/account.md explains the path.
    table attribution = Attribution of instance {
        /// Name of the phase, as in `phases`.
        phase: String,
        /// What the time was spent on: `guest`, `exit` (handling of VM exits), `kvm_run` (either of these, where the host does not
        /// tell), `user`, `fault` (page faults of user code), `interrupt` (interrupts and softirqs that came while user code ran),
        /// `kernel` (system calls), `runnable` (ready, without a CPU), `throttled` (kept from a CPU by a CPU limit), or a wait for what
        /// nobody of the sandbox brought about: `block_io`, `rcu` (a grace period), `lock` (one of the kernel's that somebody outside held),
        /// `workqueue` (work left to a worker of the kernel), `journal` (of a file system), `timer`, `network`, `device`, `outside`
        /// (somebody outside of the sandbox); `unattributed` where that is not known.
        category: String,
        /// Role of the thread on the path, such as `runtime`, `vmm` or `client`.
        role: Option<String>,
        /// Number of that thread within the instance, as in `thread_slices`.
        thread: Option<u32>,
        /// The system call, or `page fault`, in which it works or waits.
        syscall: Option<String>,
        /// What that call is about: a file, a socket or a pipe; null for calls below 50 µs, and those that are about nothing. A child that
        /// is waited for is on the path itself.
        object: Option<String>,
        /// More: the reason of the exit, the function of the timer, the device, who had the CPU or ended the wait.
        detail: Option<String>,
        /// Where in the kernel it waits: functions from the system call's inwards, with `;` between; null for waits that signals can
        /// end, for those below 100 µs, and where the kernel does not tell.
        stack: Option<String>,
        /// How long that took.
        time_ns: u64,
    }

    /// One row per instance and part of its critical path that takes more than 1 % of it, and per category that does: what the start
    /// would have saved if that had taken no time. Predicted by a replay of the recorded dependencies between threads, so that what
    /// would be waited for instead is taken into account; savings of several rows do not add up.
    table savings = Saving of instance {
        /// What is taken away, as in `attribution`.
        category: String,
        /// Role of the threads; null: everything of the category, whoever it is.
        role: Option<String>,
        /// The system call, or `page fault`.
        syscall: Option<String>,
        /// What that call is about.
        object: Option<String>,
        /// More, as in `attribution`; only for exits.
        detail: Option<String>,
        /// Its time on the critical path.
        time_ns: u64,
        /// By how much the first response would have come earlier.
        saves_ns: u64,
    }

    /// One row per lock of the kernel that a thread of the sandbox waited for on the critical path while another thread of the sandbox
    /// held it. The path goes on with the one that held it, so that what that one did is in `attribution`, and the wait is here alone. No
    /// instant is in two rows. Waits below 100 µs, and those that signals can end, are not told apart from others; before Linux 5.19 none is.
    table held_locks = HeldLock of instance {
        /// Role of the thread that waited.
        role: String,
        /// The system call, or `page fault`, in which it did.
        syscall: Option<String>,
        /// What that call is about, as in `attribution`.
        object: Option<String>,
        /// Where in the kernel it waited, as in `attribution`.
        stack: String,
        /// Role of the thread that held the lock and woke it.
        held_by: String,
        /// How often that was.
        count: u64,
        /// Time of the critical path that passed meanwhile.
        time_ns: u64,
    }

    /// One row per program that the sandbox executed while it started, in order.
    table executions = Execution of instance {
        /// The process, as the host numbers it.
        tgid: u32,
        /// The process that made it; null where that was not seen.
        parent_tgid: Option<u32>,
        /// Role of that process at that time.
        parent_role: Option<String>,
        /// Role of the process from then on.
        role: String,
        /// The executed file, as it was given.
        program: String,
        /// Its arguments, the program's own name first, joined by spaces; the first 256 bytes.
        arguments: String,
        /// When it was executed.
        start_ns: i64,
        /// When the process ended or executed something else; null if it had not until the end of the recording.
        end_ns: Option<i64>,
        /// CPU time of its threads between launch and first response.
        cpu_ns: u64,
        /// Time that they are on the critical path, and processes that it made and that have executed nothing yet.
        path_ns: u64,
    }

    /// One row per thread, phase and stack at which the clock of its CPU found the thread in its own code, once each millisecond; only
    /// with `--stacks all`.
    table samples = Sample of instance {
        /// As in `phases`.
        phase: String,
        /// Number of the thread within the instance, as in `attribution`.
        thread: u32,
        /// Role of the thread at that time.
        role: String,
        /// Whether it was on the critical path then.
        on_path: bool,
        /// File of the program on the host, whose functions were looked up; null where it is not known.
        program: Option<String>,
        /// The functions, the outermost first, joined by `;`. What has no name is what it is part of, in brackets.
        stack: String,
        /// How often it was found there.
        count: u32,
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
