//! From two samples to a verdict.

use super::{Row, Unit, metrics::Cell};
use crate::statistics::{benjamini_hochberg, mann_whitney, median, noise_floor, relative_difference};
use serde::Serialize;

/// Values that each side has to have: with four, chance alone makes any order of the values with a probability above the level of
/// significance.
pub const LEAST: usize = 5;

/// Share of differences that may be found where there are none.
pub const SIGNIFICANT: f64 = 0.05;

/// Of resampling: the same results are always compared alike.
const SEED: u64 = 0x5ca1_ab1e;

/// What a comparison of two samples says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than in the baseline.
    Better,
    /// More than in the baseline.
    Worse,
    /// None that chance would not make; the noise floor says how large one could be and not be seen.
    NoDifferenceSeen,
    /// Not even that can be said.
    TooFewSamples,
}

impl Verdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceSeen => "no difference seen",
            Self::TooFewSamples => "too few samples",
        }
    }
}

/// Figures of a comparison of two samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Center of B over center of A, minus one; null where A's is 0.
    pub difference_ratio: Option<f64>,
    /// Ends of the 95 % bootstrap interval of that.
    pub low_ratio: Option<f64>,
    /// See `low_ratio`.
    pub high_ratio: Option<f64>,
    /// Of the rank test, before the correction.
    pub p_value: f64,
    /// After it.
    pub adjusted_p_value: f64,
    /// Effect size: 1 where every value of B is above every one of A, −1 where it is below.
    pub cliffs_delta: f64,
    /// A relative difference that chance alone exceeds in one of twenty such comparisons.
    pub noise_floor_ratio: Option<f64>,
}

impl Judged {
    /// What the rank test says, its p-value not yet corrected; `None` if there are too few values.
    fn of(a: &[f64], b: &[f64]) -> Option<Self> {
        let enough = a.len() >= LEAST && b.len() >= LEAST;
        let test = mann_whitney(b, a).filter(|_| enough)?;
        Some(Self {
            difference_ratio: None,
            low_ratio: None,
            high_ratio: None,
            p_value: test.p_value,
            adjusted_p_value: test.p_value,
            cliffs_delta: test.cliffs_delta,
            noise_floor_ratio: None,
        })
    }

    /// The same with what is found by resampling.
    fn resampled(self, a: &[f64], b: &[f64]) -> Self {
        let difference = relative_difference(b, a, SEED);
        Self {
            difference_ratio: difference.map(|difference| difference.difference_ratio),
            low_ratio: difference.map(|difference| difference.low_ratio),
            high_ratio: difference.map(|difference| difference.high_ratio),
            noise_floor_ratio: noise_floor(b, a, SEED),
            ..self
        }
    }
}

/// The row of two samples, its p-value not yet corrected.
pub(super) fn row(cell: Cell, primary: bool, a: &[f64], b: &[f64]) -> Row {
    let unit = cell.metric.unit;
    let judged = Judged::of(a, b).map(|judged| match unit {
        Unit::Ratio => judged,
        _ => judged.resampled(a, b),
    });
    Row {
        sandbox: cell.kind.sandbox,
        workload: cell.kind.workload,
        experiment: cell.kind.experiment,
        variant: cell.kind.variant,
        group: cell.metric.group,
        metric: cell.metric.name,
        unit,
        probes: cell.metric.probes,
        primary,
        a_count: a.len(),
        b_count: b.len(),
        a_center: center(unit, a),
        b_center: center(unit, b),
        judged,
        verdict: Verdict::TooFewSamples,
    }
}

fn center(unit: Unit, values: &[f64]) -> f64 {
    match unit {
        // The median of zeros and ones is one of them.
        Unit::Ratio => values.iter().sum::<f64>() / values.len().max(1) as f64,
        _ => median(values).unwrap_or(f64::NAN),
    }
}

