//! Holds the pages that were found against what the kernel counts: classes whose sum is not the whole tell half of the truth.
//!
//! The kernel counts each mapping of a page in memory (RSS), and so do [`super::classify::Count::mappings`]. Of processes that stand
//! still the two are the same, but for pages that the kernel itself takes away or makes meanwhile.

use super::classify::{Bin, Count};
use crate::measure::memory::mapping::Mapping;
use rustix::param::page_size;
use std::collections::BTreeMap;

/// Pages that may be missing, or be too many, of so many: the kernel swaps, and makes huge pages, whoever stands still.
const TOLERATED_PART: u64 = 200;
/// The same for small processes.
const TOLERATED_PAGES: u64 = 64;

/// What was found, and what there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Pages that were found, each mapping counted.
    pub found: u64,
    /// Pages in memory by the kernel's count, each mapping counted.
    pub counted_by_kernel: u64,
}

impl Balance {
    /// Of the sources that are of interest: those processes that are not the agent's own, whose memory changes by looking at it.
    pub(super) fn of(
        counts: &BTreeMap<Bin, Count>,
        mapped: &[Vec<Mapping>],
        is_of_interest: impl Fn(usize) -> bool,
    ) -> Self {
        let found = counts.iter().filter(|(bin, _)| is_of_interest(bin.source)).map(|(_, count)| count.mappings).sum();
        let mappings = mapped.iter().enumerate().filter(|(source, _)| is_of_interest(*source)).flat_map(|(_, of)| of);
        let bytes: u64 = mappings
            .filter(|mapping| mapping.has_pages())
            .map(|mapping| mapping.rss_bytes + mapping.hugetlb_bytes)
            .sum();
        Self { found, counted_by_kernel: bytes / page_size() as u64 }
    }

    /// Whether the two agree as far as they can.
    pub fn holds(self) -> bool {
        is_balanced(self.found, self.counted_by_kernel)
    }
}

/// Whether so many pages that were found are as many as the kernel counts, but for what it does itself meanwhile.
pub fn is_balanced(found: u64, counted_by_kernel: u64) -> bool {
    found.abs_diff(counted_by_kernel) <= TOLERATED_PAGES.max(counted_by_kernel / TOLERATED_PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::memory::{
        mapping::{Region, tests_support::mapping},
        pages::classify::{Class, State},
    };

    fn bin(source: usize, class: Class) -> Bin {
        let (region, state) = (Region::Anonymous, State::CouldNot);
        Bin { instance: 0, source, region, class, state, reason: None, is_inferred: false }
    }

    /// A mapping with so many pages in memory.
    fn mapped(name: &str, pages: u64) -> Mapping {
        Mapping { rss_bytes: pages * page_size() as u64, ..mapping(0x10000, 1 << 30, "rw-p", name) }
    }

    #[test]
    fn classes_are_held_against_what_the_kernel_counts() {
        let count = |mappings| Count { pages: mappings / 2, mappings, ..Count::default() };
        let counts = BTreeMap::from([(bin(0, Class::Zero), count(300)), (bin(0, Class::Unique), count(700))]);
        // What the kernel provides has no pages that could be looked at.
        let all = Balance::of(&counts, &[vec![mapped("", 1000), mapped("[vdso]", 2)]], |_| true);
        assert_eq!(all, Balance { found: 1000, counted_by_kernel: 1000 });
        assert!(all.holds());
        let half = Balance::of(&counts, &[vec![mapped("", 2000)]], |_| true);
        assert!(!half.holds(), "{half:?}");
    }

    #[test]
    fn the_agents_own_processes_are_left_out() {
        let counts = BTreeMap::from([
            (bin(0, Class::Unique), Count { mappings: 10, ..Count::default() }),
            (bin(1, Class::Unique), Count { mappings: 5000, ..Count::default() }),
        ]);
        let balance = Balance::of(&counts, &[vec![mapped("", 10)], vec![mapped("", 1)]], |source| source == 0);
        assert_eq!(balance, Balance { found: 10, counted_by_kernel: 10 });
    }

    #[test]
    fn a_few_pages_that_the_kernel_took_meanwhile_are_tolerated_and_more_are_not() {
        assert!(is_balanced(1000, 1064) && !is_balanced(1000, 1065));
        assert!(is_balanced(99_500, 100_000) && !is_balanced(100_501, 100_000));
    }
}
