//! What a run says in a few lines: per sandbox what one more instance costs, who has it, and how the host's loss is made up.

use super::{
    footprints::{InstanceMemory, Moment},
    merging::MergingSummary,
};
use crate::{
    experiment::{
        Observation,
        statistics::{Slope, slope},
    },
    measure::memory::host::Difference,
    steady::ContentSummary,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A run in a few lines.
#[derive(Debug, Serialize)]
pub struct MemorySummary {
    /// The run.
    pub run_id: String,
    /// Time of a minor fault of anonymous memory on this host.
    pub minor_fault_ns: f64,
    /// Per sandbox, in the order in which they were asked for.
    pub sandboxes: Vec<SandboxMemory>,
}

/// One sandbox. Sizes in bytes.
#[derive(Debug, Serialize)]
pub struct SandboxMemory {
    /// Its name.
    pub sandbox: String,
    /// Instances that ran to the end.
    pub ok_count: usize,
    /// Those that did not.
    pub failed_count: usize,
    /// The first reason of those.
    pub first_error: Option<String>,
    /// Instances that ran at the last moment that was measured.
    pub instances_count: u32,
    /// What the sum of PSS grows by per instance, from the first on.
    pub pss_per_instance: Option<Slope>,
    /// The sum of PSS when one instance ran: what all share is in it.
    pub first_pss_bytes: Option<f64>,
    /// What `MemAvailable` loses per instance, from the first on: a check of the PSS.
    pub available_per_instance: Option<Slope>,
    /// What it had lost when one instance ran.
    pub first_available_bytes: Option<f64>,
    /// Per role, at the last moment, the means over the instances.
    pub roles: Vec<RoleSummary>,
    /// Memory of the guests, at the last moment, the means over the instances.
    pub guest: Option<GuestSummary>,
    /// What the kernel has in the cgroup of an instance, the mean.
    pub kernel_bytes: Option<f64>,
    /// Page faults per instance, the means: minor, major.
    pub minor_faults_count: f64,
    /// See `minor_faults_count`.
    pub major_faults_count: f64,
    /// What `MemAvailable` lost in all until the last moment, and to what.
    pub lost: Option<Lost>,
    /// What is in the pages, if that was asked.
    pub content: Option<ContentSummary>,
    /// What KSM made of them, if that was asked.
    pub merging: Option<MergingSummary>,
}

/// The loss of `MemAvailable` beside the sum of PSS, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lost {
    /// The loss.
    pub available_bytes: i64,
    /// The sum of PSS.
    pub pss_bytes: u64,
    /// Part of that sum that is still available: pages of files.
    pub pss_file_bytes: u64,
    /// Parts of the loss that are no process's: name and size, the largest first.
    pub beside: [(&'static str, i64); 6],
    /// Part of the loss that processes of nobody here have: positive if others took memory meanwhile, negative if they gave
    /// some back.
    pub others_bytes: i64,
}

/// A role's processes in an instance. Sizes in bytes.
#[derive(Debug, Serialize)]
pub struct RoleSummary {
    /// The role.
    pub role: String,
    /// Its processes.
    pub processes_count: f64,
    /// RSS.
    pub rss_bytes: f64,
    /// PSS.
    pub pss_bytes: f64,
    /// USS.
    pub uss_bytes: f64,
    /// Page tables.
    pub page_tables_bytes: f64,
}

/// Memory of a guest. Sizes in bytes.
#[derive(Debug, Serialize)]
pub struct GuestSummary {
    /// What it is made of.
    pub backing: &'static str,
    /// What the guest can have.
    pub size_bytes: f64,
    /// Part of it in memory.
    pub populated_bytes: f64,
}

/// Gathers the moments of one sandbox.
#[derive(Default)]
pub(in crate::experiment) struct Gathered {
    available: Vec<(f64, f64)>,
    pss: Vec<(f64, f64)>,
    last: Option<(u32, Moment, Difference)>,
    pub(super) content: Option<ContentSummary>,
    pub(super) merging: Option<MergingSummary>,
    ok: usize,
    failed: usize,
    first_error: Option<String>,
}

impl Gathered {
    pub(super) fn add(&mut self, running: u32, moment: Moment, lost: Difference) {
        // Not from none on: what the first takes for all that come after it, such as the files that they share, would be taken for
        // what one more takes, the more so the fewer there are.
        let count = f64::from(running);
        self.available.push((count, lost.available as f64));
        self.pss.push((count, moment.sum(|process| process.pss_bytes) as f64));
        self.last = Some((running, moment, lost));
    }

    pub(super) fn ended(&mut self, observation: &Observation) {
        match &observation.outcome {
            Ok(_) => self.ok += 1,
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| error.clone());
            }
        }
    }

    pub(super) fn summary(&self, sandbox: String, seed: u64) -> SandboxMemory {
        let instances: &[InstanceMemory] = self.last.as_ref().map_or(&[], |(_, moment, _)| &moment.instances);
        let mean = |sum: u64| sum as f64 / instances.len().max(1) as f64;
        let faults = |of: fn(&crate::measure::memory::footprint::Footprint) -> u64| {
            mean(self.last.as_ref().map_or(0, |(_, moment, _)| moment.sum(of)))
        };
        SandboxMemory {
            sandbox,
            ok_count: self.ok,
            failed_count: self.failed,
            first_error: self.first_error.clone(),
            instances_count: self.last.as_ref().map_or(0, |(running, ..)| *running),
            pss_per_instance: slope(&self.pss, seed),
            first_pss_bytes: at_one(&self.pss),
            available_per_instance: slope(&self.available, seed),
            first_available_bytes: at_one(&self.available),
            roles: roles(instances),
            guest: guest(instances),
            kernel_bytes: self.last.as_ref().and_then(|(_, moment, _)| moment.kernel_bytes()).map(mean),
            minor_faults_count: faults(|process| process.minor_faults),
            major_faults_count: faults(|process| process.major_faults),
            lost: self.last.as_ref().map(|(_, moment, lost)| lost_of(moment, lost)),
            content: self.content.clone(),
            merging: self.merging.clone(),
        }
    }
}

