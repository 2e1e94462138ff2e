//! Tables of what threads and vCPUs did: exits, time on and off the CPU, wake-ups and system calls.

use crate::record::table::tables;

tables! {
    /// One row per vCPU, source, reason and detail: how often a vCPU left the guest, and how long the host took.
    table exits = Exit of instance {
        /// Number of the vCPU.
        vcpu: u32,
        /// Tracepoint that tells of it, such as `kvm_exit` or `kvm_userspace_exit`; counts of different sources
        /// overlap.
        source: String,
        /// Why, in the words of the architecture or of KVM.
        reason: String,
        /// More on it, such as the port or the address. Of `kvm_exit`: `mmio`, with the address of the page where that was asked, for
        /// exits that are accesses to a device, which most processors do not tell from a first touch of memory.
        detail: Option<String>,
        /// How often it happened.
        count: u64,
        /// Time from the exits to the next entries, all together; null where the source has no durations.
        time_ns: Option<u64>,
        /// Part of it in the kernel; null, as the next four, where it was not told apart.
        kernel_ns: Option<u64>,
        /// Part of it in the VMM, while its thread had a CPU.
        vmm_ns: Option<u64>,
        /// Part of it waiting for an event, such as the end of a halt.
        blocked_ns: Option<u64>,
        /// Part of it polling for the end of a halt.
        polled_ns: Option<u64>,
        /// Part of it waiting for a CPU.
        runnable_ns: Option<u64>,
        /// Shortest time of each bucket of the histogram that is not empty, ascending.
        bucket_floor_ns: Vec<u64>,
        /// Exits in each of these buckets.
        bucket_count: Vec<u64>,
    }

    /// One row per thread: what it did with its life from the launch to the first step of the experiment, or where it has none, to the
    /// end of the recording, which is after the first response. The bystanders that work for the sandbox (`launcher`, `client`,
    /// `dockerd`) are among them.
    table sched = Sched of instance {
        /// The thread, as the host numbers it.
        tid: u32,
        /// Its process.
        tgid: u32,
        /// Its last name.
        comm: String,
        /// Its role, such as `runtime`, `vmm`, `vcpu` or `workload`.
        role: String,
        /// Time on a CPU.
        on_cpu_ns: u64,
        /// Part of it in its own code.
        user_ns: u64,
        /// Part of it in page faults of that code; null in results of version 1, which have it in `user_ns`, as the next.
        fault_ns: Option<u64>,
        /// Part of it in interrupts and softirqs that came while that code ran.
        interrupt_ns: Option<u64>,
        /// Part of it in system calls other than `KVM_RUN`.
        kernel_ns: u64,
        /// Part of it in the guest.
        guest_ns: u64,
        /// Part of it in the kernel after an exit from the guest.
        exit_ns: u64,
        /// Part of it in `KVM_RUN` where the host does not tell guest and exits apart.
        kvm_run_ns: u64,
        /// Time in which it could run but had no CPU.
        runnable_ns: u64,
        /// The same, because the CPU limit of its cgroup was used up; null in results of version 1.
        throttled_ns: Option<u64>,
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
    }

    /// One row per thread of the sandbox or of a daemon, and cause: what woke it, how often, and how long it had waited;
    /// for a start in the same time as in `sched`.
    table wakeups = Wakeup of instance {
        /// The woken thread.
        tid: u32,
        /// Role of the thread.
        role: String,
        /// What woke it: `task`, `hrtimer`, `irq`, `timer` or `softirq`.
        cause: String,
        /// More on the cause: the timer's function, the interrupt or the softirq.
        detail: Option<String>,
        /// Role or name of the task that woke it; null unless the cause is `task`.
        waker: Option<String>,
        /// Number of that task; null where wake-ups by several tasks of one role are one row.
        waker_tid: Option<u32>,
        /// Whether that task is of the sandbox itself; null unless `waker_tid` is known.
        waker_inside: Option<bool>,
        /// How often it happened.
        count: u64,
        /// Time that it had waited, all together.
        waited_ns: u64,
        /// How long it then had a CPU until it waited again, all together; null where that was not measured.
        on_cpu_after_ns: Option<u64>,
    }

    /// One row per role of the sandbox or of a daemon, and system call, in the same time as in `sched`.
    table syscalls = Syscall of instance {
        /// Role of the threads.
        role: String,
        /// Name of the system call.
        syscall: String,
        /// How often it was made.
        count: u64,
        /// Time in them, waiting included, of all threads together.
        time_ns: u64,
        /// Part of it on a CPU.
        on_cpu_ns: u64,
    }
}
