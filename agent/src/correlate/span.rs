//! What one task did, without gaps: a history turned into spans of time.

use super::{
    exit_reason::ExitReason,
    history::{Crossing, Duty, History, Move, OpenCall, Wake},
    names::Called,
    texts::Text,
};

/// `TASK_UNINTERRUPTIBLE` in `task_struct.__state`.
const UNINTERRUPTIBLE: u32 = 2;
/// `TASK_WAKING`: somebody is waking it already.
const WAKING: u32 = 0x200;

/// A stretch of a task's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Beginning, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// End; later than the beginning.
    pub end_ns: u64,
    /// What it did.
    pub activity: Activity,
}

impl Span {
    /// Nanoseconds.
    pub fn time_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// What a task does at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// A vCPU is in its guest.
    Guest,
    /// A vCPU has left the guest for this reason and is on the CPU in the kernel.
    Exit(ExitReason),
    /// A vCPU is in `KVM_RUN` and the host does not tell guest and exit handling apart (or it has not entered yet).
    KvmRun,
    /// On the CPU in its own code.
    User,
    /// On the CPU in the kernel, to handle a page fault of its own code.
    Fault,
    /// On the CPU, where an interrupt or softirq interrupted its own code.
    Interrupt,
    /// On the CPU in a system call.
    Kernel(Within),
    /// Ready to run without a CPU.
    Runnable {
        /// Whether that is because the CPU limit of its cgroup is used up.
        throttled: bool,
    },
    /// Waiting.
    Blocked {
        /// Call or page fault in which it waits.
        within: Option<Within>,
        /// Whether signals can't end the wait, as in most waits for a device.
        uninterruptible: bool,
        /// What ended it; `None` when nothing was seen to.
        woken: Option<Wake>,
    },
}

/// What a task is in, of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within {
    /// The system call, or a page fault.
    pub called: Called,
    /// The file, socket or path that the call is about, where that was looked up.
    pub object: Option<Text>,
}

impl Activity {
    /// Whether it has a CPU.
    pub fn is_on_cpu(&self) -> bool {
        !matches!(self, Self::Runnable { .. } | Self::Blocked { .. })
    }
}

/// What the records of a task lack, as far as the others show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// Times it left a CPU that it was not seen to get: it must have, and since when follows from its CPU time.
    pub arrivals: u64,
    /// Times it went on after a wait that nobody was seen to end.
    pub wakes: u64,
    /// Times it got a CPU while it had one: it must have left that one.
    pub departures: u64,
}

impl Missing {
    /// All of them.
    pub fn all(self) -> u64 {
        self.arrivals + self.wakes + self.departures
    }
}

impl std::ops::AddAssign for Missing {
    fn add_assign(&mut self, other: Self) {
        self.arrivals += other.arrivals;
        self.wakes += other.wakes;
        self.departures += other.departures;
    }
}

/// Where a task is while its history is read.
#[derive(Clone, Copy)]
enum Place {
    /// Nothing seen yet.
    Unknown,
    On,
    Runnable {
        throttled: bool,
    },
    Blocked {
        within: Option<OpenCall>,
        uninterruptible: bool,
    },
}

impl History {
    /// The spans of this task from `start_ns` (or its birth, if later) to `end_ns` (or its death, if earlier).
    pub fn spans(&self, start_ns: u64, end_ns: u64) -> Vec<Span> {
        self.read(start_ns, end_ns).out
    }

    /// What its records lack.
    pub fn missing(&self) -> Missing {
        self.read(u64::MAX, u64::MAX).missing
    }

