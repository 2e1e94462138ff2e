//! What numbers in records mean: causes of wake-ups, reasons of exits, system calls.

use super::{history::Sampled, ioctl::request_name, stacks::called_from};
use crate::{
    host::kallsyms::KernelSymbols,
    probe::{ExitReasons, Record, syscall_name},
    symbols::Symbols,
};
use sandscope_ebpf::event::{PAGE_FAULT, WakeCause};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Translators of numbers into names.
#[derive(Debug, Default)]
pub struct Names {
    /// Kernel functions; must have learnt the addresses of the recording, see [`Names::learn`].
    pub symbols: KernelSymbols,
    /// Reasons of KVM exits.
    pub exits: ExitReasons,
    /// Functions of programs, by where these are on the host; must have learnt of the program, see [`Names::learn_programs`].
    programs: HashMap<PathBuf, Symbols>,
}

impl Names {
    /// Those of the running kernel.
    pub fn of_running_kernel() -> Self {
        Self { exits: ExitReasons::of_running_kernel(), ..Self::default() }
    }

    /// Looks up the kernel functions that a recording mentions.
    pub fn learn(&mut self, records: &[Record]) {
        let timers = records.iter().filter_map(|record| match record {
            Record::Wake(wake) => match Cause::of(wake.header.flags.into(), wake.detail) {
                Cause::Hrtimer(function) | Cause::Timer(function) => Some(function),
                _ => None,
            },
            _ => None,
        });
        let waits = records.iter().flat_map(|record| match record {
            Record::WaitStack(stack) => stack.frames.as_slice(),
            _ => &[],
        });
        let waits = waits.copied().filter(|&frame| frame != 0).map(called_from);
        self.symbols.learn(timers.chain(waits));
    }
}

impl Names {
    /// Reads the functions of programs that are new. Of what can't be read there are none.
    pub fn learn_programs<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        for file in files {
            if !self.programs.contains_key(file) {
                self.programs.insert(file.to_owned(), Symbols::read(file).unwrap_or_default());
            }
        }
    }

    /// The functions that a task was in, the innermost first; `None` for those without a name.
    pub fn functions_of<'a>(&'a self, program: &Path, sampled: &'a Sampled) -> impl Iterator<Item = Option<&'a str>> {
        let symbols = self.programs.get(program);
        let innermost = sampled.calls.first().copied();
        let is_frameless = |address| symbols.is_some_and(|symbols| symbols.is_frameless(address));
        let caller = innermost.filter(|&address| is_frameless(address)).map(|_| sampled.leaf_caller);
        let calls = innermost.into_iter().chain(caller).chain(sampled.calls.iter().skip(1).copied());
        calls.map(move |address| symbols?.function(address))
    }

    /// The kernel's functions at these addresses.
    pub fn functions(&self, addresses: &[u64]) -> Vec<&str> {
        addresses.iter().map(|&address| self.symbols.function(address)).collect()
    }
}

/// What made a wake-up happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A running task.
    Task,
    /// A high-resolution timer, by the address of its function.
    Hrtimer(u64),
    /// A hardware interrupt, by its number.
    Irq(u64),
    /// A timer-wheel timer, by the address of its function.
    Timer(u64),
    /// A softirq.
    Softirq(Softirq),
}

/// A softirq vector. Their order is the kernel's ABI in `/proc/softirqs` (`softirq_to_name`, `kernel/softirq.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kernel's own names")]
pub enum Softirq {
    Hi,
    Timer,
    NetTx,
    NetRx,
    Block,
    IrqPoll,
    Tasklet,
    Sched,
    Hrtimer,
    Rcu,
    /// One that this program does not know.
    Other(u64),
}

impl Softirq {
    const ALL: [(Self, &str); 10] = [
        (Self::Hi, "HI"),
        (Self::Timer, "TIMER"),
        (Self::NetTx, "NET_TX"),
        (Self::NetRx, "NET_RX"),
        (Self::Block, "BLOCK"),
        (Self::IrqPoll, "IRQ_POLL"),
        (Self::Tasklet, "TASKLET"),
        (Self::Sched, "SCHED"),
        (Self::Hrtimer, "HRTIMER"),
        (Self::Rcu, "RCU"),
    ];

    fn of(vector: u64) -> Self {
        let known = usize::try_from(vector).ok().and_then(|vector| Self::ALL.get(vector));
        known.map_or(Self::Other(vector), |&(softirq, _)| softirq)
    }

    /// The kernel's name.
    pub fn name(self) -> String {
        match self {
            Self::Other(vector) => vector.to_string(),
            known => Self::ALL.iter().find(|(softirq, _)| *softirq == known).map_or("", |(_, name)| name).to_owned(),
        }
    }
}

impl Cause {
    /// From the numbers of a record; `cause` is a [`WakeCause`].
    pub fn of(cause: u16, detail: u64) -> Self {
        let is = |known: WakeCause| cause == known as u16;
        if is(WakeCause::Hrtimer) {
            Self::Hrtimer(detail)
        } else if is(WakeCause::Timer) {
            Self::Timer(detail)
        } else if is(WakeCause::Irq) {
            Self::Irq(detail)
        } else if is(WakeCause::Softirq) {
            Self::Softirq(Softirq::of(detail))
        } else {
            Self::Task
        }
    }

    /// Its kind, as the tables have it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Hrtimer(_) => "hrtimer",
            Self::Irq(_) => "irq",
            Self::Timer(_) => "timer",
            Self::Softirq(_) => "softirq",
        }
    }

    /// Function, interrupt number or softirq; nothing for tasks.
    pub fn detail(self, names: &Names) -> Option<String> {
        match self {
            Self::Task => None,
            Self::Hrtimer(function) | Self::Timer(function) => Some(names.symbols.name(function)),
            Self::Irq(number) => Some(number.to_string()),
            Self::Softirq(softirq) => Some(softirq.name()),
        }
    }
}

/// `ioctl(KVM_RUN)`: the vCPU runs. The request number is the same on every architecture.
const KVM_RUN: u32 = 0xae80;

/// A system call, or the page fault that a thread's own code ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Called {
    /// Its number, or [`PAGE_FAULT`].
    pub number: i32,
    /// The request of an `ioctl`; 0 of others.
    pub argument: u32,
}

impl Called {
    /// From the numbers of a record. The request of an `ioctl` is an `unsigned int`: the kernel takes no more of the argument.
    pub fn of(number: i32, argument: u64) -> Self {
        Self { number, argument: argument as u32 }
    }

    /// A page fault of a thread's own code.
    pub const FAULT: Self = Self { number: PAGE_FAULT, argument: 0 };

    /// Whether a vCPU runs in it.
    pub fn is_kvm_run(self) -> bool {
        self.argument == KVM_RUN
    }

    /// Name of the call; of an `ioctl` with its request.
    pub fn name(self) -> String {
        match (self.number, self.argument) {
            (PAGE_FAULT, _) => "page fault".to_owned(),
            (number, 0) => syscall_name(number),
            (number, request) => format!("{}({})", syscall_name(number), request_name(request)),
        }
    }
}
