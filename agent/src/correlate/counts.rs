//! Sums over a recording: exits, wake-ups, system calls, faults, and each thread's time.

use super::{
    Activity, Histories, Phase, Span,
    history::{Crossing, Move, Wake},
    names::Called,
    texts::Text,
    view::View,
};
use crate::probe::{Distribution, Record, userspace_exit_name};
use sandscope_ebpf::event::Faults;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// Distinct details kept per kind of exit: a guest decides which addresses it touches.
const MAX_DETAILS: usize = 64;

/// Exits of one vCPU for one reason.
#[derive(Debug)]
pub struct ExitCount {
    /// Position of the vCPU in order of first runs.
    pub vcpu: u32,
    /// Tracepoint that counts.
    pub source: &'static str,
    /// Reason.
    pub reason: String,
    /// Port, address range or outcome.
    pub detail: Option<String>,
    /// How often.
    pub count: u64,
    /// Time until the vCPU went on, summed over the exits after which it did; `None` where the source can't tell.
    pub time_ns: Option<u64>,
    /// Those times, in nanoseconds.
    pub times: Option<Distribution>,
}

/// One exit of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitEvent {
    /// When it was, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// See [`ExitCount::vcpu`].
    pub vcpu: u32,
    /// See [`ExitCount::source`].
    pub source: &'static str,
    /// See [`ExitCount::reason`].
    pub reason: String,
    /// See [`ExitCount::detail`].
    pub detail: Option<String>,
    /// How long it took, if the source tells.
    pub timing: Timing,
}

/// Exits of a window by vCPU, source and reason. Each source counts for itself: an access to a port can be a `kvm_exit`, a `kvm_pio` and a
/// `kvm_userspace_exit`.
pub fn exits(view: &View<'_>, window: &Range<u64>) -> Vec<ExitCount> {
    let mut counts = ExitCounts::default();
    each_exit(view, window, |exit| counts.add(exit));
    counts.0.into_values().collect()
}

/// Tells of each exit of a window and each source; those of one vCPU and source come in order of time.
pub fn each_exit(view: &View<'_>, window: &Range<u64>, mut give: impl FnMut(ExitEvent)) {
    let View { records, histories, names } = *view;
    // vCPUs do not end before their VM, so that their numbers are not used again.
    let mut vcpus = HashMap::new();
    for history in &histories.tasks {
        let Some(vcpu) = history.vcpu else { continue };
        vcpus.entry(history.tid).or_insert((vcpu, history));
        let within = history.crossings.iter().enumerate().filter(|(_, (at, _))| window.contains(at));
        for (index, &(at_ns, crossing)) in within {
            let Crossing::Exit(exit) = crossing else { continue };
            let next = history.crossings.get(index + 1).filter(|(_, next)| *next == Crossing::Entry);
            let timing = Timing::Timed(next.map(|&(entered, _)| entered - at_ns));
            let reason = names.exits.name(exit.isa, exit.code);
            give(ExitEvent { at_ns, vcpu, source: "kvm_exit", reason, detail: exit.device(), timing });
        }
    }
    for record in records.iter().filter(|record| window.contains(&record.header().at_ns)) {
        let header = record.header();
        let Some(&(vcpu, history)) = vcpus.get(&header.tid) else { continue };
        let mut give = |source, reason, detail, timing| {
            give(ExitEvent { at_ns: header.at_ns, vcpu, source, reason, detail, timing });
        };
        match record {
            Record::KvmPio(pio) => {
                let reason = if header.flags == 1 { "io_out" } else { "io_in" };
                give("kvm_pio", reason.to_owned(), Some(format!("{:#x}", pio.port)), Timing::Untimed);
            }
            Record::KvmMmio(mmio) => {
                // A read that user space must satisfy comes twice; the first time it has no value.
                let reason = match header.flags {
                    0 => "mmio_read_unsatisfied",
                    1 => "mmio_read",
                    _ => "mmio_write",
                };
                let page = format!("{:#x}", mmio.address & !0xfff);
                give("kvm_mmio", reason.to_owned(), Some(page), Timing::Untimed);
            }
            Record::KvmHaltWake(halt) => {
                let outcome = if header.flags & 1 == 1 { "blocked" } else { "polled" };
                let timing = Timing::Timed(Some(halt.halted_ns));
                give("kvm_vcpu_wakeup", "halt".to_owned(), Some(outcome.to_owned()), timing);
            }
            Record::KvmUserspaceExit(exit) => {
                let next = history.calls.partition_point(|call| call.start_ns <= header.at_ns);
                let next = history.calls[next..].iter().find(|call| call.called.is_kvm_run());
                let time = next.map(|call| call.start_ns - header.at_ns);
                let detail = (exit.errno < 0).then(|| std::io::Error::from_raw_os_error(-exit.errno).to_string());
                let reason = userspace_exit_name(exit.reason);
                give("kvm_userspace_exit", reason, detail, Timing::Timed(time));
            }
            _ => {}
        }
    }
}

