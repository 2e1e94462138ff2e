//! What a stretch of the path is charged to.

use crate::{
    correlate::{
        exit_reason::ExitReason,
        names::{Cause, Names},
        span::Within,
        stacks::Stack,
        texts::{Text, Texts},
    },
    probe::device_name,
};

/// What an instant of wall time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// A vCPU executed guest code.
    Guest,
    /// The host handled an exit of a vCPU.
    Exit,
    /// A vCPU was in `KVM_RUN` and the host does not trace entries: guest code or exit handling.
    KvmRun,
    /// Own code of a thread.
    User,
    /// The kernel handled a page fault of that code, with a CPU.
    Fault,
    /// An interrupt or softirq interrupted that code.
    Interrupt,
    /// The kernel worked in a system call.
    Kernel,
    /// A thread was ready and had no CPU.
    Runnable,
    /// The same, because the CPU limit of its cgroup was used up.
    Throttled,
    /// A thread waited for a block device.
    BlockIo,
    /// A thread waited for an RCU grace period.
    Rcu,
    /// A thread waited for a lock of the kernel that somebody outside of the sandbox held.
    Lock,
    /// A thread waited for work that it had left to a worker of the kernel.
    Workqueue,
    /// A thread waited for the journal of a file system.
    Journal,
    /// A thread waited for a timer of its own.
    Timer,
    /// A thread waited for a packet of which nobody of the sandbox was seen to be the sender, or one was on its way.
    Network,
    /// A thread waited for another device or a part of the kernel that has no thread.
    Device,
    /// A thread waited for somebody outside of the sandbox: a process, or a thread of the kernel.
    Outside,
    /// Not explained.
    Unattributed,
}

impl Category {
    /// All of them, in the order in which they are shown.
    pub const ALL: [(Self, &str); 19] = [
        (Self::Guest, "guest"),
        (Self::Exit, "exit"),
        (Self::KvmRun, "kvm_run"),
        (Self::User, "user"),
        (Self::Fault, "fault"),
        (Self::Interrupt, "interrupt"),
        (Self::Kernel, "kernel"),
        (Self::Runnable, "runnable"),
        (Self::Throttled, "throttled"),
        (Self::BlockIo, "block_io"),
        (Self::Rcu, "rcu"),
        (Self::Lock, "lock"),
        (Self::Workqueue, "workqueue"),
        (Self::Journal, "journal"),
        (Self::Timer, "timer"),
        (Self::Network, "network"),
        (Self::Device, "device"),
        (Self::Outside, "outside"),
        (Self::Unattributed, "unattributed"),
    ];

    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(category, _)| *category == self).map_or("", |(_, name)| name)
    }
}

/// More on what a stretch was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Nothing.
    None,
    /// Reason of an exit.
    Exit(ExitReason),
    /// The timer, interrupt or softirq that ended a wait.
    Cause(Cause),
    /// Who had the CPU, or who ended the wait.
    Who(Text),
    /// The CPU was idle: what took time is to wake it.
    Idle,
    /// The block device, numbered as the kernel does.
    Device(u32),
    /// Why nothing is known.
    Unseen(&'static str),
}

/// What a stretch of the path is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Charge {
    /// What the time was spent on.
    pub category: Category,
    /// Role of the thread that is on the path.
    pub role: Option<Text>,
    /// The system call or page fault that it is in.
    pub within: Option<Within>,
    /// More.
    pub detail: Detail,
    /// Where in the kernel it waits, if that was asked.
    pub stack: Option<Stack>,
}

impl Charge {
    /// Time of which nothing is known, and why.
    pub(super) fn unseen(role: Option<Text>, why: &'static str) -> Self {
        Self { category: Category::Unattributed, role, within: None, detail: Detail::Unseen(why), stack: None }
    }

    /// The same without what differs between stretches that one change would remove together: who had the CPU, which timer.
    pub(super) fn removable(self) -> Self {
        let detail = match self.category {
            Category::Exit => self.detail,
            _ => Detail::None,
        };
        Self { detail, stack: None, ..self }
    }

    /// The detail in words.
    pub fn detail_text(&self, texts: &Texts, names: &Names) -> Option<String> {
        match self.detail {
            Detail::None => None,
            Detail::Exit(reason) => Some(reason.name(&names.exits)),
            Detail::Cause(cause) => match cause {
                Cause::Irq(number) => Some(format!("interrupt {number}")),
                Cause::Softirq(softirq) => Some(format!("softirq {}", softirq.name())),
                cause => cause.detail(names),
            },
            Detail::Who(who) => Some(family(texts.get(who)).to_owned()),
            Detail::Idle => Some("idle CPU".to_owned()),
            Detail::Device(device) => Some(format!("device {}", device_name(device))),
            Detail::Unseen(why) => Some(why.to_owned()),
        }
    }
}

/// `kworker/0:1-events` and `kworker/u8:3` are both of the family `kworker`: numbers would only split the sum.
pub(super) fn family(name: &str) -> &str {
    match name.split_once('/') {
        Some((family @ ("kworker" | "ksoftirqd" | "migration" | "rcuc" | "rcuog" | "rcuop" | "cpuhp"), _)) => family,
        _ => name,
    }
}
