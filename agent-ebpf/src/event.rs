//! The records of the timeline: what happened to a task in scope, when, on which CPU.
//!
//! Each record starts with a [`Header`]. Times are `CLOCK_MONOTONIC` nanoseconds (`bpf_ktime_get_ns`), the clock that user
//! space reads too, so that no record ever needs converting.

use bytemuck::{Pod, Zeroable};

/// Bytes of a task's name as the kernel keeps it (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;
/// Bytes kept of an executed file's path.
pub const PATH_BYTES: usize = 128;
/// Bytes kept of a program's arguments.
pub const ARGS_BYTES: usize = 256;

/// Bytes kept of each part of an object's name, the NUL included.
pub const PART_BYTES: usize = 48;
/// Parts kept of an object's path, from its end.
pub const PARTS: usize = 5;
/// Functions kept of a stack in the kernel, the innermost ones.
pub const STACK_FRAMES: usize = 24;
/// Functions kept of a stack in user space, the innermost ones.
pub const USER_FRAMES: usize = 64;

/// Which record follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`TaskNew`]: a task in scope made another.
    TaskNew = 0,
    /// [`Exec`]: a task in scope executed a file.
    Exec = 1,
    /// [`Exit`]: a task in scope began to exit.
    Exit = 2,
    /// [`Switch`]: a CPU went from one task to another, at least one of them in scope.
    Switch = 3,
    /// [`Wake`]: a task in scope was woken.
    Wake = 4,
    /// [`Syscall`]: a system call of a task in scope returned.
    Syscall = 5,
    /// [`KvmEntry`]: a vCPU entered the guest.
    KvmEntry = 6,
    /// [`KvmExit`]: a vCPU left the guest.
    KvmExit = 7,
    /// [`KvmUserspaceExit`]: `KVM_RUN` is about to return to the VMM.
    KvmUserspaceExit = 8,
    /// [`KvmPio`]: a guest accessed an I/O port.
    KvmPio = 9,
    /// [`KvmMmio`]: a guest accessed emulated memory.
    KvmMmio = 10,
    /// [`KvmHaltWake`]: a halted vCPU goes on.
    KvmHaltWake = 11,
    /// [`KvmHaltPoll`]: the halt-polling interval of a vCPU changed.
    KvmHaltPoll = 12,
    /// [`Listen`]: a socket of a task in scope reached `LISTEN`.
    Listen = 13,
    /// [`Block`]: a block request of a task in scope completed.
    Block = 14,
    /// [`Frame`]: one of the first frames on a device of the sandbox.
    Frame = 15,
    /// [`Traps`]: what interrupted the own code of a task in scope.
    Traps = 16,
    /// [`Object`]: what a long system call of a task in scope was about.
    Object = 17,
    /// [`WaitStack`]: where in the kernel a task in scope has waited.
    WaitStack = 18,
    /// [`Sample`]: where in user space a task in scope is.
    Sample = 19,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 20;

    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TaskNew,
        Self::Exec,
        Self::Exit,
        Self::Switch,
        Self::Wake,
        Self::Syscall,
        Self::KvmEntry,
        Self::KvmExit,
        Self::KvmUserspaceExit,
        Self::KvmPio,
        Self::KvmMmio,
        Self::KvmHaltWake,
        Self::KvmHaltPoll,
        Self::Listen,
        Self::Block,
        Self::Frame,
        Self::Traps,
        Self::Object,
        Self::WaitStack,
        Self::Sample,
    ];
}

/// First 16 bytes of every record.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// The thread that the record is about, as the initial pid namespace numbers it.
    pub tid: u32,
    /// Scope of that thread; 0 when only the other thread of a [`Switch`] is in one.
    pub scope: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// Meaning depends on the kind.
    pub flags: u8,
}

/// A task in scope made another one.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TaskNew {
    /// `tid` is the parent thread.
    pub header: Header,
    /// `CLONE_*` flags.
    pub clone_flags: u64,
    /// The new thread.
    pub child_tid: u32,
    /// Process of the parent.
    pub tgid: u32,
}

/// A task in scope executed a file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Exec {
    /// `tid` is the executing thread, after the kernel renumbered it to its process.
    pub header: Header,
    /// Name of the task from now on, NUL padded.
    pub comm: [u8; COMM_BYTES],
    /// Path as given to `execve`, NUL terminated unless cut.
    pub path: [u8; PATH_BYTES],
    /// Arguments, each NUL terminated, cut to [`ARGS_BYTES`]; `args_bytes` of it are valid.
    pub args: [u8; ARGS_BYTES],
    /// Valid bytes of `args`; 0 when the kernel gave none.
    pub args_bytes: u32,
    /// Thread number before the exec.
    pub old_tid: u32,
}

/// A task in scope began to exit (it still runs a little afterwards).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Exit {
    /// The exiting thread.
    pub header: Header,
    /// Its process.
    pub tgid: u32,
    /// Always 0.
    pub padding: u32,
}