/// Whether a source tells how long an exit took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// It does not.
    Untimed,
    /// Nanoseconds until the vCPU went on; `None`: the source tells, but not for this exit.
    Timed(Option<u64>),
}

#[derive(Default)]
struct ExitCounts(BTreeMap<(u32, &'static str, String, Option<String>), ExitCount>);

impl ExitCounts {
    fn add(&mut self, exit: ExitEvent) {
        let ExitEvent { vcpu, source, reason, detail, timing, .. } = exit;
        let mut key = (vcpu, source, reason, detail);
        if !self.0.contains_key(&key) {
            let from = (vcpu, source, String::new(), None);
            let details = self.0.range(from..).take_while(|(other, _)| other.0 == vcpu && other.1 == source).count();
            if details >= MAX_DETAILS {
                key.3 = Some("other".to_owned());
            }
        }
        let count = self.0.entry(key).or_insert_with_key(|(vcpu, source, reason, detail)| ExitCount {
            vcpu: *vcpu,
            source,
            reason: reason.clone(),
            detail: detail.clone(),
            count: 0,
            time_ns: matches!(timing, Timing::Timed(_)).then_some(0),
            times: matches!(timing, Timing::Timed(_)).then(Distribution::default),
        });
        count.count += 1;
        if let (Some(sum), Some(times), Timing::Timed(Some(time))) = (&mut count.time_ns, &mut count.times, timing) {
            *sum += time;
            times.record(time);
        }
    }
}

/// Wake-ups of one task for one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeCount {
    /// Thread.
    pub tid: u32,
    /// Its role.
    pub role: Text,
    /// Cause, and who was running.
    pub wake: Wake,
    /// How often.
    pub count: u64,
    /// Time that it had waited, summed.
    pub waited_ns: u64,
}

/// Wake-ups that ended a wait, by task and cause. `spans` are those of `histories`, in the same order.
pub fn wakeups(histories: &Histories, spans: &[Vec<Span>]) -> Vec<WakeCount> {
    let mut counts: BTreeMap<(u32, Text, Wake), (u64, u64)> = BTreeMap::new();
    for (history, spans) in histories.tasks.iter().zip(spans).filter(|(history, _)| history.is_counted()) {
        for span in spans {
            let Activity::Blocked { woken: Some(mut wake), .. } = span.activity else {
                continue;
            };
            // Threads of one role are one waker.
            wake.running.task = None;
            let sum = counts.entry((history.tid, history.role_at(span.start_ns), wake)).or_default();
            sum.0 += 1;
            sum.1 += span.time_ns();
        }
    }
    let row = |((tid, role, wake), (count, waited_ns))| WakeCount { tid, role, wake, count, waited_ns };
    counts.into_iter().map(row).collect()
}

/// System calls of one role by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallCount {
    /// Role of the callers.
    pub role: Text,
    /// The call.
    pub called: Called,
    /// How often it was made.
    pub count: u64,
    /// From entry to return, summed.
    pub time_ns: u64,
    /// Of that, on a CPU.
    pub on_cpu_ns: u64,
}

/// System calls that returned in a window, by role and call. `spans` are those of `histories` in that window, in the same order.
pub fn calls(histories: &Histories, spans: &[Vec<Span>], window: &Range<u64>) -> Vec<CallCount> {
    let mut counts: BTreeMap<(Text, Called), (u64, u64, u64)> = BTreeMap::new();
    for (history, spans) in histories.tasks.iter().zip(spans).filter(|(history, _)| history.is_counted()) {
        for call in history.calls.iter().filter(|call| window.contains(&call.end_ns)) {
            let sum = counts.entry((history.role_at(call.start_ns), call.called)).or_default();
            sum.0 += 1;
            sum.1 += call.end_ns - call.start_ns;
        }
        for span in spans {
            let Activity::Kernel(within) = span.activity else {
                continue;
            };
            counts.entry((history.role_at(span.start_ns), within.called)).or_default().2 += span.time_ns();
        }
    }
    let row = |((role, called), (count, time_ns, on_cpu_ns))| CallCount { role, called, count, time_ns, on_cpu_ns };
    counts.into_iter().map(row).collect()
}