    fn read(&self, start_ns: u64, end_ns: u64) -> Spans<'_> {
        let mut spans = Spans {
            history: self,
            out: Vec::new(),
            missing: Missing::default(),
            call: 0,
            crossing: 0,
            interruption: 0,
            window: (start_ns, end_ns),
        };
        let mut since = self.born.map_or(start_ns, |born| born.at_ns);
        let mut place = if self.born.is_some() { Place::Runnable { throttled: false } } else { Place::Unknown };
        // How long it had had CPUs when it last left one; a new task has had none.
        let mut last_exec_ns = self.born.map(|_| 0);
        // A wake-up of a task that still has the CPU: it is about to leave it, and its waker was faster.
        let mut early: Option<Wake> = None;
        for &(at, step) in &self.moves {
            match step {
                Move::In { .. } => {
                    match (place, early.take()) {
                        (Place::Runnable { throttled }, _) => spans.runnable(since, at, throttled),
                        // Woken before it had left the CPU: it never waited.
                        (Place::Blocked { .. }, Some(_)) => spans.runnable(since, at, false),
                        (Place::Blocked { within, uninterruptible }, None) => {
                            spans.missing.wakes += 1;
                            spans.blocked(since, at, within, uninterruptible, None);
                        }
                        (Place::On, _) => {
                            spans.missing.departures += 1;
                            spans.on_cpu(since, at);
                        }
                        (Place::Unknown, _) => spans.blocked(since, at, None, false, None),
                    }
                    (since, place) = (at, Place::On);
                }
                Move::Out { state, within, exec_ns, throttled } => {
                    match place {
                        Place::On | Place::Unknown => spans.on_cpu(since, at),
                        Place::Runnable { .. } | Place::Blocked { .. } => {
                            spans.missing.arrivals += 1;
                            let arrived = self.arrival(since, at, last_exec_ns.filter(|_| exec_ns > 0), exec_ns);
                            match place {
                                Place::Blocked { within, uninterruptible } if early.is_none() => {
                                    spans.missing.wakes += 1;
                                    spans.blocked(since, arrived, within, uninterruptible, None);
                                }
                                Place::Runnable { throttled } => spans.runnable(since, arrived, throttled),
                                _ => spans.runnable(since, arrived, false),
                            }
                            early = None;
                            spans.on_cpu(arrived, at);
                        }
                    }
                    last_exec_ns = (exec_ns > 0).then_some(exec_ns);
                    place = if state == 0 || state & WAKING != 0 {
                        Place::Runnable { throttled }
                    } else {
                        Place::Blocked { within, uninterruptible: state & UNINTERRUPTIBLE != 0 }
                    };
                    since = at;
                }
                Move::Woken(wake) => match place {
                    Place::Blocked { within, uninterruptible } => {
                        spans.blocked(since, at, within, uninterruptible, Some(wake));
                        (since, place) = (at, Place::Runnable { throttled: false });
                    }
                    Place::Unknown => {
                        spans.blocked(since, at, None, false, Some(wake));
                        (since, place) = (at, Place::Runnable { throttled: false });
                    }
                    Place::On => early = Some(wake),
                    Place::Runnable { .. } => {}
                },
            }
        }
        // What the last move began goes on until the task ends: for one that died on a CPU, that move was its last.
        let end_ns = self.died_ns.unwrap_or(end_ns);
        if since < end_ns {
            match place {
                Place::On => spans.on_cpu(since, end_ns),
                Place::Runnable { throttled } => spans.runnable(since, end_ns, throttled),
                Place::Blocked { within, uninterruptible } => {
                    spans.blocked(since, end_ns, within, uninterruptible, None);
                }
                // A launcher or client that was never switched: it had a CPU all the time. A daemon's thread never had one.
                Place::Unknown if self.duty == Some(Duty::Acts) => spans.on_cpu(since, end_ns),
                Place::Unknown => {}
            }
        }
        spans
    }

    /// When a task got the CPU that it leaves at `left`, if that was not seen: so long before as it has had one since it left the last
    /// one at `since`. Where the kernel does not say how long, it had one when a call returned in between, or began.
    fn arrival(&self, since: u64, left: u64, before_exec_ns: Option<u64>, exec_ns: u64) -> u64 {
        if let Some(before) = before_exec_ns {
            return left.saturating_sub(exec_ns.saturating_sub(before)).max(since);
        }
        let first = self.calls.partition_point(|call| call.end_ns <= since);
        let call = self.calls.get(first).map(|call| if call.start_ns > since { call.start_ns } else { call.end_ns });
        call.filter(|&at| at < left).unwrap_or(left)
    }
}

/// Collects spans, cut to the window.
struct Spans<'a> {
    history: &'a History,
    out: Vec<Span>,
    missing: Missing,
    /// First call, crossing and interruptions that are not over yet; time only goes forward.
    call: usize,
    crossing: usize,
    interruption: usize,
    window: (u64, u64),
}

