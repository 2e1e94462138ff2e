//! The rows of the dataset that a window gives.

use super::{GuestSymbols, Moved, Who, Window, ended, hot::Hot};
use crate::{
    correlate::{Cause, Names},
    probe::{Distribution, userspace_exit_name},
    record::{Dataset, Error, tables},
};
use sandscope_ebpf::{
    event::WakeCause,
    sums::{Exits, Source, Thread, WakeKey, Wakes},
};
use std::collections::{BTreeMap, BTreeSet};

/// What turns numbers into names.
pub struct Translators<'a> {
    /// Of the host's kernel; must have learnt the addresses of the window, see [`Window::learn`].
    pub names: &'a Names,
    /// Of the guest, if its symbols are known.
    pub guest: Option<&'a GuestSymbols>,
}

impl Window {
    /// Looks up the kernel functions that the window mentions.
    pub fn learn(&self, names: &mut Names) {
        let functions = self
            .counted
            .wakes
            .keys()
            .filter(|key| key.cause == WakeCause::Hrtimer as u16 || key.cause == WakeCause::Timer as u16);
        let hot = self.hot.values().flat_map(Hot::addresses);
        names.symbols.learn(functions.map(|key| key.detail).chain(hot));
    }

    /// Says that these tables are observed, so that one without rows means that nothing happened.
    ///
    /// # Errors
    /// When a table's directory can't be read.
    pub fn declare(dataset: &mut Dataset) -> Result<(), Error> {
        dataset.declare::<tables::Window>()?;
        dataset.declare::<tables::Thread>()?;
        dataset.declare::<tables::Exit>()?;
        dataset.declare::<tables::Wakeup>()?;
        dataset.declare::<tables::Preemption>()?;
        dataset.declare::<tables::GuestAddress>()?;
        dataset.declare::<tables::PerfCounter>()?;
        dataset.declare::<tables::IdleState>()
    }

