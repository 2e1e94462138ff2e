//! How values are distributed: one row of bars per sample, over a common axis.

use crate::{
    report::units::{counted, duration},
    statistics::quantile,
};
use maud::{Markup, html};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 110.0;
const ROW: f64 = 64.0;
const GAP: f64 = 14.0;
const AXIS: f64 = 24.0;
const BINS: usize = 40;
const TICKS: usize = 5;

/// A sample with its name; times in nanoseconds.
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<f64>,
}

/// The drawing; nothing where there is nothing to draw.
pub(super) fn histogram(label: &str, samples: &[Sample]) -> Markup {
    let samples: Vec<_> = samples.iter().filter(|sample| !sample.values.is_empty()).collect();
    let all: Vec<f64> = samples.iter().flat_map(|sample| sample.values.iter().copied()).collect();
    let (Some(low), Some(high)) = (quantile(&all, 0.0), quantile(&all, 1.0)) else { return html! {} };
    // Some room for a single value.
    let (low, high) = if high > low { (low, high) } else { (low * 0.95, low * 1.05 + 1.0) };
    let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 10.0);
    let height = samples.len() as f64 * (ROW + GAP) + AXIS;
    let bin_width = (high - low) / BINS as f64;
    let number = |value: f64| format!("{value:.1}");
    html! {
        svg.histogram role="img" aria-label=(label) viewBox={ "0 0 " (WIDTH) " " (height) } {
            @for (row, sample) in samples.iter().enumerate() {
                @let counts = counts(&sample.values, low, bin_width);
                @let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
                @let base = row as f64 * (ROW + GAP) + ROW;
                text x="0" y=(number(base - ROW / 2.0)) { (sample.name) }
                text x="0" y=(number(base - ROW / 2.0 + 14.0)) { (counted(sample.values.len(), "instance")) }
                @for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    @let tall = *count as f64 / most * (ROW - 8.0);
                    @let from = low + bin as f64 * bin_width;
                    rect class={ "k" (row) } x=(number(x(from) + 0.5)) y=(number(base - tall)) height=(number(tall))
                        width=(number((x(from + bin_width) - x(from) - 1.0).max(1.0))) {
                        title { (count) " from " (duration(from)) " to " (duration(from + bin_width)) }
                    }
                }
                line.axis x1=(number(LEFT)) x2=(number(WIDTH - 10.0)) y1=(number(base)) y2=(number(base)) {}
                @if let Some(median) = quantile(&sample.values, 0.5) {
                    line.median x1=(number(x(median))) x2=(number(x(median))) y1=(number(base - ROW)) y2=(number(base)) {
                        title { "median " (duration(median)) }
                    }
                }
            }
            @for tick in 0..TICKS {
                @let value = low + (high - low) * tick as f64 / (TICKS - 1) as f64;
                @let anchor = match tick { 0 => "start", last if last == TICKS - 1 => "end", _ => "middle" };
                text x=(number(x(value))) y=(number(height - 8.0)) text-anchor=(anchor) { (duration(value)) }
            }
        }
    }
}

/// Values in each bin; the highest value is in the last one.
fn counts(values: &[f64], low: f64, bin_width: f64) -> Vec<usize> {
    let mut counts = vec![0; BINS];
    for value in values {
        let bin = ((value - low) / bin_width) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bin_and_the_edges_are_in_the_outer_ones() {
        let counts = counts(&[0.0, 39.9, 40.0, 20.0], 0.0, 1.0);
        assert_eq!((counts[0], counts[20], counts[39], counts.iter().sum::<usize>()), (1, 1, 2, 4));
    }

    #[test]
    fn equal_values_and_none_can_be_drawn() {
        let drawn = |values: Vec<f64>| histogram("starts", &[Sample { name: "x", values }]).into_string();
        assert!(drawn(vec![5.0; 3]).contains("3 instances"));
        assert!(!drawn(vec![5.0; 3]).contains("NaN"));
        assert_eq!(drawn(Vec::new()), "");
    }
}