/// A CPU went from one task to another; at least one of the two is in scope.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Switch {
    /// `tid` and `scope` are of the task that leaves the CPU; `flags` is 1 where it was preempted because the CPU limit of its
    /// cgroup is used up.
    pub header: Header,
    /// Task that gets the CPU.
    pub next_tid: u32,
    /// Its scope, or 0.
    pub next_scope: u16,
    /// The CPU.
    pub cpu: u16,
    /// `task_struct.__state` of the leaving task: 0 when it was preempted and stays runnable.
    pub prev_state: u32,
    /// System call that the leaving task is in, [`NO_SYSCALL`] or [`PAGE_FAULT`].
    pub syscall: i32,
    /// When it entered that call or fault; 0 without one.
    pub syscall_since_ns: u64,
    /// What [`Syscall::arg`] will hold.
    pub syscall_arg: u64,
    /// `sum_exec_runtime` of the leaving task: how long it has had CPUs since it was made, whatever switches were seen. 0 where the
    /// kernel does not say.
    pub prev_exec_ns: u64,
    /// Name of the leaving task where it is in no scope; else zeroes.
    pub prev_comm: [u8; COMM_BYTES],
}

/// Value of [`Switch::syscall`] outside system calls and page faults.
pub const NO_SYSCALL: i32 = -1;
/// Value of [`Switch::syscall`] in a page fault of the task's own code.
pub const PAGE_FAULT: i32 = -2;
/// [`Header::flags`] of a [`Switch`]: the CPU limit of the task's cgroup is used up.
pub const THROTTLED: u8 = 1;

/// User page faults of a thread, by what the access was.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub struct Faults {
    /// Faults on loads.
    pub read: u32,
    /// Faults on stores.
    pub write: u32,
    /// Faults on instruction fetches.
    pub exec: u32,
    /// Faults whose access the architecture does not tell.
    pub unknown: u32,
}

/// What interrupted the own code of a task since it was last in the kernel by its own will, or got the CPU. Comes right before the
/// record of the system call or switch that ends this stretch, and only where something did.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Traps {
    /// `at_ns` is the end of the stretch.
    pub header: Header,
    /// Page faults.
    pub faults: Faults,
    /// Time from the beginning of those of them that were timed to the end of their handling.
    pub timed_ns: u64,
    /// Time in interrupts and softirqs, those inside page faults too.
    pub interrupt_ns: u64,
    /// How many were timed.
    pub timed: u32,
    /// Always 0.
    pub padding: u32,
}

/// What made a wake-up happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WakeCause {
    /// A running task; `detail` is 0.
    Task = 0,
    /// A high-resolution timer; `detail` is the address of its function.
    Hrtimer = 1,
    /// A hardware interrupt; `detail` is its number.
    Irq = 2,
    /// A timer-wheel timer; `detail` is the address of its function.
    Timer = 3,
    /// A softirq; `detail` is its vector.
    Softirq = 4,
}

/// A task in scope was woken.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Wake {
    /// `tid` and `scope` are of the woken task; `flags` is a [`WakeCause`].
    pub header: Header,
    /// See [`WakeCause`].
    pub detail: u64,
    /// Task that was running on the CPU of the waker (the waker itself for [`WakeCause::Task`]).
    pub waker_tid: u32,
    /// Its scope, or 0.
    pub waker_scope: u16,
    /// Always 0.
    pub padding: u16,
    /// Its name.
    pub waker_comm: [u8; COMM_BYTES],
}

/// Where in the kernel a task in scope has waited that could not be interrupted, and not just for a moment. Comes right before the
/// [`Wake`] that ends the wait.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct WaitStack {
    /// `tid` is the thread that waits; `flags` is 1 where it waits for a lock.
    pub header: Header,
    /// Return addresses, the innermost first, without the scheduler's own functions and those that take locks; zeroes after the last.
    pub frames: [u64; STACK_FRAMES],
}

/// Where in user space a task in scope was when its CPU's clock ticked.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// The thread.
    pub header: Header,
    /// Where a function that has made no frame of its own returns to; 0 where that could not be read.
    pub leaf_return: u64,
    /// The instruction pointer and return addresses by frame pointers, the innermost first; zeroes after the last.
    pub frames: [u64; USER_FRAMES],
}

/// A system call of a task in scope returned.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Syscall {
    /// `at_ns` is the return, `flags` a [`FileUse`](crate::map::FileUse).
    pub header: Header,
    /// When it was entered.
    pub since_ns: u64,
    /// Second argument for `ioctl` (the request), 0 for others.
    pub arg: u64,
    /// Its return value.
    pub result: i64,
    /// Its number.
    pub number: i32,
    /// Always 0.
    pub padding: u32,
}

/// A vCPU entered the guest.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmEntry {
    /// The vCPU's thread.
    pub header: Header,
}

