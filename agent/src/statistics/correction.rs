//! Many comparisons at once: among a hundred, five differ by chance alone.

/// P-values adjusted so that, of the comparisons whose adjusted value is below α, at most a share α is expected to be wrong
/// (Benjamini and Hochberg 1995). In the order of the given ones.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&one, &other| p_values[other].total_cmp(&p_values[one]));
    let mut adjusted = vec![1.0; p_values.len()];
    let (count, mut least) = (p_values.len() as f64, 1.0_f64);
    for (above, index) in order.into_iter().enumerate() {
        least = least.min(p_values[index] * count / (count - above as f64));
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_pays_for_all_and_none_overtakes_a_larger_one() {
        let adjusted = benjamini_hochberg(&[0.04, 0.01, 0.03, 0.9]);
        // 0.01·4/1; 0.03·4/2 and 0.04·4/3 → the smaller of the two, 0.0533…, for both; 0.9·4/4.
        for (found, expected) in adjusted.iter().zip([0.16 / 3.0, 0.04, 0.16 / 3.0, 0.9]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