/// What it was when one instance ran.
fn at_one(points: &[(f64, f64)]) -> Option<f64> {
    points.iter().find(|(count, _)| *count == 1.0).map(|(_, bytes)| *bytes)
}

fn lost_of(moment: &Moment, lost: &Difference) -> Lost {
    let (pss_bytes, pss_file_bytes) =
        (moment.sum(|process| process.pss_bytes), moment.sum(|process| process.pss_file_bytes));
    let hugetlb = moment.sum(|process| process.hugetlb_bytes);
    let mut beside = [
        ("page tables", lost.page_tables),
        ("kernel stacks", lost.kernel_stack),
        ("kernel slabs", lost.slab),
        ("kernel, per CPU", lost.per_cpu),
        ("kernel, in no book", lost.other),
        ("page cache not counted", lost.estimate),
    ];
    beside.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.abs()));
    let mapped_here = (pss_bytes + hugetlb).saturating_sub(pss_file_bytes).cast_signed();
    Lost { available_bytes: lost.available, pss_bytes, pss_file_bytes, beside, others_bytes: lost.mapped - mapped_here }
}

fn roles(instances: &[InstanceMemory]) -> Vec<RoleSummary> {
    let mut roles: BTreeMap<&str, RoleSummary> = BTreeMap::new();
    let share = 1.0 / instances.len().max(1) as f64;
    for process in instances.iter().flat_map(|instance| &instance.processes) {
        let role = roles.entry(&process.role).or_insert_with(|| RoleSummary {
            role: process.role.clone(),
            processes_count: 0.0,
            rss_bytes: 0.0,
            pss_bytes: 0.0,
            uss_bytes: 0.0,
            page_tables_bytes: 0.0,
        });
        role.processes_count += share;
        role.rss_bytes += process.rss_bytes as f64 * share;
        role.pss_bytes += process.pss_bytes as f64 * share;
        role.uss_bytes += process.uss_bytes as f64 * share;
        role.page_tables_bytes += process.page_tables_bytes as f64 * share;
    }
    let mut roles: Vec<_> = roles.into_values().collect();
    roles.sort_by(|one, other| other.pss_bytes.total_cmp(&one.pss_bytes));
    roles
}

fn guest(instances: &[InstanceMemory]) -> Option<GuestSummary> {
    let guests: Vec<_> = instances.iter().flat_map(|instance| &instance.guests).map(|(_, _, memory)| memory).collect();
    let mean = |sum: u64| sum as f64 / instances.len().max(1) as f64;
    Some(GuestSummary {
        backing: guests.first()?.backing,
        size_bytes: mean(guests.iter().map(|memory| memory.size_bytes).sum()),
        populated_bytes: mean(guests.iter().map(|memory| memory.populated_bytes).sum()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::memory::footprint::Footprint;

    const MIB: u64 = 1 << 20;

    /// As many instances as given run, of which each has so much of its own, and all share so much.
    fn gathered(counts: &[u32], own: u64, shared: u64) -> SandboxMemory {
        let mut gathered = Gathered::default();
        for &count in counts {
            let pss_bytes = own + shared / u64::from(count);
            let process = Footprint { pss_bytes, ..Footprint::default() };
            let mut moment = Moment::default();
            for _ in 0..count {
                moment.add(InstanceMemory { processes: vec![process.clone()], guests: Vec::new(), kernel: Vec::new() });
            }
            let lost = Difference { available: (u64::from(count) * own).cast_signed(), ..Difference::default() };
            gathered.add(count, moment, lost);
        }
        gathered.summary("process".to_owned(), 7)
    }

    #[test]
    fn what_one_more_costs_is_not_what_the_first_costs_and_does_not_depend_on_how_many_ran() {
        for counts in [&[1, 2, 4, 5][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
            let summary = gathered(counts, 4 * MIB, 128 * MIB);
            let more = summary.pss_per_instance.unwrap().slope / MIB as f64;
            assert!((more - 4.0).abs() < 0.001, "{more}");
            assert_eq!(summary.first_pss_bytes, Some((132 * MIB) as f64));
        }
    }

    #[test]
    fn memory_of_the_host_is_a_check_beside_it() {
        let summary = gathered(&[1, 2, 3, 4], 4 * MIB, 128 * MIB);
        let more = summary.available_per_instance.unwrap();
        assert_eq!((more.slope.round(), summary.first_available_bytes), ((4 * MIB) as f64, Some((4 * MIB) as f64)));
        assert!(more.low.is_some() && more.high.is_some());
    }

    #[test]
    fn two_instances_have_a_difference_and_no_interval_and_one_has_only_a_first() {
        let two = gathered(&[1, 2], 4 * MIB, 0).pss_per_instance.unwrap();
        assert_eq!((two.slope, two.low, two.high), ((4 * MIB) as f64, None, None));
        let one = gathered(&[1], 4 * MIB, 0);
        assert_eq!((one.pss_per_instance, one.first_pss_bytes), (None, Some((4 * MIB) as f64)));
    }
}
