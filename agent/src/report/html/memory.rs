//! What instances take of the host's memory (`run memory`): what one more costs, and which of its processes have it.

use super::figures::slope_of;
use crate::{
    record::tables::{Instance, Memory, MemoryHost},
    report::units::size,
    results::{Error, Of, Run},
    statistics::slope,
};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The section; nothing where memory was not measured.
pub(super) fn section(run: &Run) -> Result<Option<Markup>, Error> {
    let Some(host) = run.observed::<MemoryHost>()?.filter(|host| !host.rows.is_empty()) else { return Ok(None) };
    let seed = run.row()?.seed;
    let mut sandboxes: BTreeMap<&str, Vec<&MemoryHost>> = BTreeMap::new();
    for row in &host.rows {
        sandboxes.entry(&row.sandbox).or_default().push(row);
    }
    // Without the point at none: what the first takes for all that come after it is not what one more takes.
    let per_instance = |rows: &[&MemoryHost], bytes: fn(&MemoryHost) -> f64| {
        let points: Vec<_> = rows.iter().map(|row| (f64::from(row.instances_count), bytes(row))).collect();
        slope_of(slope(&points, seed), size)
    };
    let first = |rows: &[&MemoryHost], bytes: fn(&MemoryHost) -> f64| {
        rows.iter().find(|row| row.instances_count == 1).map_or_else(|| "–".to_owned(), |row| size(bytes(row)))
    };
    Ok(Some(html! {
        section {
            h2 { "What it takes of the memory" }
            p.quiet { "What one more instance takes when one runs already: the slope over the numbers of instances, with its 95 % "
                    "interval. The first takes what all share besides. PSS counts shared pages by their share; MemAvailable is what "
                    "the host has left, and a check of it: it has what the kernel takes too, and what others took meanwhile." }
            div.wide { table {
                tr { th { "sandbox" } th.number { "instances" } th.number { "PSS of one more" } th.number { "of the first" }
                    th.number { "of MemAvailable, one more" } th.number { "the first" } th.number { "PSS of files, one more" } }
                @for (sandbox, rows) in &sandboxes {
                    tr {
                        td { (sandbox) }
                        td.number { (rows.iter().map(|row| row.instances_count).max().unwrap_or(0)) }
                        td.number { (per_instance(rows, |row| row.pss_bytes as f64)) }
                        td.number { (first(rows, |row| row.pss_bytes as f64)) }
                        td.number { (per_instance(rows, |row| row.lost_bytes as f64)) }
                        td.number { (first(rows, |row| row.lost_bytes as f64)) }
                        td.number { (per_instance(rows, |row| row.pss_file_bytes as f64)) }
                    }
                }
            } }
            (roles(run, &sandboxes)?)
        }
    }))
}

/// Sums over the processes of a role, at the last moment.
#[derive(Default)]
struct Role {
    processes: f64,
    rss_bytes: f64,
    pss_bytes: f64,
    uss_bytes: f64,
}

fn roles(run: &Run, sandboxes: &BTreeMap<&str, Vec<&MemoryHost>>) -> Result<Markup, Error> {
    let (Some(memory), Some(instances)) = (run.observed::<Memory>()?, run.observed::<Instance>()?) else {
        return Ok(html! {});
    };
    let sandbox_of: BTreeMap<&str, &str> =
        instances.rows.iter().map(|row| (row.instance_id.as_str(), row.sandbox.as_str())).collect();
    let of_sandbox = |sandbox: &str, rows: &[&MemoryHost]| {
        let last = rows.iter().map(|row| row.instances_count).max().unwrap_or(0);
        let mut roles: BTreeMap<String, Role> = BTreeMap::new();
        let is = |row: &&Of<Memory>| {
            row.instances_count == last && sandbox_of.get(row.instance_id.as_str()) == Some(&sandbox)
        };
        let share = 1.0 / f64::from(last.max(1));
        for row in memory.rows.iter().filter(is) {
            let role = roles.entry(row.role.clone()).or_default();
            role.processes += share;
            role.rss_bytes += row.rss_bytes as f64 * share;
            role.pss_bytes += row.pss_bytes as f64 * share;
            role.uss_bytes += row.uss_bytes as f64 * share;
        }
        let mut roles: Vec<_> = roles.into_iter().collect();
        roles.sort_by(|one, other| other.1.pss_bytes.total_cmp(&one.1.pss_bytes));
        roles
    };
    Ok(html! {
        details open {
            summary { "Which processes have it: means per instance when the most of them ran" }
            div.wide { table {
                tr { th { "sandbox" } th { "role" } th.number { "processes" } th.number { "RSS" } th.number { "PSS" } th.number { "USS" } }
                @for (sandbox, rows) in sandboxes {
                    @for (name, role) in of_sandbox(sandbox, rows) {
                        tr {
                            td { (sandbox) } td { (name) } td.number { (format!("{:.1}", role.processes)) }
                            @for bytes in [role.rss_bytes, role.pss_bytes, role.uss_bytes] { td.number { (size(bytes)) } }
                        }
                    }
                }
            } }
        }
    })
}
