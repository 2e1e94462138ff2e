//! What is made of a suite's values: medians with their intervals, and marks on those that are far from the others.

use super::{
    CellKey, Plan,
    gathered::{AllGathered, Gathered, Value, per_repetition},
};
use crate::{
    experiment::{
        statistics::{median, median_interval, quantile},
        step::Figure,
    },
    record::{Outcome, tables},
};
use serde::Serialize;

/// A suite in a few lines.
#[derive(Debug, Serialize)]
pub struct SuiteSummary {
    /// The run.
    pub run_id: String,
    /// Whether nothing is left to be done.
    pub finished: bool,
    /// Instances that were started.
    pub instances_count: u32,
    /// Instances that did not start, or could not be removed.
    pub failed_count: u32,
    /// Records of probes that found no room.
    pub lost_events_count: u64,
    /// Every step of every cell.
    pub cells: Vec<CellSummary>,
}

/// A step of a cell over all its instances.
#[derive(Debug, Serialize)]
pub struct CellSummary {
    /// Name of the experiment.
    pub experiment: String,
    /// Variant of the experiment.
    pub variant: String,
    /// Kind of the sandbox.
    pub sandbox: String,
    /// What ran inside.
    pub workload: String,
    /// Whether probes were attached.
    pub probes: bool,
    /// Name of the step.
    pub step: String,
    /// Instances with a value.
    pub instances_count: u32,
    /// Instances on which the step failed: a request was answered otherwise than with status 200, or not at all. Those with a good answer
    /// have a value nevertheless, and are in both counts.
    pub failed_count: u32,
    /// Good answers on all instances.
    pub good_count: u64,
    /// Requests on all instances that were answered otherwise, not at all, or never sent though due.
    pub bad_count: u64,
    /// Instances whose value is far from the others.
    pub outliers_count: u32,
    /// Median of times, and the ends of its 95 % confidence interval.
    pub median_ns: Option<u64>,
    /// See `median_ns`.
    pub low_ns: Option<u64>,
    /// See `median_ns`.
    pub high_ns: Option<u64>,
    /// Median of sizes, and the ends of its 95 % confidence interval.
    pub median_bytes: Option<u64>,
    /// See `median_bytes`.
    pub low_bytes: Option<u64>,
    /// See `median_bytes`.
    pub high_bytes: Option<u64>,
}

impl SuiteSummary {
    pub(super) fn of(run_id: &str, plan: &Plan, gathered: &AllGathered, seed: u64, outcome: &Outcome) -> Self {
        Self {
            run_id: run_id.to_owned(),
            finished: outcome.finished_at_unix_ns.is_some(),
            instances_count: outcome.instances_count,
            failed_count: outcome.failed_count,
            lost_events_count: outcome.lost_events_count,
            cells: summaries(plan, gathered, seed),
        }
    }
}

fn summaries(plan: &Plan, gathered: &AllGathered, seed: u64) -> Vec<CellSummary> {
    let keys = plan.cells.iter().map(super::Cell::key);
    let found = keys.filter_map(|key| gathered.get(&key).map(|gathered| (key, gathered)));
    found.flat_map(|(key, gathered)| of_cell(&key, gathered, seed)).collect()
}

fn of_cell(key: &CellKey, gathered: &Gathered, seed: u64) -> Vec<CellSummary> {
    let mut rows: Vec<_> = gathered
        .steps()
        .map(|(step, values)| {
            let good = per_repetition(values);
            let interval = median_interval(&good, seed);
            let have = values.iter().filter(|value| value.value.is_some()).count() as u32;
            let unit = values.iter().find_map(|value| value.value);
            let figure = |number: Option<f64>| Some(unit?.with(number? as u64));
            let middle = figure(median(&good));
            let (low, high) = (figure(interval.map(|found| found.low)), figure(interval.map(|found| found.high)));
            let summary = CellSummary {
                experiment: key.experiment.clone(),
                variant: key.variant.clone(),
                sandbox: key.sandbox.clone(),
                workload: key.workload.clone(),
                probes: key.probes,
                step: step.to_owned(),
                instances_count: have,
                failed_count: values.iter().filter(|value| value.answers.failed).count() as u32,
                good_count: values.iter().map(|value| value.answers.good).sum(),
                bad_count: values.iter().map(|value| value.answers.bad).sum(),
                outliers_count: outliers(values).len() as u32,
                median_ns: middle.and_then(Figure::ns),
                low_ns: low.and_then(Figure::ns),
                high_ns: high.and_then(Figure::ns),
                median_bytes: middle.and_then(Figure::bytes),
                low_bytes: low.and_then(Figure::bytes),
                high_bytes: high.and_then(Figure::bytes),
            };
            (values.first().map_or(0, |value| value.step), summary)
        })
        .collect();
    rows.sort_by_key(|(position, _)| *position);
    rows.into_iter().map(|(_, summary)| summary).collect()
}

