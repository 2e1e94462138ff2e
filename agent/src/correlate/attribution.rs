//! Where the wall time went: each nanosecond between launch and first response gets exactly one category.
//!
//! At any instant many tasks do many things. The category is that of the most telling one, in a fixed order: a guest that
//! runs, the handling of its exits, code of the sandbox, the kernel on its behalf, a task that waits for a CPU, a wait for a
//! block device, somebody outside who works for the sandbox (a daemon also works while it waits for a disk). When nobody does anything, the instant belongs to what ended
//! that silence: the timer, the packet or the process that woke the next task of the sandbox. So a wait is charged to what
//! was waited for, not to whoever waited longest.

use super::{
    Activity, Histories, History, Phase, Span,
    history::{Names, Wake},
};
use crate::probe::{Record, device_name};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What an instant of wall time was spent on. The order is the precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// A vCPU executed guest code.
    Guest,
    /// The host handled an exit of a vCPU; the detail is its reason.
    Exit,
    /// A vCPU was in `KVM_RUN` and the host does not trace entries: guest code or exit handling.
    KvmRun,
    /// Code of the runtime, the VMM or the workload ran.
    User,
    /// The kernel worked in a system call; the detail is its name.
    Kernel,
    /// A task of the sandbox was ready and had no CPU.
    Runnable,
    /// A task of the sandbox waited for a block device.
    BlockIo,
    /// Nobody of the sandbox ran; somebody outside of it did (the launcher, the client, a daemon, a kernel thread).
    Outside,
    /// Everybody slept until a timer.
    WaitTimer,
    /// Everybody slept until something came from the network.
    WaitNetwork,
    /// Everybody slept until a process of the sandbox, which must have been running unseen.
    WaitProcess,
    /// Not explained.
    Unattributed,
}

impl Category {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Exit => "exit",
            Self::KvmRun => "kvm_run",
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Runnable => "runnable",
            Self::BlockIo => "block_io",
            Self::Outside => "outside",
            Self::WaitTimer => "wait_timer",
            Self::WaitNetwork => "wait_network",
            Self::WaitProcess => "wait_process",
            Self::Unattributed => "unattributed",
        }
    }
}

/// A part of the wall time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Phase in which it lies.
    pub phase: &'static str,
    /// What it was spent on.
    pub category: Category,
    /// Who: a role of the sandbox, or the name of somebody outside.
    pub role: Option<String>,
    /// More: the exit's reason, the system call, the timer's function.
    pub detail: Option<String>,
    /// How long.
    pub time_ns: u64,
}

/// What a stretch of time can be charged to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Charge {
    category: Category,
    role: Option<String>,
    detail: Option<String>,
}

/// A stretch of one task, with its place in the precedence.
struct Segment {
    start_ns: u64,
    end_ns: u64,
    order: Order,
    charge: usize,
}

/// Where the time went, summed up and in order.
#[derive(Debug, Default)]
pub struct Account {
    /// Sums by phase and charge; within a phase, largest first.
    pub shares: Vec<Share>,
    charges: Vec<Charge>,
    /// Phase, charge, beginning and end of each stretch; without gaps.
    stretches: Vec<(&'static str, usize, u64, u64)>,
}

impl Account {
    /// The stretches of time that have one phase and one charge, in order and without gaps: each as the share that it is part
    /// of, with its own time, and when it began.
    pub fn stretches(&self) -> impl Iterator<Item = (u64, Share)> + '_ {
        self.stretches.iter().map(|&(phase, charge, start_ns, end_ns)| {
            let Charge { category, role, detail } = self.charges[charge].clone();
            (start_ns, Share { phase, category, role, detail, time_ns: end_ns - start_ns })
        })
    }
}

