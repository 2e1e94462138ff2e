//! What a page fault takes, by the role of who has it.
//!
//! Whoever times some faults makes all of the host dearer (docs/cost.md), so only some of the instances that are alike are recorded
//! with times. The faults of the others are counted, and take what those have told.

use std::{collections::BTreeMap, ops::AddAssign};

/// Faults that were timed, and how long they took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) count: u64,
    pub(super) time_ns: u64,
}

impl AddAssign for Timed {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.time_ns += other.time_ns;
    }
}

impl Timed {
    /// Fewer say nothing of one thread or process.
    const FEW: u64 = 8;

    /// The mean in nanoseconds, if there are enough of them.
    pub(super) fn mean_ns(self) -> Option<u64> {
        self.at_least(Self::FEW)
    }

    /// The mean in nanoseconds, if there is one.
    pub(super) fn any_mean_ns(self) -> Option<u64> {
        self.at_least(1)
    }

    fn at_least(self, few: u64) -> Option<u64> {
        (self.count >= few).then(|| self.time_ns / self.count)
    }
}

/// What page faults of instances that are alike took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPrices {
    by_role: BTreeMap<String, Timed>,
    all: Timed,
}

impl FaultPrices {
    /// Whether no fault was timed.
    pub fn is_empty(&self) -> bool {
        self.all.count == 0
    }

    /// Takes in what another instance told.
    pub fn add(&mut self, other: &Self) {
        for (role, &timed) in &other.by_role {
            self.note(role, timed);
        }
    }

    pub(super) fn note(&mut self, role: &str, timed: Timed) {
        if timed.count == 0 {
            return;
        }
        *self.by_role.entry(role.to_owned()).or_default() += timed;
        self.all += timed;
    }

    /// Mean nanoseconds of a fault of somebody in this role: of those, or where they are few, of all.
    pub(super) fn mean_ns(&self, role: &str) -> Option<u64> {
        self.by_role.get(role).and_then(|timed| timed.mean_ns()).or_else(|| self.all.any_mean_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_its_own_price_once_enough_of_it_were_timed() {
        let mut known = FaultPrices::default();
        assert!(known.is_empty());
        assert_eq!(known.mean_ns("workload"), None);
        let mut told = FaultPrices::default();
        told.note("runtime", Timed { count: 92, time_ns: 92_000 });
        told.note("workload", Timed { count: 4, time_ns: 12_000 });
        known.add(&told);
        assert!(!known.is_empty());
        assert_eq!((known.mean_ns("runtime"), known.mean_ns("nobody")), (Some(1000), Some(104_000 / 96)));
        assert_eq!(known.mean_ns("workload"), Some(104_000 / 96), "four are few");
        known.add(&told);
        assert_eq!(known.mean_ns("workload"), Some(3000));
    }
}
