//! What sandboxes cost in the windows in which they were watched (`run idle`, `attach`), and what woke them.

use super::figures::median_of;
use crate::{
    record::tables::{Wakeup, Window},
    report::units::{duration, percent},
    results::{Error, Of, Rows, Run},
};
use maud::{Markup, html};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Causes of wake-ups that are shown of each target.
const CAUSES: usize = 6;

/// The section; nothing where nothing was watched.
pub(super) fn section(run: &Run) -> Result<Option<Markup>, Error> {
    let Some(windows) = run.observed::<Window>()?.filter(|windows| !windows.rows.is_empty()) else { return Ok(None) };
    let (seed, wakeups) = (run.row()?.seed, run.observed::<Wakeup>()?);
    let mut targets: BTreeMap<&str, Vec<&Of<Window>>> = BTreeMap::new();
    for window in &windows.rows {
        targets.entry(&window.target).or_default().push(window);
    }
    let per_s = |value: u64, window: &Window| value as f64 / (window.span_ns.max(1) as f64 / 1e9);
    Ok(Some(html! {
        section {
            h2 { "What it costs when it is left alone" }
            p.quiet { "Medians over the windows with their 95 % intervals. The cost is that of its threads, of the interrupts and "
                    "timers that wake them, and of kernel threads that work for it alone." }
            div.wide { table {
                tr { th { "sandbox" } th.number { "windows" } th.number { "length" } th.number { "cost, % of one CPU" }
                    th.number { "wake-ups per second" } th.number { "CPU time per second" } }
                @for (target, windows) in &targets {
                    @let of = |value: &dyn Fn(&Window) -> f64| windows.iter().map(|window| value(window)).collect::<Vec<f64>>();
                    tr {
                        td { (target) }
                        td.number { (windows.len()) }
                        td.number { (median_of(&of(&|window| window.span_ns as f64), seed, duration)) }
                        td.number { (median_of(&of(&|window| window.cost_ratio), seed, percent)) }
                        td.number { (median_of(&of(&|window| per_s(window.wakeups_count, window)), seed, |rate| format!("{rate:.1}"))) }
                        td.number { (median_of(&of(&|window| per_s(window.cpu_ns, window)), seed, duration)) }
                    }
                }
            } }
            @if let Some(wakeups) = wakeups { (causes(&targets, &wakeups)) }
            @for (target, windows) in &targets {
                @let lost: u64 = windows.iter().map(|window| window.unrecorded_count).sum();
                @if lost > 0 { p { (target) ": " (lost) " events found no room and are missing in these figures." } }
            }
        }
    }))
}

/// What woke each target most often.
fn causes(targets: &BTreeMap<&str, Vec<&Of<Window>>>, wakeups: &Rc<Rows<Wakeup>>) -> Markup {
    let of_target = |windows: &[&Of<Window>]| {
        let instances: BTreeSet<&str> = windows.iter().map(|window| window.instance_id.as_str()).collect();
        let seconds: f64 = windows.iter().map(|window| window.span_ns as f64 / 1e9).sum();
        let mut sums: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for row in wakeups.rows.iter().filter(|row| instances.contains(row.instance_id.as_str())) {
            let by = row.waker.as_deref().or(row.detail.as_deref()).unwrap_or_default();
            *sums.entry((&row.role, &row.cause, by)).or_default() += row.count;
        }
        let mut sums: Vec<_> = sums.into_iter().map(|(what, count)| (count as f64 / seconds.max(1e-9), what)).collect();
        sums.sort_by(|one, other| other.0.total_cmp(&one.0));
        sums.truncate(CAUSES);
        sums
    };
    html! {
        details open {
            summary { "What wakes it: the " (CAUSES) " most frequent causes of each, means over all windows" }
            div.wide { table {
                tr { th { "sandbox" } th.number { "per second" } th { "who is woken" } th { "by" } th { "which" } }
                @for (target, windows) in targets {
                    @for (rate, (role, cause, by)) in of_target(windows) {
                        tr { td { (target) } td.number { (format!("{rate:.1}")) } td { (role) } td { (cause) } td { (by) } }
                    }
                }
            } }
        }
    }
}
