//! What one task did, without gaps: a history turned into spans of time.

use super::history::{Crossing, Duty, History, Move, OpenCall, Wake, call_name};

/// `TASK_UNINTERRUPTIBLE` in `task_struct.__state`.
const UNINTERRUPTIBLE: u32 = 2;
/// `TASK_WAKING`: somebody is waking it already.
const WAKING: u32 = 0x200;

/// A stretch of a task's life.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// A vCPU is in its guest.
    Guest,
    /// A vCPU has left the guest for this reason and is on the CPU in the kernel.
    Exit {
        /// Code and instruction set of the reason; see [`crate::probe::ExitReasons::name`].
        reason: u32,
        /// See `reason`.
        isa: u32,
    },
    /// A vCPU is in `KVM_RUN` and the host does not tell guest and exit handling apart (or it has not entered yet).
    KvmRun,
    /// On the CPU in its own code (or in a fault or interrupt that came there).
    User,
    /// On the CPU in a system call.
    Kernel {
        /// Its name.
        call: String,
    },
    /// Ready to run without a CPU.
    Runnable,
    /// Waiting.
    Blocked {
        /// Call in which it waits.
        call: Option<String>,
        /// Whether signals can't end the wait, as in most waits for a device.
        uninterruptible: bool,
        /// What ended it; `None` when nothing has.
        woken: Option<Wake>,
    },
}

impl Activity {
    /// Whether it has a CPU.
    pub fn is_on_cpu(&self) -> bool {
        !matches!(self, Self::Runnable | Self::Blocked { .. })
    }
}

/// Where a task is while its history is read.
enum Place {
    /// Nothing seen yet.
    Unknown,
    On,
    Runnable,
    Blocked {
        call: Option<OpenCall>,
        uninterruptible: bool,
    },
}

impl History {
    /// The spans of this task from `start_ns` (or its birth, if later) to `end_ns` (or its death, if earlier).
    pub fn spans(&self, start_ns: u64, end_ns: u64) -> Vec<Span> {
        let mut spans = Spans { history: self, out: Vec::new(), call: 0, crossing: 0, window: (start_ns, end_ns) };
        let mut since = self.born_ns.unwrap_or(start_ns);
        let mut place = if self.born_ns.is_some() { Place::Runnable } else { Place::Unknown };
        // A wake-up of a task that still has the CPU: it is about to leave it, and its waker was faster.
        let mut early: Option<Wake> = None;
        for (at, step) in &self.moves {
            let at = *at;
            match (step, &place) {
                (Move::In { .. }, _) => {
                    match (&place, early.take()) {
                        // Woken before it had left the CPU: it never waited.
                        (Place::Blocked { .. }, Some(_)) | (Place::Runnable, _) => spans.runnable(since, at),
                        (Place::Blocked { call, uninterruptible }, None) => {
                            spans.blocked(since, at, *call, *uninterruptible, None);
                        }
                        (Place::On, _) => spans.on_cpu(since, at),
                        (Place::Unknown, _) => spans.blocked(since, at, None, false, None),
                    }
                    (since, place) = (at, Place::On);
                }
                (Move::Out { state, call, .. }, _) => {
                    match &place {
                        Place::On | Place::Unknown => spans.on_cpu(since, at),
                        // The switch in was lost.
                        Place::Runnable | Place::Blocked { .. } => {}
                    }
                    let runnable = *state == 0 || state & WAKING != 0;
                    place = if runnable {
                        Place::Runnable
                    } else {
                        Place::Blocked { call: *call, uninterruptible: state & UNINTERRUPTIBLE != 0 }
                    };
                    since = at;
                }
                (Move::Woken(wake, _), Place::Blocked { call, uninterruptible }) => {
                    spans.blocked(since, at, *call, *uninterruptible, Some(wake.clone()));
                    (since, place) = (at, Place::Runnable);
                }
                (Move::Woken(wake, _), Place::Unknown) => {
                    spans.blocked(since, at, None, false, Some(wake.clone()));
                    (since, place) = (at, Place::Runnable);
                }
                (Move::Woken(wake, _), Place::On) => early = Some(wake.clone()),
                (Move::Woken(..), Place::Runnable) => {}
            }
        }
        // What the last move began goes on until the task ends: for one that died on a CPU, that move was its last.
        let end_ns = self.died_ns.unwrap_or(end_ns);
        if since < end_ns {
            match place {
                Place::On => spans.on_cpu(since, end_ns),
                Place::Runnable => spans.runnable(since, end_ns),
                Place::Blocked { call, uninterruptible } => {
                    spans.blocked(since, end_ns, call, uninterruptible, None);
                }
                // A launcher or client that was never switched: it had a CPU all the time. A daemon's thread never had one.
                Place::Unknown if self.duty == Some(Duty::Acts) => spans.on_cpu(since, end_ns),
                Place::Unknown => {}
            }
        }
        spans.out
    }
}

/// Collects spans, cut to the window.
struct Spans<'a> {
    history: &'a History,
    out: Vec<Span>,
    /// First call and first crossing that are not over yet; time only goes forward.
    call: usize,
    crossing: usize,
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
                _ => self.out.push(Span { start_ns, end_ns: until, activity: activity.clone() }),
            }
            start_ns = until;
        }
    }

    fn runnable(&mut self, start_ns: u64, end_ns: u64) {
        self.push(start_ns, end_ns, Activity::Runnable);
    }

    fn blocked(&mut self, start: u64, end: u64, call: Option<OpenCall>, uninterruptible: bool, woken: Option<Wake>) {
        let call = call.map(|call| call_name(call.number, call.argument));
        self.push(start, end, Activity::Blocked { call, uninterruptible, woken });
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
            let activity = match inside {
                Some(call) if call.is_kvm_run() => self.in_kvm_run(call.start_ns),
                Some(call) => Activity::Kernel { call: call.name() },
                // Without system calls in the recording, the crossings alone tell.
                None if history.calls.is_empty() && !history.crossings.is_empty() => self.in_kvm_run(0),
                None => Activity::User,
            };
            self.push(at, until, activity);
            at = until;
        }
    }

    /// What a vCPU does inside `KVM_RUN`, which it entered at `since_ns`.
    fn in_kvm_run(&self, since_ns: u64) -> Activity {
        let last = self.crossing.checked_sub(1).map(|index| self.history.crossings[index]);
        match last {
            Some((at, Crossing::Entry)) if at >= since_ns => Activity::Guest,
            Some((at, Crossing::Exit { reason, isa })) if at >= since_ns => Activity::Exit { reason, isa },
            _ => Activity::KvmRun,
        }
    }
}
