//! The steps of a suite: how long each took in each sandbox, and the latencies of its loads.

use super::figures::{median_of, with_interval};
use crate::{
    record::tables::{Cell, Instance, Latency, Step},
    report::units::{duration, size},
    results::{Error, Run},
};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The section; nothing where the run had no steps.
pub(super) fn section(run: &Run) -> Result<Option<Markup>, Error> {
    let (cells, loads) = (run.observed::<Cell>()?, loads(run)?);
    if cells.is_none() && loads.is_none() {
        return Ok(None);
    }
    Ok(Some(html! {
        section {
            h2 { "Steps" }
            @if let Some(cells) = &cells { (steps(cells.rows.iter().map(|of| &of.row))) }
            @else { p { "Not finished: the medians of the steps are written at the end." } }
            @if let Some(loads) = loads { (loads) }
        }
    }))
}

fn steps<'a>(cells: impl Iterator<Item = &'a Cell>) -> Markup {
    let median = |cell: &Cell| {
        let times = [cell.median_ns, cell.low_ns, cell.high_ns];
        let sizes = [cell.median_bytes, cell.low_bytes, cell.high_bytes];
        let (figures, show): (_, fn(f64) -> String) =
            if times[0].is_some() { (times, duration) } else { (sizes, size) };
        let [median, low, high] = figures.map(|figure| figure.map(|figure| figure as f64));
        median.map_or_else(|| html! { "–" }, |median| with_interval(median, low.zip(high), show))
    };
    html! {
        p.quiet { "Median over the instances with its 95 % interval: of requests and of loads at a constant rate the latency, of other "
                "loads the time per good answer, of the start the time to the first response, when nothing was asked the CPU time per second, and of "
                    "memory the PSS." }
        div.wide { table {
            tr { th { "sandbox" } th { "experiment" } th { "workload" } th { "step" } th { "probes" } th.number { "median" }
                th.number { "instances" } th.number { "failed" } th.number { "bad answers" }
                th.number { "outliers" } }
            @for cell in cells {
                tr {
                    td { (cell.sandbox) } td { (experiment(&cell.experiment, &cell.variant)) } td { (cell.workload) } td { (cell.name) }
                    td { @if cell.probes { "with" } @else { "without" } }
                    td.number { (median(cell)) } td.number { (cell.instances_count) } td.number { (cell.failed_count) }
                    td.number { (bad(cell.good_count.zip(cell.bad_count))) } td.number { (cell.outliers_count) }
                }
            }
        } }
    }
}

/// Bad answers among all; nothing where none is.
fn bad(answers: Option<(u64, u64)>) -> String {
    match answers {
        None => "–".to_owned(),
        Some((_, 0)) => "0".to_owned(),
        Some((good, bad)) => format!("{bad} of {}", good + bad),
    }
}

fn experiment(name: &str, variant: &str) -> String {
    if variant.is_empty() { name.to_owned() } else { format!("{name}/{variant}") }
}

/// What instances have in common whose loads are summed up; in the order in which it is shown.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Load<'a> {
    sandbox: &'a str,
    experiment: String,
    workload: &'a str,
    step: u32,
    name: &'a str,
    probes: bool,
}

/// The latencies of loads; nothing where there was none.
fn loads(run: &Run) -> Result<Option<Markup>, Error> {
    let (Some(latencies), Some(steps), Some(instances)) =
        (run.observed::<Latency>()?, run.observed::<Step>()?, run.observed::<Instance>()?)
    else {
        return Ok(None);
    };
    let about: BTreeMap<&str, &Instance> =
        instances.rows.iter().map(|row| (row.instance_id.as_str(), &row.row)).collect();
    let of_steps: BTreeMap<(&str, u32), &Step> =
        steps.rows.iter().map(|row| ((row.instance_id.as_str(), row.step), &row.row)).collect();
    let mut groups: BTreeMap<Load, Vec<(&Latency, &Step)>> = BTreeMap::new();
    for row in &latencies.rows {
        let id = row.instance_id.as_str();
        if let (Some(about), Some(step)) = (about.get(id), of_steps.get(&(id, row.step))) {
            let experiment = experiment(&about.experiment, &about.variant);
            let (sandbox, workload) = (about.sandbox.as_str(), about.workload.as_str());
            let load = Load { sandbox, experiment, workload, step: row.step, name: &step.name, probes: about.probes };
            groups.entry(load).or_default().push((&row.row, step));
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let seed = run.row()?.seed;
    let answers = |rows: &[(&Latency, &Step)]| {
        let bad = |step: &Step| step.bad_count + step.unsent_count;
        rows.iter().fold((0, 0), |(good, all_bad), (_, step)| (good + step.good_count, all_bad + bad(step)))
    };
    let within = |row: &Latency| [row.p50_ns, row.p90_ns, row.p99_ns, row.p999_ns];
    Ok(Some(html! {
        p.quiet { "Latencies of loads: the time within which so many of the good answers came, as the median over the instances with its "
                "95 % interval." }
        div.wide { table {
            tr { th { "sandbox" } th { "experiment" } th { "workload" } th { "step" } th { "probes" } th.number { "good answers" } th.number { "bad answers" }
                @for share in ["50 % within", "90 %", "99 %", "99.9 %"] { th.number { (share) } } }
            @for (load, rows) in &groups {
                tr {
                    td { (load.sandbox) } td { (load.experiment) } td { (load.workload) } td { (load.name) } td { @if load.probes { "with" } @else { "without" } }
                    td.number { (rows.iter().map(|(row, _)| row.count).sum::<u64>()) }
                    td.number { (bad(Some(answers(rows)))) }
                    @for share in 0..4 {
                        td.number { (median_of(&rows.iter().map(|(row, _)| within(row)[share] as f64).collect::<Vec<_>>(), seed, duration)) }
                    }
                }
            }
        } }
    }))
}
