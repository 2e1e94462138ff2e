//! Comparing two samples by ranks, so that no assumption about the shape of their distributions is needed.

use statrs::distribution::{ContinuousCDF, Normal};
use std::cmp::Ordering;

/// Sizes of the smaller and of the larger sample up to which the distribution is computed exactly when no values are equal.
const EXACT: (usize, usize) = (8, 1000);

/// What ranks say about two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankTest {
    /// The statistic U: of all pairs, those in which the value of the first sample is the larger one; ties count half.
    pub u: f64,
    /// Probability of one at least as extreme, on either side, if both samples come from the same distribution.
    pub p_value: f64,
    /// Cliff's delta, from −1 (all values of the first sample are below those of the second) over 0 to 1: the effect size
    /// (Cliff 1993).
    pub cliffs_delta: f64,
}

/// The two-sided test of Mann and Whitney (1947). `None` when a sample is empty.
///
/// As in SciPy's `mannwhitneyu` it is exact when a sample has at most 8 values and none are equal, and else by the normal
/// approximation with corrections for ties and continuity.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Option<RankTest> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let Ranks { sum_of_first, ties } = Ranks::of(first, second);
    let u = sum_of_first - n1 * (n1 + 1.0) / 2.0;
    let larger = u.max(n1 * n2 - u);
    let (small, large) = (first.len().min(second.len()), first.len().max(second.len()));
    let p_value = if ties == 0.0 && small <= EXACT.0 && large <= EXACT.1 {
        // No ties: U is a whole number.
        2.0 * exact_tail(small, large, larger as usize)
    } else {
        2.0 * normal_tail(n1, n2, ties, larger)
    };
    Some(RankTest { u, p_value: p_value.clamp(0.0, 1.0), cliffs_delta: 2.0 * u / (n1 * n2) - 1.0 })
}

struct Ranks {
    sum_of_first: f64,
    /// Sum of t³ − t over groups of t equal values.
    ties: f64,
}

impl Ranks {
    /// Ranks from 1 of both samples together; equal values share the mean of their ranks.
    fn of(first: &[f64], second: &[f64]) -> Self {
        let mut all: Vec<(f64, bool)> = first.iter().map(|&value| (value, true)).collect();
        all.extend(second.iter().map(|&value| (value, false)));
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut ranks, mut below) = (Self { sum_of_first: 0.0, ties: 0.0 }, 0.0);
        for equal in all.chunk_by(|one, other| one.0.partial_cmp(&other.0) == Some(Ordering::Equal)) {
            let count = equal.len() as f64;
            let mean_rank = below + (count + 1.0) / 2.0;
            ranks.sum_of_first += mean_rank * equal.iter().filter(|(_, first)| *first).count() as f64;
            ranks.ties += count.powi(3) - count;
            below += count;
        }
        ranks
    }
}

/// Probability that U is at least this by the normal approximation.
fn normal_tail(n1: f64, n2: f64, ties: f64, u: f64) -> f64 {
    let n = n1 + n2;
    let variance = n1 * n2 / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance <= 0.0 {
        // All values are equal.
        return 1.0;
    }
    let z = (u - n1 * n2 / 2.0 - 0.5) / variance.sqrt();
    Normal::standard().sf(z)
}

/// Probability that U is at least this, counting arrangements of ranks.
///
/// Their number for each U are the coefficients of the Gaussian binomial ∏ (1 − q^(large+i)) / (1 − q^i), i = 1 … small.
fn exact_tail(small: usize, large: usize, u: usize) -> f64 {
    let mut counts = vec![0_i128; small * large + 1];
    counts[0] = 1;
    for i in 1..=small {
        for at in (large + i..counts.len()).rev() {
            counts[at] -= counts[at - large - i];
        }
        for at in i..counts.len() {
            counts[at] += counts[at - i];
        }
    }
    let all: i128 = counts.iter().sum();
    let tail: i128 = counts.iter().skip(u).sum();
    tail as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_distribution_counts_arrangements() {
        // Of the C(5, 2) = 10 ways to place two values among five, U is 6, 5, 4, … in 1, 1, 2, 2, 2, 1, 1 of them.
        let tails: Vec<f64> = (0..=6).map(|u| exact_tail(2, 3, u)).collect();
        for (found, expected) in tails.iter().zip([1.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1]) {
            assert!((found - expected).abs() < 1e-12, "{tails:?}");
        }
    }

    #[test]
    fn samples_without_overlap_are_as_far_apart_as_can_be() {
        let test = mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0, 7.0]).unwrap();
        assert_eq!((test.u, test.cliffs_delta), (0.0, -1.0));
        // Two of the C(7, 3) = 35 arrangements are that extreme.
        assert!((test.p_value - 2.0 / 35.0).abs() < 1e-12, "{test:?}");
    }

    #[test]
    fn equal_samples_do_not_differ() {
        let test = mann_whitney(&[5.0; 20], &[5.0; 30]).unwrap();
        assert_eq!((test.p_value, test.cliffs_delta), (1.0, 0.0));
        assert_eq!(mann_whitney(&[], &[1.0]), None);
    }
}
