//! What happened to each task, task by task.

use super::{
    exit_reason::ExitReason,
    fault_prices::Timed,
    file_calls::Transfer,
    names::{Called, Cause},
    stacks::Stack,
    texts::Text,
};
use sandscope_ebpf::event::Faults;

/// A thread whose name was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedThread {
    /// Its number.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its role, if a rule tells it.
    pub role: Option<&'static str>,
}

/// A wake-up: why, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wake {
    /// What made it happen.
    pub cause: Cause,
    /// The task that was running on the waker's CPU: the waker itself where the cause is a task, else one that was merely there.
    pub running: Running,
    /// Where in the kernel the task had waited, if that was asked.
    pub stack: Option<Stack>,
}

/// A task that was running when somebody was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Running {
    /// Its place among the histories, if it is one of them.
    pub task: Option<usize>,
    /// Its role where it is one of them, else its name.
    pub who: Text,
}

/// What a thread outside the sandbox is there for, and so what it does while nothing is seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It acts by itself, as the launcher and the client do: one that is never switched has a CPU all the time.
    Acts,
    /// It waits for what the sandbox says, as the reader of its console does.
    Listens,
    /// It is a daemon's: it waits until it is asked, and what it then waits for is a part of its work.
    Serves,
}

/// A thread outside the sandbox that works for it: the launcher, the client, a daemon's.
#[derive(Debug, Clone)]
pub struct Bystander {
    /// Its number.
    pub tid: u32,
    /// Of its process.
    pub tgid: u32,
    /// What it does.
    pub role: String,
    /// What it is there for.
    pub duty: Duty,
    /// When the probes were told to forget it; `None`: not before the end of the recording.
    pub until_ns: Option<u64>,
}

/// Whether a path that somebody executes is a descriptor of his own: himself again, or a copy that nobody can change meanwhile.
pub fn is_itself(path: &str) -> bool {
    ["/proc/self/exe", "/proc/self/fd/", "/dev/fd/"].iter().any(|own| path.starts_with(own))
}

/// One change of a task's place on the CPUs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Move {
    /// It got a CPU.
    In {
        /// Which one.
        cpu: u16,
    },
    /// It left the CPU.
    Out {
        /// `task_struct.__state`; 0 when it stays runnable.
        state: u32,
        /// Call or page fault that it was in.
        within: Option<OpenCall>,
        /// How long it has had CPUs since it was made; 0 where the kernel does not say.
        exec_ns: u64,
        /// Whether the CPU limit of its cgroup is used up.
        throttled: bool,
    },
    /// It was woken.
    Woken(Wake),
}

/// A system call or page fault that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenCall {
    pub(super) called: Called,
    pub(super) since_ns: u64,
}

/// A system call from entry to return, or to the end of what is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) called: Called,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// What it returned; `None`: nobody saw it return.
    pub(super) result: Option<i64>,
    /// The file, socket or path that it is about, where that was looked up.
    pub(super) object: Option<Text>,
    /// What it did with a regular file, if it did anything.
    pub(super) transfer: Option<Transfer>,
}

/// One crossing of the border between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    Entry,
    Exit(ExitReason),
}

/// What interrupted a stretch of a task's own code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interruptions {
    pub(super) faults: Faults,
    /// Those of them that were timed, and how long these took.
    pub(super) timed: u32,
    pub(super) timed_ns: u64,
    pub(super) interrupt_ns: u64,
}

impl Interruptions {
    /// How many page faults.
    pub(super) fn count(&self) -> u64 {
        let Faults { read, write, exec, unknown } = self.faults;
        [read, write, exec, unknown].map(u64::from).iter().sum()
    }
}

/// The beginning of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Birth {
    pub(crate) at_ns: u64,
    /// Who made it, as a place among the histories.
    pub(crate) parent: usize,
}

/// A program that a task executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Executed {
    pub(crate) at_ns: u64,
    pub(crate) path: Text,
    /// Joined by single spaces.
    pub(crate) arguments: Text,
}

