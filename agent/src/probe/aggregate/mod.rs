//! Aggregate mode: counts and histograms per thread, vCPU and cause, kept in the kernel; for steady state, at any rate of
//! events.

mod ended;
mod group;
mod kvm;
mod sched;
mod scope;
mod snapshot;
mod wakeup;

use super::{
    Definition, Error, Missing, interrupt,
    loader::{Programs, fill, insert_patiently, pop, push},
    mapped::MappedArray,
};
use crate::host::clock::monotonic_ns;
use anyhow::{Context, Result};
use aya::{
    Ebpf, Pod, include_bytes_aligned,
    maps::{HashMap, Map, PerCpuArray},
};
use bytemuck::Zeroable;
use sandscope_ebpf::{
    map::{Entry, GROUP_BYTES, GROUPS, GroupKey, GroupName, Membership},
    sums::{Exits, PreemptionKey, Preemptions, Shortages, State, Thread, Vcpu, WakeKey, Wakes},
};

use std::sync::atomic::{AtomicU64, Ordering};

pub use ended::Ended;
pub use snapshot::{Snapshot, add_thread};

/// Built by `cargo xtask build-ebpf`; CI checks that it is what its source gives.
static OBJECT: &[u8] = include_bytes_aligned!("../../../bpf/aggregate.o");

/// All probes, those first that others build on.
const PROBES: [&Definition; 6] =
    [&scope::PROBE, &sched::PROBE, &interrupt::PROBE, &wakeup::PROBE, &kvm::PROBE, &group::PROBE];

/// How much can be kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads in all scopes together.
    pub threads: u16,
    /// vCPUs among them.
    pub vcpus: u16,
    /// Pairs of a vCPU and an exit reason.
    pub exits: u16,
}

impl Default for Limits {
    /// Room for some hundred sandboxes; 49 MB of the kernel's memory.
    fn default() -> Self {
        Self { threads: 16_384, vcpus: 512, exits: 4096 }
    }
}

impl Limits {
    /// Memory of the arrays.
    pub fn bytes(&self) -> u64 {
        let array = |count: u16, bytes: usize| (u64::from(count) + 1) * bytes as u64;
        array(self.threads, size_of::<Thread>())
            + array(self.vcpus, size_of::<Vcpu>())
            + array(self.exits, size_of::<Exits>())
    }
}

/// The probes, loaded into the kernel.
pub struct Aggregate {
    programs: Programs,
    threads: MappedArray<Thread>,
    vcpus: MappedArray<Vcpu>,
    exits: MappedArray<Exits>,
    limits: Limits,
    /// Places of threads that were in use at the last look.
    in_use: usize,
    /// When the maps of wake-ups and preemptions were last looked at for those whose other side has ended.
    maps_looked_at_ns: u64,
}

/// A control group that is to be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Number of its scope.
    pub scope: u16,
    /// Number of its hierarchy.
    pub hierarchy: u32,
    /// Its name from the root of the hierarchy.
    pub path: String,
}

impl Aggregate {
    /// Loads every probe that this kernel supports, and tries each once.
    ///
    /// # Errors
    /// When nothing could be counted: no privilege, no type information, no tracefs, or a required probe fails.
    pub fn load(limits: Limits) -> Result<Self, Error> {
        let failed = |error: anyhow::Error| Error::Load(format!("{error:#}"));
        // Element 0 stands for "none".
        let elements = |count: u16| u32::from(count) + 1;
        let mut programs = Programs::load(OBJECT, &PROBES, limits.threads, |loader| {
            loader
                .map_max_entries("THREADS", elements(limits.threads))
                .map_max_entries("VCPUS", elements(limits.vcpus))
                .map_max_entries("FREE_VCPUS", elements(limits.vcpus))
                .map_max_entries("EXITS", elements(limits.exits))
                .map_max_entries("FREE_EXITS", elements(limits.exits));
        })?;
        fill(&mut programs.ebpf, "FREE_VCPUS", limits.vcpus).map_err(failed)?;
        fill(&mut programs.ebpf, "FREE_EXITS", limits.exits).map_err(failed)?;
        let threads = array(&programs.ebpf, "THREADS", elements(limits.threads)).map_err(failed)?;
        let vcpus = array(&programs.ebpf, "VCPUS", elements(limits.vcpus)).map_err(failed)?;
        let exits = array(&programs.ebpf, "EXITS", elements(limits.exits)).map_err(failed)?;
        Ok(Self { programs, threads, vcpus, exits, limits, in_use: 0, maps_looked_at_ns: monotonic_ns() })
    }

