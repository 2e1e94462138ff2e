//! A figure and how sure it is, in one cell of a table.

use crate::statistics::{Slope, median, median_interval};
use maud::{Markup, html};

/// The median of some values with its 95 % interval, each shown by `show`; without an interval where there are fewer than three.
pub(super) fn median_of(values: &[f64], seed: u64, show: impl Fn(f64) -> String) -> Markup {
    match (median_interval(values, seed), median(values)) {
        (Some(found), _) => with_interval(found.median, Some((found.low, found.high)), show),
        (None, Some(median)) => with_interval(median, None, show),
        (None, None) => html! { "–" },
    }
}

/// A slope with its 95 % interval, if it has one.
pub(super) fn slope_of(slope: Option<Slope>, show: impl Fn(f64) -> String) -> Markup {
    slope.map_or_else(|| html! { "–" }, |found| with_interval(found.slope, found.low.zip(found.high), show))
}

/// A figure, and below it the ends of its interval if it has one.
pub(super) fn with_interval(figure: f64, interval: Option<(f64, f64)>, show: impl Fn(f64) -> String) -> Markup {
    match interval {
        Some((low, high)) => html! { (show(figure)) span.interval { (show(low)) " to " (show(high)) } },
        None => html! { (show(figure)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_shown_where_there_are_enough_values() {
        let show = |value: f64| format!("{value} s");
        assert_eq!(median_of(&[], 7, show).into_string(), "–");
        assert_eq!(median_of(&[1.0, 3.0], 7, show).into_string(), "2 s");
        assert_eq!(median_of(&[4.0; 5], 7, show).into_string(), "4 s<span class=\"interval\">4 s to 4 s</span>");
        assert_eq!(slope_of(None, show).into_string(), "–");
    }
}
