//! Pure computing: Fibonacci numbers, a Fourier transform, a matrix product.
//!
//! No code path here depends on what the CPU offers beyond its baseline: a sandbox that hides features of the CPU from
//! its guest would otherwise run another program than one that does not, and the two could not be compared.

use anyhow::{Context, Result};
use rustfft::{FftPlannerScalar, num_complex::Complex};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Seed of all pseudo-random input: the same in every run, and no wait for the entropy of a guest that has just booted.
const SEED: u64 = 1;

/// Side of the square of `b` in [`multiply`] that stays in a cache of 256 KiB while all rows of `a` pass by.
const TILE: usize = 128;

/// The `n`th Fibonacci number modulo 2^64 (the first two are 1), by `n - 1` additions.
pub fn fibonacci(n: u64) -> u64 {
    let (mut previous, mut current) = (0u64, 1u64);
    for _ in 1..n {
        (previous, current) = (current, previous.wrapping_add(current));
    }
    current
}

/// Time of the forward Fourier transform of a random complex vector of length `n`.
///
/// # Errors
/// When there is not enough memory.
pub fn fourier_transform_time(n: usize) -> Result<Duration> {
    let transform = FftPlannerScalar::<f64>::new().plan_fft_forward(n);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut vector = filled(n, || Complex::new(random.f64(), random.f64()))?;
    let mut scratch = filled(transform.get_inplace_scratch_len(), || Complex::new(1.0, 0.0))?;
    let start = Instant::now();
    transform.process_with_scratch(&mut vector, &mut scratch);
    let time = start.elapsed();
    black_box(&vector);
    Ok(time)
}

/// Time of squaring a random matrix with `n` rows and columns.
///
/// # Errors
/// When there is not enough memory.
pub fn matrix_square_time(n: usize) -> Result<Duration> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let matrix = filled(n * n, || random.f64())?;
    let mut square = filled(n * n, || 0.0)?;
    let start = Instant::now();
    multiply(&matrix, &matrix, &mut square, n);
    let time = start.elapsed();
    black_box(&square);
    Ok(time)
}

/// A vector every element of which has been written: what follows takes no page faults.
fn filled<T>(length: usize, mut element: impl FnMut() -> T) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    vector
        .try_reserve_exact(length)
        .with_context(|| format!("no memory for {length} elements of {} bytes", size_of::<T>()))?;
    vector.extend(std::iter::repeat_with(&mut element).take(length));
    Ok(vector)
}

/// Adds the product of the row-major `n` by `n` matrices `a` and `b` to `sum`.
fn multiply(a: &[f64], b: &[f64], sum: &mut [f64], n: usize) {
    for first_k in (0..n).step_by(TILE) {
        for first_j in (0..n).step_by(TILE) {
            let (end_k, end_j) = (n.min(first_k + TILE), n.min(first_j + TILE));
            for i in 0..n {
                let row = &mut sum[i * n + first_j..i * n + end_j];
                for k in first_k..end_k {
                    let factor = a[i * n + k];
                    for (element, value) in row.iter_mut().zip(&b[k * n + first_j..k * n + end_j]) {
                        *element += factor * value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fibonacci_numbers_are_known() {
        for (n, value) in [(1, 1), (2, 1), (3, 2), (10, 55), (90, 2_880_067_194_370_816_120)] {
            assert_eq!(fibonacci(n), value, "n = {n}");
        }
        // The 94th is the first beyond 2^64: 19_740_274_219_868_223_167.
        assert_eq!(u128::from(fibonacci(94)), 19_740_274_219_868_223_167 - (1 << 64));
    }

    #[test]
    fn a_product_is_the_sum_over_rows_and_columns() {
        // Sizes around the tile's, and entries small enough for every sum to be exact.
        for n in [1, 2, 3, TILE - 1, TILE, TILE + 1] {
            let a: Vec<f64> = (0..n * n).map(|i| (i % 7) as f64 - 3.0).collect();
            let b: Vec<f64> = (0..n * n).map(|i| (i % 11) as f64 - 5.0).collect();
            let mut product = vec![0.0; n * n];
            multiply(&a, &b, &mut product, n);
            for i in 0..n {
                for j in 0..n {
                    let expected: f64 = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
                    assert_eq!(product[i * n + j], expected, "n = {n}, row {i}, column {j}");
                }
            }
        }
    }
}
