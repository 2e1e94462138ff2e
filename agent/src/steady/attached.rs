//! Attaches to what runs: its threads come into scope where they are, and nothing of it is restarted or stopped.

use super::{Found, Opening, Subject, Window};
use crate::{probe::Aggregate, role::ThreadRule};
use anyhow::{Context, Result, ensure};
use sandscope_ebpf::map::Membership;
use std::collections::BTreeSet;

/// What VMMs call their threads. Containers' threads go by their own names.
const THREAD_ROLES: &[ThreadRule] = &[
    ThreadRule { role: "vcpu", begins: "CPU " },
    ThreadRule { role: "vcpu", begins: "fc_vcpu" },
    ThreadRule { role: "vcpu", begins: "vcpu" },
    ThreadRule { role: "helper", begins: "vhost-" },
    ThreadRule { role: "helper", begins: "kvm-" },
];

/// Targets that are being watched. Detached when it is dropped.
pub struct Attached {
    aggregate: Aggregate,
    targets: Vec<(Found, Opening)>,
}

impl Attached {
    /// Attaches to targets, each in a scope of its own.
    ///
    /// # Errors
    /// When there are more than can be told apart, or the kernel refuses.
    pub fn to(found: Vec<Found>, mut aggregate: Aggregate) -> Result<Self> {
        ensure!(found.len() <= usize::from(Membership::MAX_SCOPE), "{} targets are too many", found.len());
        aggregate.attach().context("can't attach the probes")?;
        let mut targets = Vec::new();
        for (scope, found) in (1..).zip(found) {
            let mut seeded = BTreeSet::new();
            // Until a whole look finds none that is new: what a thread makes before it is in scope is not followed.
            loop {
                let threads = found.members.threads();
                let new: Vec<_> = threads.into_iter().filter(|(tid, _)| !seeded.contains(tid)).collect();
                if new.is_empty() {
                    break;
                }
                for (tid, pid) in new {
                    aggregate.seed(tid, pid, Membership::member(scope))?;
                    seeded.insert(tid);
                }
            }
            let subject = Subject { name: found.name.clone(), scope, roles: &[], thread_roles: THREAD_ROLES };
            let processes = found.members.processes().into_iter().map(i32::cast_unsigned).collect();
            targets.push((found, Opening::open(subject, &processes, &aggregate)?));
        }
        Ok(Self { aggregate, targets })
    }

    /// Whether any of the targets still has a process.
    pub fn is_alive(&self) -> bool {
        self.targets.iter().any(|(found, _)| !found.members.threads().is_empty())
    }

    /// What the targets did since the last tick, or since they were attached to.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn tick(&mut self) -> Result<Vec<Window>> {
        self.targets.iter_mut().map(|(_, opening)| opening.tick(&self.aggregate)).collect()
    }

    /// What the targets did since they were attached to. They go on as if nobody had looked.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn detach(self) -> Result<Vec<Window>> {
        let Self { aggregate, targets } = self;
        targets.into_iter().map(|(_, opening)| opening.close(&aggregate)).collect()
    }
}