/// The rows about the cells of a finished suite.
pub(super) fn cell_rows(plan: &Plan, gathered: &AllGathered, seed: u64) -> Vec<tables::Cell> {
    let row = |cell: CellSummary| tables::Cell {
        experiment: cell.experiment,
        variant: cell.variant,
        sandbox: cell.sandbox,
        workload: cell.workload,
        probes: cell.probes,
        name: cell.step,
        instances_count: cell.instances_count,
        failed_count: cell.failed_count,
        good_count: Some(cell.good_count),
        bad_count: Some(cell.bad_count),
        outliers_count: cell.outliers_count,
        median_ns: cell.median_ns,
        low_ns: cell.low_ns,
        high_ns: cell.high_ns,
        median_bytes: cell.median_bytes,
        low_bytes: cell.low_bytes,
        high_bytes: cell.high_bytes,
    };
    summaries(plan, gathered, seed).into_iter().map(row).collect()
}

/// The rows about values that are far from the others of their cell, with their instances.
pub(super) fn outlier_rows(gathered: &AllGathered) -> Vec<(String, tables::Outlier)> {
    let steps = gathered.values().flat_map(Gathered::steps);
    steps.flat_map(|(_, values)| outliers(values)).collect()
}

/// Fewer values have no shape that one of them could be out of.
const LEAST_VALUES: usize = 5;

/// Values outside of the quartiles by more than three times their distance (Tukey 1977, "far out").
fn outliers(values: &[Value]) -> Vec<(String, tables::Outlier)> {
    let good: Vec<f64> = values.iter().filter_map(|value| value.value).map(|figure| figure.number() as f64).collect();
    let (Some(lower), Some(upper)) = (quantile(&good, 0.25), quantile(&good, 0.75)) else { return Vec::new() };
    if good.len() < LEAST_VALUES {
        return Vec::new();
    }
    let reach = 3.0 * (upper - lower);
    let (low, high) = (lower - reach, upper + reach);
    let outside = values.iter().filter_map(|value| {
        let found = value.value.filter(|figure| !(low..=high).contains(&(figure.number() as f64)))?;
        let is_time = found.ns().is_some();
        let (time, size) = (|end: f64| is_time.then_some(end as i64), |end: f64| (!is_time).then_some(end as i64));
        let row = tables::Outlier {
            step: value.step,
            value_ns: found.ns(),
            low_ns: time(low),
            high_ns: time(high),
            value_bytes: found.bytes(),
            low_bytes: size(low),
            high_bytes: size(high),
        };
        Some((value.instance.clone(), row))
    });
    outside.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::suite::gathered::Answers;

    fn summary(answers: &[(Option<u64>, Answers)]) -> CellSummary {
        let mut gathered = Gathered::default();
        for (repetition, &(value_ns, answers)) in (0..).zip(answers) {
            gathered.add_step(&format!("i{repetition}"), repetition, 1, "closed-8", value_ns.map(Figure::Ns), answers);
        }
        let name = || "x".to_owned();
        let key = CellKey { experiment: name(), variant: name(), sandbox: name(), workload: name(), probes: false };
        let [cell]: [CellSummary; 1] = of_cell(&key, &gathered, 1).try_into().unwrap();
        cell
    }

    #[test]
    fn a_step_with_a_bad_answer_has_failed_and_has_its_value_nevertheless() {
        let good = Answers { good: 100, bad: 0, failed: false };
        let some_bad = Answers { good: 80, bad: 20, failed: true };
        let cell = summary(&[(Some(5), good), (Some(7), some_bad)]);
        assert_eq!((cell.instances_count, cell.failed_count), (2, 1));
        assert_eq!((cell.good_count, cell.bad_count, cell.median_ns), (180, 20, Some(6)));
    }

    #[test]
    fn a_step_without_a_good_answer_has_failed_and_has_no_value() {
        let all_bad = Answers { good: 0, bad: 9, failed: true };
        let cell = summary(&[(None, all_bad), (None, Answers::NONE)]);
        assert_eq!((cell.instances_count, cell.failed_count, cell.bad_count, cell.median_ns), (0, 2, 9, None));
    }

    #[test]
    fn what_was_asked_of_nobody_has_not_failed() {
        let cell = summary(&[(Some(5), Answers::default())]);
        assert_eq!((cell.failed_count, cell.good_count + cell.bad_count), (0, 0));
    }

    #[test]
    fn what_is_far_out_is_marked_and_nothing_else() {
        let value = |(number, value_ns): (u32, u64)| Value {
            instance: format!("i{number}"),
            repetition: number,
            step: 2,
            value: Some(Figure::Ns(value_ns)),
            answers: Answers::default(),
        };
        let values: Vec<_> = (0..).zip([100, 101, 102, 103, 104, 105, 130]).map(value).collect();
        let found = outliers(&values);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0.as_str(), found[0].1.value_ns, found[0].1.step), ("i6", Some(130), 2));
        assert!(outliers(&values[..6]).is_empty());
        assert!(outliers(&values[3..]).is_empty(), "too few to tell");
    }
}
