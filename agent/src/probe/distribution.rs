//! Histograms of the probes in user space: the same buckets, counts that can't wrap, sums over CPUs and differences.

use sandscope_ebpf::histogram::{BUCKETS, Histogram, bucket, floor};

/// Counts by bucket; see [`sandscope_ebpf::histogram`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution(Vec<u64>);

impl Default for Distribution {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Distribution {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Adds a value so many times.
    pub fn record_many(&mut self, value: u64, count: u64) {
        self.0[bucket(value)] += count;
    }

    /// Adds what a probe has counted.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.0.iter_mut().zip(histogram.0) {
            *sum += u64::from(count);
        }
    }

    /// What has come since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, before)| now.saturating_sub(*before)).collect())
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The buckets that are not empty: their smallest values and their counts.
    pub fn buckets(&self) -> (Vec<u64>, Vec<u64>) {
        let used = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(bucket, count)| (floor(bucket), *count)).unzip()
    }
}

impl From<&Histogram> for Distribution {
    fn from(histogram: &Histogram) -> Self {
        let mut distribution = Self::default();
        distribution.add(histogram);
        distribution
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_since_is_in_its_bucket() {
        let mut now = Distribution::default();
        now.record(7);
        let before = now.clone();
        now.record(7);
        now.record(66_000);
        let since = now.since(&before);
        assert_eq!(since.count(), 2);
        let (floors, counts) = since.buckets();
        assert_eq!((floors[0], &counts[..]), (7, &[1, 1][..]));
        assert!((64_000..=66_000).contains(&floors[1]), "{floors:?}");
    }
}
