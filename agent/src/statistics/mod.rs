//! Summaries of repeated measurements, and how sure they are.

mod correction;
mod interval;
mod rank;
mod resampling;
mod weighted_median;

pub use correction::benjamini_hochberg;
pub use interval::{MedianInterval, Slope, median_interval, slope};
pub use rank::{RankTest, mann_whitney};
pub use resampling::{RelativeDifference, noise_floor, relative_difference};
pub use weighted_median::median_weights;

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
}
