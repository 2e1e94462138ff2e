//! Tables about a window of time in which a sandbox was watched: what it cost and what its threads did meanwhile. The exits and
//! wake-ups of the window are in `exits` and `wakeups`.

use crate::record::table::tables;

tables! {
    /// One row per window: what a sandbox cost while it was watched.
    table windows = Window of instance {
        /// What was watched: the kind of the sandbox, or the target of `attach`.
        target: String,
        /// Length of the window.
        span_ns: u64,
        /// Time before it in which the sandbox was left alone; null when it was attached to.
        settled_ns: Option<u64>,
        /// CPU time of its threads.
        cpu_ns: u64,
        /// Run time of the interrupts and timers that woke its threads, each from its beginning to the wake-up.
        causes_ns: u64,
        /// CPU time of the kernel's threads that work for it alone: `kvm-pit`, `vhost`.
        helpers_ns: u64,
        /// Its share of the CPU time of `ksmd`, by the pages it lets it scan; null where `ksmd` does not run.
        ksmd_ns: Option<u64>,
        /// All four together, as a share of one CPU.
        cost_ratio: f64,
        /// Wake-ups of its threads.
        wakeups_count: u64,
        /// Those of them whose cause has a row in `wakeups`.
        named_wakeups_count: u64,
        /// Time in which its threads could run but had no CPU.
        runnable_ns: u64,
        /// Time that the host's own hypervisor gave to others, all CPUs together; null where the host does not say.
        stolen_ns: Option<u64>,
        /// Time in which CPU limits of its control groups kept its threads from running, all CPUs together, as the kernel counts it;
        /// null where no control group of it counts, and in results of before.
        throttled_ns: Option<u64>,
        /// Events that found no room in the maps: what they would have counted is missing.
        unrecorded_count: u64,
        /// What in these figures can't be, such as more CPU time than there are CPUs; null when all checks hold.
        doubts: Option<String>,
        /// Memory of the kernel that the maps take, whatever is in them.
        maps_bytes: u64,
    }

    /// One row per thread that was in the sandbox in a window, its helpers included.
    table threads = Thread of instance {
        /// The thread, as the host numbers it; 0 for the sum of those of one name that have ended when there were more than have room.
        tid: u32,
        /// Its process; 0 for such a sum.
        tgid: u32,
        /// How many threads the row is about: 1, or as many as the sum is of; null in results of before.
        threads_count: Option<u64>,
        /// Name of the thread.
        comm: String,
        /// Its role, such as `vmm`, `vcpu`, `sentry`, `workload` or `helper`.
        role: String,
        /// Number of the vCPU that it runs, as in `exits` and `guest_addresses`: that of KVM where it can be told for all vCPUs, else by
        /// the order of the threads; null for a thread that runs none.
        vcpu: Option<u32>,
        /// The system call that it was in at the end of the window; null if it ran then, had ended, or that can't be read.
        syscall: Option<String>,
        /// Where it was found most often while it had a CPU, a system call or a function each with its share, at one look per
        /// millisecond of its CPU time in the tenth of a second after the window; null for threads that used less than 5 % of a CPU,
        /// for vCPUs, and in results of before.
        found_in: Option<String>,
        /// Time on a CPU.
        on_cpu_ns: u64,
        /// Time in which it could run but had no CPU.
        runnable_ns: u64,
        /// Time in which it waited for something else.
        blocked_ns: u64,
        /// How often it left a CPU.
        switches_count: u64,
        /// How often it left one though it could have gone on.
        preemptions_count: u64,
        /// How often it left one to wait.
        sleeps_count: u64,
        /// How often it was woken.
        wakeups_count: u64,
        /// How often it went on on another CPU than before.
        migrations_count: u64,
        /// Run time of the interrupts and timers that woke it.
        causes_ns: u64,
        /// Run-queue latency: shortest of each bucket of the histogram that is not empty, ascending.
        latency_floor_ns: Vec<u64>,
        /// How often it waited that long for a CPU, per bucket.
        latency_count: Vec<u64>,
    }

    /// One row per thread and thread that took its CPU in a window.
    table preemptions = Preemption of instance {
        /// The thread that lost its CPU.
        tid: u32,
        /// Role of the thread.
        role: String,
        /// The thread that got it; 0 is the idle task; null for several of one name that have ended.
        by_tid: Option<u32>,
        /// Name of that thread.
        by_comm: String,
        /// How often that happened.
        count: u64,
    }

    /// One row per place in the guest at which a vCPU left it in a window.
    table guest_addresses = GuestAddress of instance {
        /// Number of the vCPU.
        vcpu: u32,
        /// As in `exits`; `timer` for writes that start the guest's timer.
        source: String,
        /// As in `exits`, with `(mmio)` for accesses to devices.
        reason: String,
        /// The guest's instruction pointer, in hexadecimal; null for the sum of those that found no room.
        address: Option<String>,
        /// Function of the guest, with the offset in it; null without symbols or where none fits.
        symbol: Option<String>,
        /// How often that happened.
        count: u64,
    }

    /// One row per counter of the kernel or the processor, over all threads of the sandbox in a window.
    table perf_counters = PerfCounter of instance {
        /// Its name, such as `instructions` or `task_clock`.
        counter: String,
        /// What it counts in: `guest`, `host`, or `all`.
        mode: String,
        /// Its value, in the unit that the counter has; null: not measured, and `reason` says why.
        value_count: Option<u64>,
        /// Share of the window in which it was on the processor; below 1 the value is scaled up.
        measured_ratio: Option<f64>,
        /// Why it was not measured.
        reason: Option<String>,
    }

    /// One row per CPU of the host and idle state: how much of the window it spent there. None where the host hides it.
    table idle_states = IdleState of instance {
        /// Number of the CPU.
        cpu: u32,
        /// Name of the state, such as `POLL` or `C6`.
        state: String,
        /// Time in it.
        time_ns: u64,
        /// How often it was entered.
        entries_count: u64,
    }
}
