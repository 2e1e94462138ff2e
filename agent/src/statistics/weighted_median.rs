//! The median as a weighted mean of all ordered values (Harrell and Davis 1982): what the values consist of can be weighted alike, and
//! then adds up to it.

use statrs::function::beta::beta_reg;

/// Weights of the values of a sample of this size, the smallest value first; they add up to 1. The i-th is the part of the beta
/// distribution with both parameters (n + 1) / 2 that lies between (i − 1) / n and i / n.
pub fn median_weights(size: usize) -> Vec<f64> {
    let n = size as f64;
    let below = |rank: usize| match rank {
        0 => 0.0,
        rank if rank == size => 1.0,
        rank => beta_reg((n + 1.0) / 2.0, (n + 1.0) / 2.0, rank as f64 / n),
    };
    (0..size).map(|rank| below(rank + 1) - below(rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_symmetric_add_up_and_are_largest_in_the_middle() {
        for size in [1, 2, 5, 10, 150] {
            let weights = median_weights(size);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{size}");
            let mirrored = weights.iter().zip(weights.iter().rev());
            assert!(mirrored.into_iter().all(|(one, other)| (one - other).abs() < 1e-9), "{weights:?}");
            assert!(weights[size / 2] >= weights[0] - 1e-9, "{weights:?}");
        }
        assert!(median_weights(0).is_empty());
    }

    #[test]
    fn a_known_sample_has_its_known_estimate() {
        // `Hmisc::hdquantile(1:5, 0.5)` and `scipy.stats.mstats.hdmedian` of 1, 2, 3, 4, 10.
        let of =
            |values: [f64; 5]| median_weights(5).iter().zip(values).map(|(weight, value)| weight * value).sum::<f64>();
        assert!((of([1.0, 2.0, 3.0, 4.0, 5.0]) - 3.0).abs() < 1e-9);
        assert!((of([1.0, 2.0, 3.0, 4.0, 10.0]) - 3.28960).abs() < 1e-5, "{}", of([1.0, 2.0, 3.0, 4.0, 10.0]));
    }
}