    /// What this kernel can't do.
    pub fn missing(&self) -> &[Missing] {
        &self.programs.missing
    }

    /// Each probe with what is missing of it.
    pub fn by_probe(&self) -> Vec<(&'static str, Vec<String>)> {
        self.programs.by_probe(&PROBES)
    }

    /// Makes the probes see everything in scope.
    ///
    /// # Errors
    /// When the kernel refuses what it allowed when the probes were loaded.
    pub fn attach(&mut self) -> Result<()> {
        self.programs.attach()
    }

    /// Takes the probes away: the kernel runs as if they did not exist. What they have counted stays.
    pub fn detach(&mut self) {
        self.programs.detach();
    }

    /// Memory of the kernel that the arrays take, whatever is in them.
    pub fn bytes(&self) -> u64 {
        self.limits.bytes()
    }

    /// Says what a thread is from now on.
    pub fn mark(&self, tid: u32, membership: Membership) {
        self.programs.mark(tid, membership);
    }

    /// Puts a thread that exists already into a scope. What state it is in is told by its first event. Only [`Aggregate::mark`] it
    /// where nothing could be kept of it anyway.
    ///
    /// # Errors
    /// When the kernel refuses to change a map.
    pub fn seed(&mut self, tid: u32, tgid: u32, membership: Membership) -> Result<()> {
        let Some(slot) = pop(&mut self.programs.ebpf, "FREE_SLOTS")? else {
            self.mark(tid, membership);
            return Ok(());
        };
        let thread = Thread {
            tid,
            tgid,
            membership: membership.0,
            cpu: u32::MAX,
            state: State::Unseen as u32,
            since_ns: monotonic_ns(),
            ..Thread::zeroed()
        };
        self.threads.write(slot.into(), thread);
        self.programs.seed(tid, Entry { membership, slot });
        Ok(())
    }

    /// Begins anew with those threads of a scope to which nothing has happened since they were put into it: what their first event
    /// tells is about the time from now on.
    pub fn restart_unseen(&self, scope: u16) {
        let unseen = self.slots(scope).filter(|(_, thread)| thread.state == State::Unseen as u32);
        for (slot, _) in unseen {
            let Some(element) = self.threads.at(slot) else { continue };
            // SAFETY: inside of the element.
            let since_ns = unsafe { &raw mut (*element.as_ptr()).since_ns };
            // SAFETY: aligned, valid as long as `self`, and used as an atomic. A program that has an event of the thread at this very
            // moment writes the same time.
            unsafe { AtomicU64::from_ptr(since_ns) }.store(monotonic_ns(), Ordering::Relaxed);
        }
    }

    /// What a thread is.
    pub fn membership(&self, tid: u32) -> Membership {
        self.programs.membership(tid)
    }

    /// From now on who joins one of these control groups is in its scope, and who leaves it is in it no more. To be called while the
    /// probes are detached. Gives back those that can't be followed: more than there is room for, or with names that are too long.
    ///
    /// # Errors
    /// When the kernel refuses to change a map.
    pub fn follow(&mut self, groups: Vec<Followed>) -> Result<Vec<Followed>> {
        let fits = |group: &Followed| group.path.trim_end_matches('/').len() < GROUP_BYTES;
        let (mut wanted, mut refused): (Vec<_>, Vec<_>) = groups.into_iter().partition(fits);
        refused.extend(wanted.split_off(wanted.len().min(GROUPS)));
        if !self.programs.has("cgroup_attach_task") {
            refused.append(&mut wanted);
        }
        let mut followed = self.hash_mut::<GroupKey, u32>("FOLLOWED")?;
        for group in &wanted {
            let scope = u32::from(group.scope);
            let by_name = GroupKey { name: GroupName::of(&group.path).0, hierarchy: group.hierarchy, scope: 0 };
            let by_scope = GroupKey { name: 0, hierarchy: group.hierarchy, scope };
            insert_patiently(|| followed.insert(by_name, scope, 0))?;
            insert_patiently(|| followed.insert(by_scope, scope, 0))?;
        }
        Ok(refused)
    }