/// Everything known of one task.
#[derive(Debug)]
pub struct History {
    /// Thread number.
    pub tid: u32,
    /// Process number.
    pub tgid: u32,
    /// Name at the end of the recording.
    pub comm: Text,
    /// Part of the sandbox; else a bystander that works for it.
    pub member: bool,
    /// What a bystander is there for; `None` for the sandbox's own.
    pub(super) duty: Option<Duty>,
    /// Position among the vCPUs in order of their first run, if it is one.
    pub vcpu: Option<u32>,
    /// Roles, each from an instant on.
    pub(super) roles: Vec<(u64, Text)>,
    pub(super) forked_role: Option<&'static str>,
    /// Its beginning was not seen.
    pub(super) is_stray: bool,
    pub(crate) born: Option<Birth>,
    pub(crate) died_ns: Option<u64>,
    pub(super) moves: Vec<(u64, Move)>,
    pub(super) calls: Vec<Call>,
    pub(super) crossings: Vec<(u64, Crossing)>,
    /// Each at the end of its stretch.
    pub(super) interruptions: Vec<(u64, Interruptions)>,
    pub(crate) executed: Vec<Executed>,
    /// What one of its page faults takes; see [`super::reading::Histories`].
    pub(super) fault_ns: u64,
    /// What the call is about that returns next, with its beginning.
    pub(super) object: Option<(u64, Text)>,
    /// Where the wait is that is about to end.
    pub(super) stack: Option<Stack>,
    /// Where in user space it was at which instant.
    pub(super) samples: Vec<Sampled>,
}

/// A look at a task.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Addresses in the functions of its stack that have a frame, and in the innermost, which is the first.
    pub calls: Vec<u64>,
    /// An address in the caller of the innermost one, if that has no frame.
    pub leaf_caller: u64,
}

impl History {
    pub(super) fn new(tid: u32, tgid: u32, role: Text, comm: Text, member: bool) -> Self {
        Self {
            tid,
            tgid,
            comm,
            member,
            duty: None,
            vcpu: None,
            roles: vec![(0, role)],
            forked_role: None,
            is_stray: false,
            born: None,
            died_ns: None,
            moves: Vec::new(),
            calls: Vec::new(),
            crossings: Vec::new(),
            interruptions: Vec::new(),
            executed: Vec::new(),
            fault_ns: 0,
            object: None,
            stack: None,
            samples: Vec::new(),
        }
    }

    /// Its page faults that were timed.
    pub(super) fn timed_faults(&self) -> Timed {
        let mut timed = Timed::default();
        for (_, told) in &self.interruptions {
            timed += Timed { count: told.timed.into(), time_ns: told.timed_ns };
        }
        timed
    }

    /// What the task was to the sandbox at an instant.
    pub fn role_at(&self, at_ns: u64) -> Text {
        let after = self.roles.partition_point(|&(since, _)| since <= at_ns);
        self.roles[after.saturating_sub(1)].1
    }

    /// Where in user space it was at which instants.
    pub fn samples(&self) -> &[Sampled] {
        &self.samples
    }

    /// Which of its executions was the last at an instant; `None` where it still runs its maker's program.
    pub(super) fn executed_last(&self, at_ns: u64) -> Option<usize> {
        self.executed.partition_point(|executed| executed.at_ns <= at_ns).checked_sub(1)
    }

    /// Whether what it does is counted: the agent's own threads are not.
    pub fn is_counted(&self) -> bool {
        self.member || self.duty == Some(Duty::Serves)
    }

    /// Whether the task existed at an instant.
    pub fn lives_at(&self, at_ns: u64) -> bool {
        self.born.is_none_or(|born| born.at_ns <= at_ns) && self.died_ns.is_none_or(|died| at_ns <= died)
    }

    /// The first instant after `at_ns` at which the task got another role.
    pub(super) fn next_role_change(&self, at_ns: u64) -> u64 {
        let next = self.roles.partition_point(|&(since, _)| since <= at_ns);
        self.roles.get(next).map_or(u64::MAX, |&(since, _)| since)
    }

    /// Whether this task is the one that executed a file as thread `tid` at that instant.
    pub(super) fn executed_at(&self, tid: u32, at_ns: u64) -> bool {
        self.tid == tid && self.roles.iter().any(|&(since, _)| since == at_ns)
    }

    /// When it first entered the guest, or asked KVM to.
    pub(super) fn first_run_ns(&self) -> Option<u64> {
        let crossing = self.crossings.first().map(|&(at_ns, _)| at_ns);
        let run = self.calls.iter().find(|call| call.called.is_kvm_run()).map(|call| call.start_ns);
        crossing.into_iter().chain(run).min()
    }

    /// The call that it was in at an instant, its beginning and end included.
    pub(super) fn call_at(&self, at_ns: u64) -> Option<&Call> {
        let after = self.calls.partition_point(|call| call.start_ns <= at_ns);
        self.calls[..after].last().filter(|call| at_ns <= call.end_ns)
    }

    /// What the task was in the end.
    pub fn role(&self) -> Text {
        self.role_at(u64::MAX)
    }
}