/// Charges the whole time of `phases`, which must follow each other without gaps.
///
/// The shares' times add up to exactly the time of the phases. `spans` are those of `histories`, in the same order, and cover
/// at least the phases.
pub fn attribute(
    histories: &Histories,
    spans: &[Vec<Span>],
    records: &[Record],
    phases: &[Phase],
    names: &Names,
) -> Account {
    let blocks = Blocks::of(records);
    let mut charges = Charges::default();
    let mut segments = Vec::new();
    for (history, spans) in histories.tasks.iter().zip(spans) {
        for span in spans {
            if let Some(charge) = charge(history, span, &blocks, names) {
                let order = order(history, span, charge.category);
                let charge = charges.index(charge);
                segments.push(Segment { start_ns: span.start_ns, end_ns: span.end_ns, order, charge });
            }
        }
    }
    let mut shares: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let unattributed = charges.index(Charge { category: Category::Unattributed, role: None, detail: None });
    let mut stretches: Vec<(&'static str, usize, u64, u64)> = Vec::new();
    sweep(&segments, phases, |phase, segment, start_ns, end_ns| {
        let charge = segment.map_or(unattributed, |segment| segments[segment].charge);
        *shares.entry((phase, charge)).or_default() += end_ns - start_ns;
        let name = phases[phase].name;
        match stretches.last_mut() {
            Some(last) if (last.0, last.1, last.3) == (name, charge, start_ns) => last.3 = end_ns,
            _ => stretches.push((name, charge, start_ns, end_ns)),
        }
    });
    // A row for what is not explained even when that is nothing: its absence must not look like an answer.
    for phase in 0..phases.len() {
        shares.entry((phase, unattributed)).or_default();
    }
    let mut rows: Vec<Share> = shares
        .into_iter()
        .map(|((phase, charge), time_ns)| {
            let Charge { category, role, detail } = charges.all[charge].clone();
            Share { phase: phases[phase].name, category, role, detail, time_ns }
        })
        .collect();
    // Within a phase, largest first.
    let place = |share: &Share| phases.iter().position(|phase| phase.name == share.phase);
    rows.sort_by(|a, b| place(a).cmp(&place(b)).then(b.time_ns.cmp(&a.time_ns)));
    Account { shares: rows, charges: charges.all, stretches }
}

/// A place in the precedence; smaller wins. First the category, then what is more telling within it, then an instant.
type Order = (Category, u8, u64);

/// The place in the precedence of what a span is charged to.
fn order(history: &History, span: &Span, category: Category) -> Order {
    match &span.activity {
        // A daemon that waits for a disk, or for a lock that somebody has, is at work, though it does not run.
        Activity::Blocked { uninterruptible: true, .. } if history.is_daemon() => (Category::Outside, 2, span.start_ns),
        // Of all other waits the one that ends first, those of the sandbox before those of daemons.
        Activity::Blocked { .. } if category != Category::BlockIo => {
            (Category::WaitTimer, u8::from(!history.member), span.end_ns)
        }
        activity => (category, u8::from(!activity.is_on_cpu()), span.start_ns),
    }
}

/// Each charge once.
#[derive(Default)]
struct Charges {
    all: Vec<Charge>,
    known: HashMap<Charge, usize>,
}

impl Charges {
    fn index(&mut self, charge: Charge) -> usize {
        *self.known.entry(charge).or_insert_with_key(|charge| {
            self.all.push(charge.clone());
            self.all.len() - 1
        })
    }
}

/// Walks through the time of the phases and tells, for each piece, which segment it belongs to.
fn sweep(segments: &[Segment], phases: &[Phase], mut give: impl FnMut(usize, Option<usize>, u64, u64)) {
    let mut borders: Vec<(u64, bool, usize)> = segments
        .iter()
        .enumerate()
        .flat_map(|(index, segment)| [(segment.start_ns, true, index), (segment.end_ns, false, index)])
        .collect();
    borders.sort_unstable();
    let mut borders = borders.into_iter().peekable();
    let mut active: BTreeSet<(Order, usize)> = BTreeSet::new();
    for (number, phase) in phases.iter().enumerate() {
        let mut at = phase.start_ns;
        while at < phase.end_ns {
            while let Some((_, begins, index)) = borders.next_if(|&(border, ..)| border <= at) {
                let entry = (segments[index].order, index);
                if begins {
                    active.insert(entry);
                } else {
                    active.remove(&entry);
                }
            }
            let until = borders.peek().map_or(phase.end_ns, |&(border, ..)| border.min(phase.end_ns));
            give(number, active.first().map(|&(_, index)| index), at, until);
            at = until;
        }
    }
}

/// What a span of a task can be charged to; nothing for a wait that explains nothing.
fn charge(history: &History, span: &Span, blocks: &Blocks, names: &Names) -> Option<Charge> {
    let role = history.role_at(span.start_ns).to_owned();
    let of = |category, detail: Option<String>| Some(Charge { category, role: Some(role.clone()), detail });
    if !history.member {
        return match &span.activity {
            Activity::Kernel { call } => of(Category::Outside, Some(call.clone())),
            Activity::Runnable => of(Category::Outside, Some("waiting for a CPU".to_owned())),
            activity if activity.is_on_cpu() => of(Category::Outside, Some("running".to_owned())),
            Activity::Blocked { call, woken, uninterruptible } if history.is_daemon() => {
                // Threads of a daemon that nobody wakes, or that wake by themselves, do nothing for the sandbox.
                let woken = woken.as_ref().filter(|woken| !matches!(woken.cause, "hrtimer" | "timer"))?;
                let place = match call {
                    Some(call) => format!(" in {call}"),
                    // What the kernel put off until the call was over, such as to release what it unmounted.
                    None if *uninterruptible => {
                        history.last_call(span.start_ns).map_or(String::new(), |call| format!(" after {call}"))
                    }
                    // It slept since before the launch.
                    None => return None,
                };
                of(Category::Outside, Some(format!("waits for {}{place}", kernel_thread_family(&woken.waker))))
            }
            _ => None,
        };
    }
    match &span.activity {
        Activity::Guest => of(Category::Guest, None),
        Activity::Exit { reason, isa } => of(Category::Exit, Some(names.exits.name(*isa, *reason))),
        Activity::KvmRun => of(Category::KvmRun, None),
        Activity::User => of(Category::User, None),
        Activity::Kernel { call } => of(Category::Kernel, Some(call.clone())),
        Activity::Runnable => of(Category::Runnable, None),
        Activity::Blocked { uninterruptible, call, woken } => {
            if *uninterruptible && let Some(device) = blocks.in_flight(span.start_ns, span.end_ns) {
                return of(Category::BlockIo, Some(format!("device {device}")));
            }
            wait_charge(role, call.as_deref(), woken.as_ref()?)
        }
    }
}

/// What a wait is charged to: that which ended it.
fn wait_charge(role: String, call: Option<&str>, woken: &Wake) -> Option<Charge> {
    let place = call.map_or(String::new(), |call| format!(" in {call}"));
    let waits =
        |category, what: String| Some(Charge { category, role: Some(role.clone()), detail: Some(what + &place) });
    let outside = |who: &str, what: String| Charge {
        category: Category::Outside,
        role: Some(who.to_owned()),
        detail: Some(format!("{what} {role}{place}")),
    };
    match (woken.cause, woken.detail.as_str()) {
        ("hrtimer" | "timer", function) => waits(Category::WaitTimer, function.to_owned()),
        ("softirq", "TIMER" | "HRTIMER") => waits(Category::WaitTimer, "timer".to_owned()),
        ("softirq", "NET_RX" | "NET_TX") => waits(Category::WaitNetwork, format!("packet, {} on the CPU", woken.waker)),
        ("softirq", "BLOCK") => waits(Category::BlockIo, "completion".to_owned()),
        ("softirq", vector) => Some(outside("kernel", format!("softirq {vector} wakes"))),
        ("irq", number) => Some(outside("kernel", format!("interrupt {number} wakes"))),
        _ if woken.waker_is_member => waits(Category::WaitProcess, woken.waker.clone()),
        _ => Some(outside(kernel_thread_family(&woken.waker), "wakes".to_owned())),
    }
}

/// `kworker/0:1-events` and `kworker/u8:3` are both of the family `kworker`: numbers would only split the sum.
fn kernel_thread_family(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// When block requests of the sandbox were on their way.
struct Blocks(Vec<(u64, u64, u32)>);

impl Blocks {
    fn of(records: &[Record]) -> Self {
        let requests = records.iter().filter_map(|record| match record {
            Record::Block(block) => Some((block.queued_ns, block.header.at_ns, block.device)),
            _ => None,
        });
        Self(requests.collect())
    }

    /// The device of a request that was on its way when a wait began and completed before it ended, or shortly after: the
    /// completion wakes the task before the tracepoint that tells of it.
    fn in_flight(&self, start_ns: u64, end_ns: u64) -> Option<String> {
        const COMPLETION_NS: u64 = 100_000;
        let overlaps = |&&(queued, completed, _): &&(u64, u64, u32)| {
            queued < end_ns && completed > start_ns && completed < end_ns + COMPLETION_NS
        };
        self.0.iter().find(overlaps).map(|&(_, _, device)| device_name(device))
    }
}