    /// Everything counted so far of the threads of a scope. Costs the host nothing but the reading.
    ///
    /// # Errors
    /// When the kernel refuses to give a map's elements.
    pub fn snapshot(&self, scope: u16) -> Result<Snapshot> {
        Snapshot::read(self, scope)
    }

    /// Forgets the threads of a scope, so that others find room. To be called while the probes are detached, and after
    /// everything in the scope was unmarked or has ended.
    ///
    /// # Errors
    /// When the kernel refuses to change a map.
    pub fn forget(&mut self, scope: u16) -> Result<()> {
        let slots: Vec<u32> = self.slots(scope).map(|(slot, _)| slot).collect();
        for &slot in &slots {
            let Some(thread) = self.threads.read(slot) else { continue };
            self.programs.clear(thread.tid);
            self.threads.write(slot, Thread::zeroed());
            if let Some(vcpu) = self.vcpus.read(u32::from(thread.vcpu)).filter(|_| thread.vcpu != 0) {
                for exits in snapshot::exits_of(&vcpu) {
                    if exits != 0 {
                        self.exits.write(u32::from(exits), Exits::zeroed());
                        push(&mut self.programs.ebpf, "FREE_EXITS", exits)?;
                    }
                }
                self.vcpus.write(u32::from(thread.vcpu), Vcpu::zeroed());
                push(&mut self.programs.ebpf, "FREE_VCPUS", thread.vcpu)?;
            }
            if let Ok(slot) = u16::try_from(slot) {
                push(&mut self.programs.ebpf, "FREE_SLOTS", slot)?;
            }
        }
        let gone = |slot: u32| slots.contains(&slot);
        let mut wakes = self.hash_mut::<WakeKey, Wakes>("WAKES")?;
        let keys: Vec<WakeKey> = wakes.keys().filter_map(Result::ok).filter(|key| gone(key.slot.into())).collect();
        keys.iter().try_for_each(|key| wakes.remove(key))?;
        let mut preemptions = self.hash_mut::<PreemptionKey, Preemptions>("PREEMPTIONS")?;
        let keys: Vec<PreemptionKey> = preemptions.keys().filter_map(Result::ok).filter(|key| gone(key.slot)).collect();
        keys.iter().try_for_each(|key| preemptions.remove(key))?;
        Ok(())
    }

    /// The slots in use for a scope.
    fn slots(&self, scope: u16) -> impl Iterator<Item = (u32, Thread)> {
        (1..self.threads.len()).filter_map(move |slot| {
            let element = self.threads.at(slot)?;
            // SAFETY: aligned and valid as long as `self`; the number is the first field, and stays while the slot is in use.
            let tid = unsafe { element.cast::<u32>().read_volatile() };
            let thread = (tid != 0).then(|| self.threads.read(slot)).flatten()?;
            (Membership(thread.membership).scope() == scope).then_some((slot, thread))
        })
    }

    /// How often the threads of a scope have been woken so far.
    fn wakeups(&self, scope: u16) -> u64 {
        self.slots(scope).map(|(_, thread)| thread.wakeups).sum()
    }

    /// What found no room since the programs were loaded.
    ///
    /// # Errors
    /// When the kernel refuses to give the counters.
    pub fn shortages(&self) -> Result<Shortages> {
        let map = self.programs.ebpf.map("SHORTAGES").context("the BPF object has no map SHORTAGES")?;
        let per_cpu: PerCpuArray<_, Shortages> = PerCpuArray::try_from(map)?;
        let mut total = Shortages::default();
        for cpu in per_cpu.get(&0, 0)?.iter() {
            total.threads += cpu.threads;
            total.vcpus += cpu.vcpus;
            total.exits += cpu.exits;
            total.wakes += cpu.wakes;
            total.preemptions += cpu.preemptions;
        }
        Ok(total)
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<&aya::maps::MapData, K, V>> {
        let map = self.programs.ebpf.map(name).with_context(|| format!("the BPF object has no map {name}"))?;
        Ok(HashMap::try_from(map)?)
    }

    fn hash_mut<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut aya::maps::MapData, K, V>> {
        let map = self.programs.ebpf.map_mut(name).with_context(|| format!("the BPF object has no map {name}"))?;
        Ok(HashMap::try_from(map)?)
    }
}

fn array<T: bytemuck::Pod>(ebpf: &Ebpf, name: &str, length: u32) -> Result<MappedArray<T>> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => MappedArray::map(map, length),
        _ => anyhow::bail!("the BPF object has no array map {name}"),
    }
}
