//! What the instances have at one moment, as rows and as sums.

use crate::{
    measure::memory::{
        cgroup::{self, KernelMemory},
        footprint::{self, Footprint},
        guest::{self, GuestMemory},
        host::{Difference, HostMemory},
        mapping,
    },
    record::tables,
    sandbox::Instance,
};
use anyhow::Result;
use std::io::ErrorKind;

/// What one instance has.
pub(super) struct InstanceMemory {
    /// Its processes.
    pub(super) processes: Vec<Footprint>,
    /// The memory of its guests, with the process that has it mapped.
    pub(super) guests: Vec<(i32, String, GuestMemory)>,
    /// What the kernel has on its behalf.
    pub(super) kernel: Vec<KernelMemory>,
}

/// Roles whose processes may hold the memory of a guest. The others' mappings need not be read, which takes time.
const HOSTS: [&str; 2] = ["vmm", "sentry"];

/// What the processes of an instance have.
pub(super) fn of_instance(instance: &dyn Instance) -> Result<InstanceMemory> {
    let pids = instance.members()?;
    let processes = footprint::of_processes(&pids, instance.roles())?;
    let mut guests = Vec::new();
    for Footprint { pid, role, .. } in processes.iter().filter(|process| HOSTS.contains(&process.role.as_str())) {
        let mut mappings = match mapping::of_process(*pid) {
            Ok(mappings) => mappings,
            Err(error) if error.kind() == ErrorKind::NotFound || !footprint::is_alive(*pid) => continue,
            Err(error) => return Err(error.into()),
        };
        guest::mark(&mut mappings, role);
        guests.extend(guest::memory(*pid, &mappings).map(|memory| (*pid, role.clone(), memory)));
    }
    Ok(InstanceMemory { processes, guests, kernel: cgroup::of_processes(&pids) })
}

impl InstanceMemory {
    pub(super) fn memory_rows(&self, instances_count: u32, fault_ns: f64) -> Vec<tables::Memory> {
        let row = |process: &Footprint| tables::Memory {
            instances_count,
            tgid: process.pid.cast_unsigned(),
            comm: process.comm.clone(),
            role: process.role.clone(),
            rss_bytes: process.rss_bytes,
            pss_bytes: process.pss_bytes,
            pss_anonymous_bytes: process.pss_anonymous_bytes,
            pss_file_bytes: process.pss_file_bytes,
            pss_shmem_bytes: process.pss_shmem_bytes,
            uss_bytes: process.uss_bytes,
            shared_clean_bytes: process.shared_clean_bytes,
            shared_dirty_bytes: process.shared_dirty_bytes,
            swap_bytes: process.swap_bytes,
            huge_bytes: process.huge_bytes,
            hugetlb_bytes: process.hugetlb_bytes,
            ksm_bytes: process.ksm_bytes,
            page_tables_bytes: process.page_tables_bytes,
            minor_faults_count: process.minor_faults,
            major_faults_count: process.major_faults,
            minor_faults_estimated_ns: Some((process.minor_faults as f64 * fault_ns) as u64),
        };
        self.processes.iter().map(row).collect()
    }

    pub(super) fn guest_rows(&self, instances_count: u32) -> Vec<tables::GuestMemory> {
        let row = |(pid, role, memory): &(i32, String, GuestMemory)| tables::GuestMemory {
            instances_count,
            tgid: pid.cast_unsigned(),
            role: role.clone(),
            backing: memory.backing.to_owned(),
            size_bytes: memory.size_bytes,
            populated_bytes: memory.populated_bytes,
            untouched_bytes: memory.size_bytes.saturating_sub(memory.populated_bytes),
        };
        self.guests.iter().map(row).collect()
    }

    pub(super) fn kernel_rows(&self, instances_count: u32) -> Vec<tables::KernelMemory> {
        let rows = self.kernel.iter().flat_map(|of| {
            of.by_kind.iter().map(move |(kind, size_bytes)| tables::KernelMemory {
                instances_count,
                cgroup: of.cgroup.clone(),
                kind: (*kind).to_owned(),
                size_bytes: *size_bytes,
            })
        });
        rows.collect()
    }
}

/// What all instances that run have at one moment.
#[derive(Default)]
pub(super) struct Moment {
    pub(super) instances: Vec<InstanceMemory>,
}

impl Moment {
    pub(super) fn add(&mut self, instance: InstanceMemory) {
        self.instances.push(instance);
    }

    /// Sum over the processes of all instances.
    pub(super) fn sum(&self, of: fn(&Footprint) -> u64) -> u64 {
        self.instances.iter().flat_map(|instance| &instance.processes).map(of).sum()
    }

    /// Sum of what the kernel has in the instances' cgroups, if it has any.
    pub(super) fn kernel_bytes(&self) -> Option<u64> {
        let kernel = self.instances.iter().flat_map(|instance| &instance.kernel);
        let sums: Vec<u64> = kernel.filter_map(|of| of.by_kind.get("kernel").copied()).collect();
        (!sums.is_empty()).then(|| sums.iter().sum())
    }

    pub(super) fn host_row(
        &self,
        sandbox: &str,
        instances_count: u32,
        host: &HostMemory,
        lost: &Difference,
    ) -> tables::MemoryHost {
        tables::MemoryHost {
            sandbox: sandbox.to_owned(),
            instances_count,
            available_bytes: host.available,
            lost_bytes: lost.available,
            lost_mapped_bytes: lost.mapped,
            lost_page_tables_bytes: lost.page_tables,
            lost_kernel_stack_bytes: lost.kernel_stack,
            lost_slab_bytes: lost.slab,
            lost_per_cpu_bytes: lost.per_cpu,
            lost_other_bytes: lost.other,
            lost_estimate_bytes: lost.estimate,
            pss_bytes: self.sum(|process| process.pss_bytes),
            pss_file_bytes: self.sum(|process| process.pss_file_bytes),
            page_tables_bytes: self.sum(|process| process.page_tables_bytes),
            kernel_bytes: self.kernel_bytes(),
        }
    }
}
