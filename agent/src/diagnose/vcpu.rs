//! The vCPUs of a window with all that is known of each, for the rules about guests that have nothing to do.

use super::{Case, Finding};
use crate::{
    record::tables::{Exit, GuestAddress, Thread, Wakeup, Window},
    results::{Error, Rows},
};
use std::rc::Rc;

/// Tables that the rules about vCPUs need.
pub const NEEDS: &[&str] = &["instances", "windows", "threads", "wakeups", "exits", "guest_addresses"];

/// What was watched in the windows of a run.
struct Watched {
    windows: Rc<Rows<Window>>,
    threads: Rc<Rows<Thread>>,
    wakeups: Rc<Rows<Wakeup>>,
    exits: Rc<Rows<Exit>>,
    addresses: Rc<Rows<GuestAddress>>,
}

/// One vCPU in one window.
pub struct Vcpu<'a> {
    /// As the tables number it.
    pub number: u32,
    /// Its thread.
    pub thread: &'a Thread,
    /// Length of the window.
    pub span_ns: u64,
    /// What woke it.
    pub wakeups: Vec<&'a Wakeup>,
    /// Why it left the guest.
    pub exits: Vec<&'a Exit>,
    /// Where in the guest it was then.
    pub addresses: Vec<&'a GuestAddress>,
}

impl Watched {
    fn of(case: &Case) -> Result<Self, Error> {
        Ok(Self {
            windows: case.table()?,
            threads: case.table()?,
            wakeups: case.table()?,
            exits: case.table()?,
            addresses: case.table()?,
        })
    }

    /// The vCPUs of an instance; none when it was not watched or has none.
    fn vcpus<'a>(&'a self, instance: &'a str) -> Vec<Vcpu<'a>> {
        let Some(window) = self.windows.of(instance).next().filter(|window| window.span_ns > 0) else {
            return Vec::new();
        };
        let mut threads: Vec<&Thread> = self.threads.of(instance).filter(|thread| thread.role == "vcpu").collect();
        threads.sort_by_key(|thread| thread.tid);
        let vcpu = |(thread, number): (&'a Thread, u32)| Vcpu {
            number,
            thread,
            span_ns: window.span_ns,
            wakeups: self.wakeups.of(instance).filter(|row| row.tid == thread.tid).collect(),
            exits: self.exits.of(instance).filter(|row| row.vcpu == number).collect(),
            addresses: self.addresses.of(instance).filter(|row| row.vcpu == number).collect(),
        };
        // Results of earlier versions do not say the number of any: it was the order.
        let is_told = threads.iter().any(|thread| thread.vcpu.is_some());
        let number = |thread: &Thread, order: u32| if is_told { thread.vcpu } else { Some(order) };
        let numbered = threads.into_iter().zip(0..);
        numbered.filter_map(|(thread, order)| Some(vcpu((thread, number(thread, order)?)))).collect()
    }
}

/// A finding on each group of instances: of its vCPUs with something to tell, the one that costs most. `look` gives what there
/// is to tell of one, with the CPU time that it costs in nanoseconds.
///
/// # Errors
/// When a table can't be read.
pub fn costliest<T>(
    case: &Case,
    look: impl Fn(&Vcpu<'_>) -> Option<(u64, T)>,
    tell: impl Fn(String, &Vcpu<'_>, T) -> Finding,
) -> Result<Vec<Finding>, Error> {
    let watched = Watched::of(case)?;
    let mut findings = Vec::new();
    for group in case.groups() {
        let vcpus = group.instances.iter().flat_map(|instance| watched.vcpus(&instance.instance_id));
        let costs = vcpus.filter_map(|vcpu| Some((look(&vcpu)?, vcpu)));
        let most = costs.max_by(|((one, _), a), ((other, _), b)| a.ratio(*one).total_cmp(&b.ratio(*other)));
        findings.extend(most.map(|((_, told), vcpu)| tell(group.subject(), &vcpu, told)));
    }
    Ok(findings)
}

impl Vcpu<'_> {
    /// So often per second.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 * 1e9 / self.span_ns as f64
    }

    /// As a share of a CPU.
    pub fn ratio(&self, cpu_ns: u64) -> f64 {
        cpu_ns as f64 / self.span_ns as f64
    }

    /// The exits that this tracepoint tells of.
    pub fn exits_of(&self, source: &str) -> impl Iterator<Item = &Exit> {
        self.exits.iter().copied().filter(move |row| row.source == source)
    }

    /// Where the guest was most often at exits of this kind: its function, or the address where that is not known.
    pub fn place(&self, wanted: impl Fn(&GuestAddress) -> bool) -> Option<&str> {
        let of = self.addresses.iter().filter(|row| row.address.is_some() && wanted(row));
        let most = of.max_by_key(|row| row.count)?;
        most.symbol.as_deref().or(most.address.as_deref())
    }
}
