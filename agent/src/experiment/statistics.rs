//! Summaries of repeated measurements, and how sure they are.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Resamples for an interval: its ends move by less than a per cent of its width from seed to seed.
const RESAMPLES: usize = 4000;

/// Value below which a share `q` (0 to 1) of the values lies, by linear interpolation between neighbours (Hyndman and Fan's
/// definition 7, the default of R and NumPy). `None` without values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// The middle value.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// How much longer one group takes than another.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RelativeDifference {
    /// Median of the first over median of the second, minus one.
    pub difference_ratio: f64,
    /// Ends of the 95 % bootstrap interval of that.
    pub low_ratio: f64,
    /// See `low_ratio`.
    pub high_ratio: f64,
}

/// Relative difference of the medians of two groups, with a percentile bootstrap interval (Efron 1979): both groups are
/// resampled independently. `None` when a group has fewer than three values: then an interval would be a pretence.
pub fn relative_difference(group: &[f64], baseline: &[f64], seed: u64) -> Option<RelativeDifference> {
    if group.len() < 3 || baseline.len() < 3 {
        return None;
    }
    let ratio = |group: &[f64], baseline: &[f64]| Some(median(group)? / median(baseline)? - 1.0);
    let mut random = StdRng::seed_from_u64(seed);
    let mut resample = |values: &[f64]| -> Vec<f64> {
        (0..values.len()).map(|_| values[random.random_range(0..values.len())]).collect()
    };
    let differences: Vec<f64> = (0..RESAMPLES).filter_map(|_| ratio(&resample(group), &resample(baseline))).collect();
    Some(RelativeDifference {
        difference_ratio: ratio(group, baseline)?,
        low_ratio: quantile(&differences, 0.025)?,
        high_ratio: quantile(&differences, 0.975)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_numpy() {
        let values = [15.0, 20.0, 35.0, 40.0, 50.0];
        // numpy.quantile([15, 20, 35, 40, 50], [0.05, 0.4, 0.5, 0.95])
        let expected = [16.0, 29.0, 35.0, 48.0];
        for (q, expected) in [0.05, 0.4, 0.5, 0.95].into_iter().zip(expected) {
            let found = quantile(&values, q).unwrap();
            assert!((found - expected).abs() < 1e-9, "{q}: {found}");
        }
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.95), Some(7.0));
    }

    #[test]
    fn a_difference_that_is_there_is_found_and_one_that_is_not_is_not() {
        let mut random = StdRng::seed_from_u64(1);
        let mut group = |mean: f64| -> Vec<f64> { (0..60).map(|_| mean * random.random_range(0.9..1.1)).collect() };
        let (same, other, longer) = (group(100.0), group(100.0), group(120.0));
        let none = relative_difference(&same, &other, 7).unwrap();
        assert!(none.low_ratio < 0.0 && 0.0 < none.high_ratio, "{none:?}");
        let some = relative_difference(&longer, &other, 7).unwrap();
        assert!(some.low_ratio > 0.1 && some.high_ratio < 0.3, "{some:?}");
    }

    #[test]
    fn two_values_are_no_sample() {
        assert_eq!(relative_difference(&[1.0, 2.0], &[1.0, 2.0, 3.0], 7), None);
    }
}