/// Corrects the p-values for the number of comparisons and says what they mean.
pub(super) fn judge(rows: &mut [Row]) {
    for primary in [true, false] {
        let mut judged: Vec<&mut Row> =
            rows.iter_mut().filter(|row| row.primary == primary && row.judged.is_some()).collect();
        let p_values: Vec<f64> =
            judged.iter().filter_map(|row| row.judged.as_ref()).map(|judged| judged.p_value).collect();
        for (row, adjusted) in judged.iter_mut().zip(benjamini_hochberg(&p_values)) {
            let Some(judged) = &mut row.judged else { continue };
            judged.adjusted_p_value = adjusted;
            row.verdict = match () {
                () if adjusted >= SIGNIFICANT => Verdict::NoDifferenceSeen,
                () if judged.cliffs_delta > 0.0 => Verdict::Worse,
                () => Verdict::Better,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Metric, *};
    use crate::results::Kind;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// Start times of a sandbox that vary by 10 % (standard deviation), about this.
    fn starts(random: &mut StdRng, count: usize, mean: f64) -> Vec<f64> {
        // A sum of twelve uniform variables is close to normal, with standard deviation 1.
        let normal = |random: &mut StdRng| (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        (0..count).map(|_| mean * (1.0 + 0.1 * normal(random))).collect()
    }

    fn cell(sandbox: &str) -> Cell {
        let metric = Metric { group: "start", name: "time".to_owned(), unit: Unit::Ns, probes: Some(false) };
        let kind = Kind {
            sandbox: sandbox.to_owned(),
            workload: "rust".to_owned(),
            experiment: "cold-start".to_owned(),
            variant: String::new(),
        };
        Cell { kind, metric }
    }

    /// Verdicts of one comparison of several sandboxes, which all are so much slower.
    fn verdicts(random: &mut StdRng, sandboxes: usize, count: usize, slower: f64) -> Vec<Verdict> {
        let pair = |number: usize| {
            let (a, b) = (starts(random, count, 100.0), starts(random, count, 100.0 * (1.0 + slower)));
            // Resampling has no part in the verdict, and would take most of the time of these tests.
            Row { judged: Judged::of(&a, &b), ..row(cell(&number.to_string()), true, &[], &[]) }
        };
        let mut rows: Vec<Row> = (0..sandboxes).map(pair).collect();
        judge(&mut rows);
        rows.into_iter().map(|row| row.verdict).collect()
    }

    /// Share of these that are so.
    fn share(of: &[bool]) -> f64 {
        of.iter().filter(|is| **is).count() as f64 / of.len() as f64
    }

    #[test]
    fn where_nothing_changed_hardly_a_verdict_says_otherwise() {
        const COMPARISONS: usize = 1000;
        let mut random = StdRng::seed_from_u64(1);
        let changed: Vec<bool> = (0..COMPARISONS)
            .flat_map(|_| verdicts(&mut random, 5, 30, 0.0))
            .map(|verdict| verdict != Verdict::NoDifferenceSeen)
            .collect();
        assert!(share(&changed) <= 0.05, "{}", share(&changed));
        // Where nothing changed at all, the correction keeps the share of comparisons with any false verdict at its level. What
        // is seen of a share differs from it: three standard deviations of a binomial one.
        let any: Vec<bool> = changed.chunks(5).map(|verdicts| verdicts.contains(&true)).collect();
        let slack = 3.0 * (SIGNIFICANT * (1.0 - SIGNIFICANT) / COMPARISONS as f64).sqrt();
        assert!(share(&any) <= SIGNIFICANT + slack, "{}", share(&any));
        assert!(share(&any) > 0.0, "a test that is never wrong sees nothing either");
    }

    #[test]
    fn a_tenth_more_is_found_among_thirty_that_vary_by_a_tenth() {
        let mut random = StdRng::seed_from_u64(2);
        let found: Vec<bool> = (0..200).map(|_| verdicts(&mut random, 1, 30, 0.1) == [Verdict::Worse]).collect();
        assert!(share(&found) >= 0.9, "{}", share(&found));
    }

    #[test]
    fn few_values_say_nothing_and_constant_ones_do() {
        let judged = |a: &[f64], b: &[f64]| {
            let mut rows = [row(cell("runc"), true, a, b)];
            judge(&mut rows);
            (rows[0].verdict, rows[0].judged.clone())
        };
        assert_eq!(judged(&[1.0; 4], &[2.0; 100]), (Verdict::TooFewSamples, None));
        assert_eq!(judged(&[1.0; 9], &[2.0; 9]).0, Verdict::Worse);
        assert_eq!(judged(&[2.0; 9], &[1.0; 9]).0, Verdict::Better);
        let (verdict, figures) = judged(&[0.0; 9], &[0.0; 9]);
        assert_eq!(verdict, Verdict::NoDifferenceSeen);
        assert_eq!(figures.and_then(|figures| figures.difference_ratio), None);
    }
}
