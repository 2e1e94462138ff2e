//! The order of a run: every sandbox with and without probes, equally often, in random order, so that whatever changes on the
//! host meanwhile (temperature, caches, neighbours) spreads over all of them.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// One instance to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Index of the sandbox.
    pub sandbox: usize,
    /// Whether probes are attached.
    pub probes: bool,
}

/// What probes are for in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// Instances with probes only.
    Probed,
    /// Instances without probes only: the host can't have them.
    Bare,
    /// As many with as without.
    Both,
}

impl Arms {
    /// With probes or not, for each instance that is asked for.
    pub fn probes(self) -> &'static [bool] {
        match self {
            Self::Probed => &[true],
            Self::Bare => &[false],
            Self::Both => &[true, false],
        }
    }
}

/// `instances` of each of `sandboxes` kinds per arm, in an order that the seed decides.
pub fn plan(sandboxes: usize, instances: u32, arms: Arms, seed: u64) -> Vec<Cell> {
    let mut cells: Vec<Cell> = (0..instances)
        .flat_map(|_| {
            (0..sandboxes).flat_map(|sandbox| arms.probes().iter().map(move |&probes| Cell { sandbox, probes }))
        })
        .collect();
    cells.shuffle(&mut StdRng::seed_from_u64(seed));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_there_equally_often_in_an_order_that_the_seed_decides() {
        let order = plan(3, 10, Arms::Both, 1);
        assert_eq!(order.len(), 60);
        for sandbox in 0..3 {
            for probes in [true, false] {
                assert_eq!(order.iter().filter(|cell| **cell == Cell { sandbox, probes }).count(), 10);
            }
        }
        assert_eq!(order, plan(3, 10, Arms::Both, 1));
        assert_ne!(order, plan(3, 10, Arms::Both, 2));
        let mut sorted = order.clone();
        sorted.sort();
        assert_ne!(order, sorted);
    }

    #[test]
    fn without_probes_no_cell_has_them() {
        assert!(plan(2, 3, Arms::Bare, 1).iter().all(|cell| !cell.probes));
    }
}