/// User page faults of one thread in one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultCount {
    /// Thread.
    pub tid: u32,
    /// Its role.
    pub role: Text,
    /// Phase, or `after` the first response.
    pub phase: &'static str,
    /// How many.
    pub faults: Faults,
}

/// User page faults by thread and phase.
pub fn faults(histories: &Histories, phases: &[Phase]) -> Vec<FaultCount> {
    let mut counts: Vec<FaultCount> = Vec::new();
    for history in histories.tasks.iter().filter(|history| history.is_counted()) {
        let told = history.interruptions.iter().filter(|(_, told)| told.faults != Faults::default());
        for &(at, told) in told {
            let phase = phases.iter().find(|phase| at <= phase.end_ns).map_or("after", |phase| phase.name);
            let role = history.role_at(at);
            let known = counts.iter_mut().rev().find(|c| c.tid == history.tid && c.phase == phase && c.role == role);
            let sum = match known {
                Some(known) => &mut known.faults,
                None => {
                    let fresh = Faults::default();
                    counts.push(FaultCount { tid: history.tid, role, phase, faults: fresh });
                    let Some(last) = counts.last_mut() else { continue };
                    &mut last.faults
                }
            };
            sum.read += told.faults.read;
            sum.write += told.faults.write;
            sum.exec += told.faults.exec;
            sum.unknown += told.faults.unknown;
        }
    }
    counts
}

/// What one thread's time was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThreadTotals {
    /// On a CPU; the sum of the next seven.
    pub on_cpu_ns: u64,
    /// In its own code.
    pub user_ns: u64,
    /// In page faults of that code.
    pub fault_ns: u64,
    /// In interrupts and softirqs that came while it ran that code.
    pub interrupt_ns: u64,
    /// In system calls other than `KVM_RUN`.
    pub kernel_ns: u64,
    /// In the guest.
    pub guest_ns: u64,
    /// Handling exits.
    pub exit_ns: u64,
    /// In `KVM_RUN` where the host does not tell guest and exits apart.
    pub kvm_run_ns: u64,
    /// Ready, without a CPU.
    pub runnable_ns: u64,
    /// Ready, and kept from a CPU by the limit of its cgroup.
    pub throttled_ns: u64,
    /// Waiting.
    pub blocked_ns: u64,
    /// Times it left a CPU.
    pub switches: u64,
    /// Of those, while it could have gone on.
    pub preemptions: u64,
    /// Times it began to wait.
    pub sleeps: u64,
    /// Times a wait was ended.
    pub wakeups: u64,
    /// Times it got another CPU than before.
    pub migrations: u64,
}

/// Sums per thread over a window, in the order of `histories`, whose spans in that window `spans` are.
pub fn threads(histories: &Histories, spans: &[Vec<Span>], window: &Range<u64>) -> Vec<ThreadTotals> {
    let totals = |(history, spans): (&super::History, &Vec<Span>)| totals(&history.moves, spans, window);
    histories.tasks.iter().zip(spans).map(totals).collect()
}

fn totals(moves: &[(u64, Move)], spans: &[Span], window: &Range<u64>) -> ThreadTotals {
    let mut totals = ThreadTotals::default();
    for span in spans {
        let time = span.time_ns();
        let part = match &span.activity {
            Activity::Guest => &mut totals.guest_ns,
            Activity::Exit(_) => &mut totals.exit_ns,
            Activity::KvmRun => &mut totals.kvm_run_ns,
            Activity::User => &mut totals.user_ns,
            Activity::Fault => &mut totals.fault_ns,
            Activity::Interrupt => &mut totals.interrupt_ns,
            Activity::Kernel(_) => &mut totals.kernel_ns,
            Activity::Runnable { throttled: false } => &mut totals.runnable_ns,
            Activity::Runnable { throttled: true } => &mut totals.throttled_ns,
            Activity::Blocked { woken, .. } => {
                totals.wakeups += u64::from(woken.is_some());
                &mut totals.blocked_ns
            }
        };
        *part += time;
        if span.activity.is_on_cpu() {
            totals.on_cpu_ns += time;
        }
    }
    let mut cpu = None;
    for (_, step) in moves.iter().filter(|(at, _)| window.contains(at)) {
        match step {
            Move::In { cpu: now } => {
                totals.migrations += u64::from(cpu.is_some_and(|before| before != *now));
                cpu = Some(*now);
            }
            Move::Out { state, .. } => {
                totals.switches += 1;
                if *state == 0 {
                    totals.preemptions += 1;
                } else {
                    totals.sleeps += 1;
                }
            }
            Move::Woken(_) => {}
        }
    }
    totals
}