impl Spans<'_> {
    /// Adds a stretch, cut where the task's role changes, so that a span has one role.
    fn push(&mut self, start_ns: u64, end_ns: u64, activity: Activity) {
        let (mut start_ns, end_ns) = (start_ns.max(self.window.0), end_ns.min(self.window.1));
        while start_ns < end_ns {
            let until = end_ns.min(self.history.next_role_change(start_ns));
            let same_role = self.history.next_role_change(start_ns.saturating_sub(1)) > start_ns;
            match self.out.last_mut() {
                Some(last) if same_role && last.end_ns == start_ns && last.activity == activity => last.end_ns = until,
                _ => self.out.push(Span { start_ns, end_ns: until, activity }),
            }
            start_ns = until;
        }
    }

    fn runnable(&mut self, start_ns: u64, end_ns: u64, throttled: bool) {
        self.push(start_ns, end_ns, Activity::Runnable { throttled });
    }

    fn blocked(&mut self, start: u64, end: u64, within: Option<OpenCall>, uninterruptible: bool, woken: Option<Wake>) {
        let within = within.map(|open| Within { called: open.called, object: self.object_of(open) });
        self.push(start, end, Activity::Blocked { within, uninterruptible, woken });
    }

    /// What a call is about that had begun: it was looked up when it returned.
    fn object_of(&self, open: OpenCall) -> Option<Text> {
        let calls = &self.history.calls;
        let found = calls.binary_search_by_key(&open.since_ns, |call| call.start_ns).ok()?;
        calls[found].object
    }

    /// Cuts a stretch on the CPU at the borders of calls and of the guest.
    fn on_cpu(&mut self, start_ns: u64, end_ns: u64) {
        let history = self.history;
        let mut at = start_ns;
        while at < end_ns {
            while history.calls.get(self.call).is_some_and(|call| call.end_ns <= at) {
                self.call += 1;
            }
            while history.crossings.get(self.crossing).is_some_and(|&(crossed, _)| crossed <= at) {
                self.crossing += 1;
            }
            let call = history.calls.get(self.call);
            let inside = call.filter(|call| call.start_ns <= at);
            let call_border = match (inside, call) {
                (Some(call), _) => call.end_ns,
                (None, Some(next)) => next.start_ns,
                (None, None) => u64::MAX,
            };
            let next_crossing = history.crossings.get(self.crossing).map_or(u64::MAX, |&(crossed, _)| crossed);
            let until = end_ns.min(call_border).min(next_crossing);
            match inside {
                Some(call) if call.called.is_kvm_run() => self.push(at, until, self.in_kvm_run(call.start_ns)),
                Some(call) => {
                    let within = Within { called: call.called, object: call.object };
                    self.push(at, until, Activity::Kernel(within));
                }
                // Without system calls in the recording, the crossings alone tell.
                None if history.calls.is_empty() && !history.crossings.is_empty() => {
                    self.push(at, until, self.in_kvm_run(0));
                }
                None => self.own_code(at, until),
            }
            at = until;
        }
    }

    /// A stretch of own code. What interrupted it was told when it ended; where in it that was nobody knows, so it comes first.
    fn own_code(&mut self, start_ns: u64, end_ns: u64) {
        let all = &self.history.interruptions;
        while all.get(self.interruption).is_some_and(|&(at, _)| at < end_ns) {
            self.interruption += 1;
        }
        let told = all.get(self.interruption).filter(|&&(at, _)| at == end_ns);
        let fault_ns = told.map_or(0, |(_, told)| told.count().saturating_mul(self.history.fault_ns));
        let interrupt_ns = told.map_or(0, |(_, told)| told.interrupt_ns);
        let faults_end = start_ns.saturating_add(fault_ns).min(end_ns);
        let interrupts_end = faults_end.saturating_add(interrupt_ns).min(end_ns);
        self.push(start_ns, faults_end, Activity::Fault);
        self.push(faults_end, interrupts_end, Activity::Interrupt);
        self.push(interrupts_end, end_ns, Activity::User);
    }

    /// What a vCPU does inside `KVM_RUN`, which it entered at `since_ns`.
    fn in_kvm_run(&self, since_ns: u64) -> Activity {
        let last = self.crossing.checked_sub(1).map(|index| self.history.crossings[index]);
        match last {
            Some((at, Crossing::Entry)) if at >= since_ns => Activity::Guest,
            Some((at, Crossing::Exit(reason))) if at >= since_ns => Activity::Exit(reason),
            _ => Activity::KvmRun,
        }
    }
}