    /// Appends everything about the window to the dataset.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn append(
        &self,
        id: &str,
        settled_ns: Option<u64>,
        with: &Translators<'_>,
        dataset: &mut Dataset,
    ) -> Result<(), Error> {
        let vcpus = self.vcpus();
        let thread = |(slot, who)| {
            let row = thread_row(self.counted.threads.get(slot)?, who, vcpus.get(slot).copied());
            Some(tables::Thread { found_in: self.found_in(*slot, with), ..row })
        };
        dataset.append(id, self.threads.iter().filter_map(thread))?;
        dataset.append(id, self.exits(with).map(|(vcpu, _, exits)| exit_row(vcpu, name(exits, with.names), exits)))?;
        dataset.append(id, self.addresses(with))?;
        dataset.append(id, self.counted.wakes.iter().filter_map(|(key, wakes)| self.wakeup_row(key, wakes, with)))?;
        dataset.append(
            id,
            self.counted.preemptions.iter().filter_map(|(key, preemptions)| {
                Some(tables::Preemption {
                    tid: self.counted.threads.get(&key.slot)?.tid,
                    role: self.threads.get(&key.slot)?.role.clone(),
                    by_tid: (!ended::is_several(key.by_tid)).then_some(key.by_tid),
                    by_comm: super::printable(&preemptions.by_comm),
                    count: preemptions.count,
                })
            }),
        )?;
        dataset.append(
            id,
            self.counters.iter().map(|counter| {
                let value = counter.value.as_ref();
                tables::PerfCounter {
                    counter: counter.name.to_owned(),
                    mode: counter.mode.to_owned(),
                    value_count: value.ok().map(|(value, _)| *value),
                    measured_ratio: value.ok().map(|(_, ratio)| *ratio),
                    reason: value.err().cloned(),
                }
            }),
        )?;
        dataset.append(
            id,
            self.idle_states.iter().map(|state| tables::IdleState {
                cpu: state.cpu,
                state: state.state.clone(),
                time_ns: state.time_ns,
                entries_count: state.entries,
            }),
        )?;
        let cost = self.cost();
        dataset.append(
            id,
            [tables::Window {
                target: self.subject.name.clone(),
                span_ns: self.counted.span_ns,
                settled_ns,
                cpu_ns: cost.cpu_ns,
                causes_ns: cost.causes_ns,
                helpers_ns: cost.helpers_ns,
                ksmd_ns: self.ksmd_ns,
                cost_ratio: cost.ratio,
                wakeups_count: self.counted.threads.values().map(|thread| thread.wakeups).sum(),
                named_wakeups_count: self.counted.wakes.values().map(|wakes| wakes.count).sum(),
                runnable_ns: self.counted.threads.values().map(|thread| thread.runnable_ns).sum(),
                stolen_ns: self.stolen_ns,
                throttled_ns: self.throttled_ns,
                unrecorded_count: self.counted.shortages.total(),
                doubts: (!self.doubts.is_empty()).then(|| self.doubts.join("; ")),
                maps_bytes: self.maps_bytes,
            }],
        )
    }

    /// Where a busy thread was found most often.
    pub(super) fn found_in(&self, slot: u32, with: &Translators<'_>) -> Option<String> {
        self.hot.get(&slot)?.told(with.names)
    }

    /// Numbers of the vCPUs, by slot.
    fn vcpus(&self) -> BTreeMap<u32, u32> {
        let number = |slot: &u32| self.threads.get(slot).and_then(|who| who.vcpu);
        let of = |(&slot, thread): (&u32, &Thread)| {
            let number = number(&slot);
            (number.is_some() || thread.vcpu != 0).then_some((slot, thread.tid, number))
        };
        numbered(self.counted.threads.iter().filter_map(of).collect())
    }

    /// Exits, each with the number of its vCPU and the name of its reason.
    pub(super) fn exits<'a>(&'a self, with: &'a Translators<'_>) -> impl Iterator<Item = (u32, String, &'a Exits)> {
        let vcpus = self.vcpus();
        self.counted.exits.values().filter_map(move |exits| {
            let vcpu = *vcpus.get(&exits.slot)?;
            Some((vcpu, reason(exits, with.names), exits))
        })
    }

    /// How far the guest has moved itself, by where it halts; 0 without symbols.
    fn moved(&self, with: &Translators<'_>) -> Moved {
        let Some(guest) = with.guest else { return Moved::By(0) };
        let halts = self.exits(with).filter(|(_, reason, _)| reason == "hlt" || reason == "halt");
        let seen = halts.flat_map(|(_, _, exits)| exits.addresses.iter().filter(|address| address.count > 0));
        guest.moved(&seen.map(|address| address.ip).collect())
    }

    /// Where the guest was at its exits.
    pub(super) fn addresses(&self, with: &Translators<'_>) -> Vec<tables::GuestAddress> {
        let moved = self.moved(with);
        let mut rows = Vec::new();
        for (vcpu, reason, exits) in self.exits(with) {
            let row = |address: Option<u64>, count: u64| tables::GuestAddress {
                vcpu,
                source: source(exits).to_owned(),
                reason: reason.clone(),
                address: address.map(|address| format!("{address:#x}")),
                symbol: address.and_then(|address| with.guest?.name(address, moved)),
                count,
            };
            let seen = exits.addresses.iter().filter(|address| address.count > 0);
            rows.extend(seen.map(|address| row(Some(address.ip), address.count)));
            if exits.other_addresses > 0 {
                rows.push(row(None, exits.other_addresses));
            }
        }
        rows
    }

    fn wakeup_row(&self, key: &WakeKey, wakes: &Wakes, with: &Translators<'_>) -> Option<tables::Wakeup> {
        let slot = u32::from(key.slot);
        let cause = Cause::of(key.cause, key.detail);
        let is_task = key.cause == WakeCause::Task as u16;
        Some(tables::Wakeup {
            tid: self.counted.threads.get(&slot)?.tid,
            role: self.threads.get(&slot)?.role.clone(),
            cause: cause.kind().to_owned(),
            detail: cause.detail(with.names),
            waker: is_task.then(|| super::printable(&wakes.waker_comm)),
            waker_tid: (is_task && !ended::is_several(key.waker_tid)).then_some(key.waker_tid),
            waker_inside: is_task.then_some(wakes.waker_scope == self.subject.scope),
            count: wakes.count,
            waited_ns: wakes.slept_ns,
            on_cpu_after_ns: Some(wakes.on_cpu_after_ns),
        })
    }
}