/// A vCPU left the guest.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmExit {
    /// The vCPU's thread.
    pub header: Header,
    /// Guest instruction pointer.
    pub guest_ip: u64,
    /// Architecture's exit code, numbered as the tracepoint's own symbols.
    pub reason: u32,
    /// Instruction set of the reason: 1 VMX, 2 SVM on x86; the exception code on arm64; 0 where the kernel does not say.
    pub isa: u32,
}

/// `KVM_RUN` is about to return to the VMM.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmUserspaceExit {
    /// The vCPU's thread.
    pub header: Header,
    /// `KVM_EXIT_*`.
    pub reason: u32,
    /// Negative when `KVM_RUN` fails with it.
    pub errno: i32,
}

/// A guest accessed an I/O port.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmPio {
    /// The vCPU's thread; `flags` is 1 for an OUT, 0 for an IN.
    pub header: Header,
    /// Port number.
    pub port: u32,
    /// Bytes of one access: 1, 2 or 4.
    pub size: u32,
    /// Accesses made by one string instruction, else 1.
    pub count: u32,
    /// First value written or read.
    pub value: u32,
}

/// A guest accessed emulated memory.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmMmio {
    /// The vCPU's thread; `flags` is the tracepoint's type: 0 read not yet satisfied, 1 read, 2 write.
    pub header: Header,
    /// Guest-physical address.
    pub address: u64,
    /// Value, as far as it fits.
    pub value: u64,
    /// Bytes.
    pub length: u32,
    /// Always 0.
    pub padding: u32,
}

/// A halted vCPU goes on.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmHaltWake {
    /// The vCPU's thread; `flags` bit 0: it blocked (else it only polled), bit 1: the wake-up was valid.
    pub header: Header,
    /// How long it polled or blocked.
    pub halted_ns: u64,
}

/// The halt-polling interval of a vCPU changed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KvmHaltPoll {
    /// The vCPU's thread.
    pub header: Header,
    /// Interval from now on.
    pub new_ns: u32,
    /// Interval before.
    pub old_ns: u32,
    /// vCPU number.
    pub vcpu: u32,
    /// Always 0.
    pub padding: u32,
}

/// A socket of a task in scope reached `LISTEN`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Listen {
    /// The thread that called `listen`.
    pub header: Header,
    /// Local port, host byte order.
    pub port: u16,
    /// `AF_*`.
    pub family: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Always 0.
    pub padding: u16,
}

/// A block request that a task in scope submitted completed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    /// `tid` is the submitter, `at_ns` the completion; `flags` is 1 for writes.
    pub header: Header,
    /// First sector (512 bytes each).
    pub sector: u64,
    /// When the submitter queued it.
    pub queued_ns: u64,
    /// When the driver got it; 0 when that was not seen.
    pub issued_ns: u64,
    /// Length.
    pub bytes: u32,
    /// Device number as the kernel encodes it (`MAJOR << 20 | MINOR`).
    pub device: u32,
    /// 0, or how it failed: an `errno`, negative (up to 5.15), or a `blk_status_t` (`include/linux/blk_types.h`).
    pub error: i32,
    /// Always 0.
    pub padding: u32,
}

/// One of the first frames on a device of the sandbox.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Frame {
    /// `tid` is the task that was running when the frame passed; `flags` is a [`Direction`].
    pub header: Header,
    /// Interface index of the host's end.
    pub ifindex: u32,
    /// Length with its link-layer header, before segmentation.
    pub bytes: u32,
    /// Ethernet type, host byte order.
    pub ethertype: u16,
    /// Always 0.
    pub padding: [u16; 3],
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Out of the sandbox.
    FromSandbox = 0,
    /// Into the sandbox.
    ToSandbox = 1,
}

/// What a long system call of a task in scope was about. Comes right before the record of that call.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Object {
    /// `flags` is an [`ObjectKind`].
    pub header: Header,
    /// When the call was entered, as in its [`Syscall`].
    pub since_ns: u64,
    /// Magic number of the file system (`include/uapi/linux/magic.h`), for a file.
    pub magic: u64,
    /// `AF_*`, for a socket.
    pub family: u16,
    /// Protocol, for a socket: `IPPROTO_*` or `NETLINK_*`.
    pub protocol: u16,
    /// Local port in host byte order, for an Internet socket.
    pub local_port: u16,
    /// Remote port in network byte order, for an Internet socket.
    pub remote_port: u16,
    /// For a file: parts of its path inside of its file system, the last one first, each NUL terminated unless cut. For a path, or
    /// the name of a Unix socket (its own, or else that of its peer): one text, NUL terminated unless cut.
    pub name: [[u8; PART_BYTES]; PARTS],
}

/// What an [`Object`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// An open file of any kind but a socket.
    File = 0,
    /// A socket.
    Socket = 1,
    /// A path, as the caller gave it.
    Path = 2,
}
