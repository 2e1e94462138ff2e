//! How sure a difference is, by resampling: no assumption about distributions, only that the instances are independent.

use super::{RESAMPLES, median, quantile};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Shuffles for a noise floor, of which one quantile is wanted.
const SHUFFLES: usize = 1000;
/// Values that a sample has to have: with fewer an interval would be a pretence.
const LEAST: usize = 3;

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
/// resampled independently. `None` when a group has fewer than three values, or the baseline's median is 0.
pub fn relative_difference(group: &[f64], baseline: &[f64], seed: u64) -> Option<RelativeDifference> {
    let ratio = |group: &mut [f64], baseline: &mut [f64]| {
        let baseline = middle(baseline)?;
        (baseline != 0.0).then_some(middle(group)? / baseline - 1.0)
    };
    let (difference_ratio, [low_ratio, high_ratio]) = interval(group, baseline, seed, ratio)?;
    Some(RelativeDifference { difference_ratio, low_ratio, high_ratio })
}

/// A statistic of two samples and the ends of its 95 % percentile bootstrap interval.
fn interval(
    group: &[f64],
    baseline: &[f64],
    seed: u64,
    statistic: impl Fn(&mut [f64], &mut [f64]) -> Option<f64>,
) -> Option<(f64, [f64; 2])> {
    if group.len() < LEAST || baseline.len() < LEAST {
        return None;
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut resample = |from: &[f64], into: &mut [f64]| {
        into.iter_mut().for_each(|value| *value = from[random.random_range(0..from.len())]);
    };
    let (mut one, mut other) = (group.to_vec(), baseline.to_vec());
    let value = statistic(&mut one, &mut other)?;
    let mut values = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        resample(group, &mut one);
        resample(baseline, &mut other);
        values.extend(statistic(&mut one, &mut other));
    }
    Some((value, [quantile(&values, 0.025)?, quantile(&values, 0.975)?]))
}

/// Relative difference of medians that chance alone exceeds in one of twenty comparisons of samples of these sizes and this
/// spread: differences below it can't be told from noise.
///
/// Both samples are divided by their medians, so that they differ in nothing but chance, thrown together and dealt out
/// anew. `None` where [`relative_difference`] has none either.
pub fn noise_floor(group: &[f64], baseline: &[f64], seed: u64) -> Option<f64> {
    if group.len() < LEAST || baseline.len() < LEAST {
        return None;
    }
    let mut pool = Vec::with_capacity(group.len() + baseline.len());
    for sample in [group, baseline] {
        let middle = median(sample).filter(|&middle| middle != 0.0)?;
        pool.extend(sample.iter().map(|value| value / middle));
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut differences = Vec::with_capacity(SHUFFLES);
    for _ in 0..SHUFFLES {
        pool.shuffle(&mut random);
        let (one, other) = pool.split_at_mut(group.len());
        let other = middle(other).filter(|&middle| middle != 0.0);
        differences.extend(other.and_then(|other| Some((middle(one)? / other - 1.0).abs())));
    }
    quantile(&differences, 0.95)
}

/// The median, by selection instead of sorting; the values change their places.
fn middle(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let lower = if even { below.iter().copied().max_by(f64::total_cmp)? } else { upper };
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(random: &mut StdRng, count: usize, mean: f64) -> Vec<f64> {
        (0..count).map(|_| mean * random.random_range(0.9..1.1)).collect()
    }

    #[test]
    fn a_difference_that_is_there_is_found_and_one_that_is_not_is_not() {
        let mut random = StdRng::seed_from_u64(1);
        let [same, other, longer] = [100.0, 100.0, 120.0].map(|mean| sample(&mut random, 60, mean));
        let none = relative_difference(&same, &other, 7).unwrap();
        assert!(none.low_ratio < 0.0 && 0.0 < none.high_ratio, "{none:?}");
        let some = relative_difference(&longer, &other, 7).unwrap();
        assert!(some.low_ratio > 0.1 && some.high_ratio < 0.3, "{some:?}");
    }

    #[test]
    fn two_values_are_no_sample_and_nothing_is_no_baseline() {
        assert_eq!(relative_difference(&[1.0, 2.0], &[1.0, 2.0, 3.0], 7), None);
        assert_eq!(relative_difference(&[1.0, 2.0, 3.0], &[0.0; 3], 7), None);
        assert_eq!(noise_floor(&[1.0, 2.0, 3.0], &[0.0; 3], 7), None);
    }

    #[test]
    fn selection_finds_the_same_median_as_sorting() {
        let mut random = StdRng::seed_from_u64(3);
        for count in 1..20 {
            let mut values = sample(&mut random, count, 5.0);
            assert_eq!(median(&values), middle(&mut values), "{count}");
        }
    }

    #[test]
    fn the_noise_floor_shrinks_with_more_values_and_ignores_the_difference() {
        let mut random = StdRng::seed_from_u64(2);
        let mut floor = |count, mean| {
            let (one, other) = (sample(&mut random, count, mean), sample(&mut random, count, 100.0));
            noise_floor(&one, &other, 7).unwrap()
        };
        let (few, many, apart) = (floor(10, 100.0), floor(1000, 100.0), floor(1000, 200.0));
        assert!(few > 3.0 * many, "{few} {many}");
        assert!((apart / many - 1.0).abs() < 0.3, "{apart} {many}");
    }
}
