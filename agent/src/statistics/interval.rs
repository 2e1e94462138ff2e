//! How sure a figure of one sample is, by resampling.

use super::{RESAMPLES, median, quantile};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A median and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MedianInterval {
    /// The median.
    pub median: f64,
    /// Ends of its 95 % bootstrap interval.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// The median with its 95 % percentile bootstrap interval (Efron 1979). `None` for fewer than three values: then an interval
/// would be a pretence.
pub fn median_interval(values: &[f64], seed: u64) -> Option<MedianInterval> {
    if values.len() < 3 {
        return None;
    }
    let mut random = StdRng::seed_from_u64(seed);
    let medians: Vec<f64> = (0..RESAMPLES).filter_map(|_| median(&resample(values, &mut random))).collect();
    let (median, low, high) = (median(values)?, quantile(&medians, 0.025)?, quantile(&medians, 0.975)?);
    Some(MedianInterval { median, low, high })
}

/// As many values as there are, each drawn from all of them.
fn resample(values: &[f64], random: &mut StdRng) -> Vec<f64> {
    (0..values.len()).map(|_| values[random.random_range(0..values.len())]).collect()
}

/// How much a quantity grows per unit of another.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Slope {
    /// The slope of the line of least squares.
    pub slope: f64,
    /// Ends of the 95 % bootstrap interval of that; `None` where there are too few points for one.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
}

/// Slope of the line of least squares through points, with a percentile bootstrap interval: whole points are resampled (Efron and
/// Tibshirani 1993, section 9.5), since how far they lie off the line may depend on where they are. With fewer than three different
/// values of `x` there is none, which would be a pretence, and with fewer than two there is no slope.
pub fn slope(points: &[(f64, f64)], seed: u64) -> Option<Slope> {
    let mut places: Vec<f64> = points.iter().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let slope = least_squares(points)?;
    if places.len() < 3 {
        return Some(Slope { slope, low: None, high: None });
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut resample =
        || -> Vec<(f64, f64)> { (0..points.len()).map(|_| points[random.random_range(0..points.len())]).collect() };
    // A resample may be of one point alone, which has no slope.
    let slopes: Vec<f64> = (0..RESAMPLES).filter_map(|_| least_squares(&resample())).collect();
    Some(Slope { slope, low: quantile(&slopes, 0.025), high: quantile(&slopes, 0.975) })
}

fn least_squares(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    (spread > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_surer_the_more_the_values_agree() {
        let near = median_interval(&[100.0, 101.0, 99.0, 100.0, 102.0], 7).unwrap();
        let far = median_interval(&[100.0, 150.0, 60.0, 100.0, 170.0], 7).unwrap();
        assert_eq!((near.median, far.median), (100.0, 100.0));
        assert!(near.low <= near.median && near.median <= near.high, "{near:?}");
        assert!(near.high - near.low < far.high - far.low, "{near:?} {far:?}");
        assert_eq!(median_interval(&[1.0, 2.0], 7), None);
    }

    #[test]
    fn a_slope_is_found_and_its_interval_holds_it() {
        // numpy.polyfit([0, 1, 2, 4, 8], [1, 3, 4, 10, 17], 1)[0]
        let exact = slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 4.0), (4.0, 10.0), (8.0, 17.0)], 7).unwrap();
        assert!((exact.slope - 2.05).abs() < 1e-9, "{exact:?}");
        let mut random = StdRng::seed_from_u64(1);
        let points: Vec<_> =
            (0..40).map(|x| (f64::from(x), 5.0 * f64::from(x) + random.random_range(-10.0..10.0))).collect();
        let found = slope(&points, 7).unwrap();
        let (low, high) = found.low.zip(found.high).unwrap();
        assert!(low < 5.0 && 5.0 < high && high - low < 1.0, "{found:?}");
        let of_two = slope(&[(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)], 7);
        assert_eq!(of_two, Some(Slope { slope: 1.5, low: None, high: None }), "too few for an interval");
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0)], 7), None);
    }
}
