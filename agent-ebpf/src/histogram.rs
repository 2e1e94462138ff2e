//! Log-linear histograms of durations: small enough to have one per thread and exit reason, exact in count, merged by addition.
//!
//! Each power of two has [`SUB_BUCKETS`] buckets of equal width, so that a bucket's middle is at most 1/32 (3.125 %) off every
//! value in it. Values below `2 * SUB_BUCKETS` have a bucket of their own.

use bytemuck::{Pod, Zeroable};

const SUB_BITS: u32 = 4;
/// Buckets of one power of two.
pub const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// All buckets: up to 2^37 ns, or 137 s. Longer durations are in the last one.
pub const BUCKETS: usize = (37 - SUB_BITS as usize + 1) * SUB_BUCKETS;

/// Counts by bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
pub struct Histogram(pub [u32; BUCKETS]);

impl Histogram {
    /// Adds one value.
    #[inline(always)]
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.0.get_mut(bucket(value)) {
            *count = count.wrapping_add(1);
        }
    }
}

/// The bucket of a value.
#[inline(always)]
pub const fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let exponent = exponent(value);
    let sub = (value >> (exponent - SUB_BITS)) as usize & (SUB_BUCKETS - 1);
    let index = ((exponent - SUB_BITS + 1) as usize) * SUB_BUCKETS + sub;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// Smallest value of a bucket.
pub const fn floor(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    ((SUB_BUCKETS + bucket % SUB_BUCKETS) as u64) << shift
}

/// What stands for the values of a bucket: its middle.
pub const fn middle(bucket: usize) -> u64 {
    let width = if bucket < SUB_BUCKETS { 1 } else { 1 << (bucket / SUB_BUCKETS - 1) };
    floor(bucket) + width / 2
}

/// The binary logarithm, rounded down; 0 of 0. A ladder of comparisons: the compiler makes of `leading_zeros` what the
/// kernel's verifier can't follow.
#[inline(always)]
const fn exponent(mut value: u64) -> u32 {
    let mut exponent = 0;
    if value >= 1 << 32 {
        value >>= 32;
        exponent += 32;
    }
    if value >= 1 << 16 {
        value >>= 16;
        exponent += 16;
    }
    if value >= 1 << 8 {
        value >>= 8;
        exponent += 8;
    }
    if value >= 1 << 4 {
        value >>= 4;
        exponent += 4;
    }
    if value >= 1 << 2 {
        value >>= 2;
        exponent += 2;
    }
    if value >= 1 << 1 {
        exponent += 1;
    }
    exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_processor() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                assert_eq!(exponent(value), value.checked_ilog2().unwrap_or(0), "{value}");
            }
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(floor(index)), index);
            if index + 1 < BUCKETS {
                assert_eq!(bucket(floor(index + 1) - 1), index);
            }
        }
    }

    #[test]
    fn the_middle_is_at_most_a_thirty_second_off() {
        let mut value = 1u64;
        while value < 1 << 37 {
            for probe in [value, value + value / 3, value * 2 - 1].into_iter().filter(|&probe| probe < 1 << 37) {
                let error = middle(bucket(probe)).abs_diff(probe) as f64 / probe as f64;
                assert!(error <= 0.032, "{probe} is {error} off");
            }
            value += value.div_ceil(7);
        }
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        assert_eq!(bucket((1 << 37) - 1), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