/// Numbers for vCPUs, given as slot, thread and the number of KVM: these where all have one of their own, which they have not where it
/// can't be told or a target has several machines; else in the order of the threads.
fn numbered(mut vcpus: Vec<(u32, u32, Option<u32>)>) -> BTreeMap<u32, u32> {
    let known: BTreeMap<u32, u32> = vcpus.iter().filter_map(|&(slot, _, number)| Some((slot, number?))).collect();
    if known.values().collect::<BTreeSet<_>>().len() == vcpus.len() {
        return known;
    }
    vcpus.sort_by_key(|&(_, tid, _)| tid);
    vcpus.into_iter().zip(0..).map(|((slot, ..), number)| (slot, number)).collect()
}

/// Name of the tracepoint that tells of an exit.
fn source(exits: &Exits) -> &'static str {
    match exits.source {
        source if source == Source::Exit as u32 || is_of_device(exits) => "kvm_exit",
        source if source == Source::Return as u32 => "kvm_userspace_exit",
        source if source == Source::Halt as u32 => "kvm_vcpu_wakeup",
        _ => "timer",
    }
}

/// Name of the reason, which tells accesses to devices from other exits of the same code.
fn reason(exits: &Exits, names: &Names) -> String {
    let name = name(exits, names);
    if is_of_device(exits) { format!("{name} ({DEVICE})") } else { name }
}

/// Memory of a device.
const DEVICE: &str = "mmio";

fn is_of_device(exits: &Exits) -> bool {
    exits.source == Source::Device as u32
}

/// Name of the code.
fn name(exits: &Exits, names: &Names) -> String {
    match exits.source {
        source if source == Source::Exit as u32 || is_of_device(exits) => names.exits.name(exits.isa, exits.code),
        source if source == Source::Return as u32 => userspace_exit_name(exits.code),
        source if source == Source::Halt as u32 => "halt".to_owned(),
        _ => match exits.code {
            0x6e0 => "tsc_deadline".to_owned(),
            0x380 => "apic_initial_count".to_owned(),
            register => format!("{register:#x}"),
        },
    }
}

fn exit_row(vcpu: u32, reason: String, exits: &Exits) -> tables::Exit {
    let is_timed = exits.source != Source::Timer as u32;
    let (bucket_floor_ns, bucket_count) = Distribution::from(&exits.duration).buckets();
    let time = |ns: u64| is_timed.then_some(ns);
    let elsewhere = exits.vmm_ns + exits.blocked_ns + exits.polled_ns + exits.runnable_ns;
    tables::Exit {
        vcpu,
        source: source(exits).to_owned(),
        reason,
        detail: is_of_device(exits).then(|| DEVICE.to_owned()),
        count: exits.count,
        time_ns: time(exits.total_ns),
        kernel_ns: time(exits.total_ns.saturating_sub(elsewhere)),
        vmm_ns: time(exits.vmm_ns),
        blocked_ns: time(exits.blocked_ns),
        polled_ns: time(exits.polled_ns),
        runnable_ns: time(exits.runnable_ns),
        bucket_floor_ns,
        bucket_count,
    }
}

fn thread_row(thread: &Thread, who: &Who, vcpu: Option<u32>) -> tables::Thread {
    let (latency_floor_ns, latency_count) = Distribution::from(&thread.latency).buckets();
    tables::Thread {
        tid: thread.tid,
        tgid: thread.tgid,
        comm: who.comm.clone(),
        role: who.role.clone(),
        vcpu,
        syscall: who.syscall.clone(),
        found_in: None,
        threads_count: Some(who.threads),
        on_cpu_ns: thread.on_cpu_ns,
        runnable_ns: thread.runnable_ns,
        blocked_ns: thread.blocked_ns,
        switches_count: thread.switches,
        preemptions_count: thread.preemptions,
        sleeps_count: thread.sleeps,
        wakeups_count: thread.wakeups,
        migrations_count: thread.migrations,
        causes_ns: thread.causes_ns,
        latency_floor_ns,
        latency_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_have_the_numbers_of_kvm_or_all_of_them_an_order() {
        // The threads of vCPUs need not have been made in the order of the vCPUs.
        assert_eq!(numbered(vec![(5, 70, Some(1)), (6, 71, Some(0))]), [(5, 1), (6, 0)].into());
        assert_eq!(numbered(vec![(6, 71, None), (5, 70, Some(1))]), [(5, 0), (6, 1)].into());
        assert_eq!(numbered(vec![(5, 70, Some(0)), (6, 71, Some(0))]), [(5, 0), (6, 1)].into(), "two machines");
        assert_eq!(numbered(Vec::new()), BTreeMap::new());
    }
}
