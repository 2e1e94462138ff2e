//! The part of the page about one run.

use super::{
    bars::{Colours, Part, stacked},
    histogram::{Sample, histogram},
    memory, suite, windows,
};
use crate::{
    diagnose::{Case, Difference, Finding, Group, RunDiagnosis},
    experiment::{SandboxSummary, Summary},
    record::tables::{self, EventCount},
    report::units::{counted, duration, percent},
    results::{Error, Run},
};
use chrono::DateTime;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Lines of an account that are shown.
const LINES: usize = 12;
/// Pieces of evidence of a finding that are shown.
const EVIDENCE: usize = 6;
/// Characters of a text that may be a guest's.
const TEXT: usize = 600;

/// Everything about a run.
pub(super) fn section(run: &Run, diagnosis: &RunDiagnosis) -> Result<Markup, Error> {
    let case = Case::of(run)?;
    let summary = Summary::of_run(run)?;
    let mut colours = (Colours::default(), Colours::default());
    let sandboxes: Vec<Markup> = summary
        .sandboxes
        .iter()
        .map(|sandbox| sandbox_section(&case, sandbox, &mut colours))
        .collect::<Result<_, _>>()?;
    let lost = lost(run)?;
    let further = [suite::section(run)?, windows::section(run)?, memory::section(run)?];
    Ok(html! {
        header {
            h1 { (case.about().experiment) " " span.quiet { (run.id()) } }
            (about(case.about()))
        }
        section { h2 { "Findings" } (findings(diagnosis)) }
        section { h2 { "Summary" } (table(&summary)) }
        @for section in further.iter().flatten() { (section) }
        @if !sandboxes.is_empty() {
            section { h2 { "Where the time goes" } @for sandbox in &sandboxes { (sandbox) } }
        }
        @if !diagnosis.differences.is_empty() {
            section { h2 { "Why some take longer" } (differences(&diagnosis.differences)) }
        }
        section { h2 { "Lost events" } (lost) }
        section {
            h2 { "Manifest" }
            details { summary { "Everything known about host, tools and conditions" } pre { (manifest(case.about())) } }
        }
    })
}

fn about(run: &tables::Run) -> Markup {
    let ended = match run.finished_at_unix_ns {
        Some(end) => format!("took {}", duration(end.saturating_sub(run.started_at_unix_ns) as f64)),
        None => "not finished: it still goes on, was interrupted or was killed".to_owned(),
    };
    let cpus = run.cpus_count.map_or_else(String::new, |cpus| format!("{cpus} × "));
    html! {
        dl {
            dt { "Started" } dd { (date(run.started_at_unix_ns)) ", " (ended) }
            dt { "Host" } dd { (run.host_name) ", Linux " (run.kernel_release) " on " (run.architecture) ", " (cpus)
                (run.cpu_model.as_deref().unwrap_or("CPUs of an unknown model")) }
            dt { "Command" } dd { code { (run.command_line) } }
            dt { "Probes" } dd {
                @if !run.probes_available { "none: times are measured, not explained" }
                @else if let Some(missing) = &run.probes_missing { "all but " (short(missing)) }
                @else { "all" }
            }
        }
    }
}

fn findings(diagnosis: &RunDiagnosis) -> Markup {
    html! {
        @for finding in &diagnosis.findings { (one_finding(finding)) }
        p.quiet {
            (diagnosis.findings.len()) " found by " (counted(diagnosis.examined.len(), "rule")) "."
            @for lacking in &diagnosis.not_examined {
                " The rule " (lacking.rule) " can’t tell: " (lacking.reason) "."
            }
        }
    }
}

fn one_finding(finding: &Finding) -> Markup {
    html! {
        div class={ "finding " (finding.weight.name()) } {
            p { b.weight { (finding.subject) } " " span.quiet { (finding.weight.name()) " · " (finding.rule) } }
            p { (short(&finding.text)) "." }
            table {
                @for row in finding.evidence.iter().take(EVIDENCE) {
                    tr { td.number { (short(&row.value.to_string())) } td { code { (row.table) } } td { (short(&row.key)) } }
                }
            }
            p { "→ " (short(&finding.next_step)) }
        }
    }
}

fn table(summary: &Summary) -> Markup {
    html! {
        p.quiet { "From launch to first good response: median, and the values that 5 % and 95 % of the instances lie below." }
        div.wide { table {
            tr {
                th { "sandbox" } th.number { "median" } th.number { "5 %" } th.number { "95 %" } th { "measured" }
                th { "observer effect" } th.number { "unexplained" } th.number { "ok" } th.number { "failed" }
            }
            @for sandbox in &summary.sandboxes {
                tr {
                    td { (sandbox.sandbox) }
                    @for value in [sandbox.wall_median_ns, sandbox.wall_p5_ns, sandbox.wall_p95_ns] {
                        td.number { (value.map_or_else(|| "–".to_owned(), duration)) }
                    }
                    td { @if sandbox.wall_without_probes { "without probes" } @else { "with probes" } }
                    td { (observer_effect(sandbox)) }
                    td.number { (sandbox.worst_unattributed_ratio.map_or_else(|| "–".to_owned(), percent)) }
                    td.number { (sandbox.ok_count) }
                    td.number { (sandbox.failed_count) }
                }
            }
        } }
    }
}

fn observer_effect(sandbox: &SandboxSummary) -> String {
    let Some(effect) = &sandbox.observer_effect else { return "not measured".to_owned() };
    let signed = |ratio: f64| format!("{:+.1}", ratio * 100.0);
    format!("{} % ({} to {})", signed(effect.difference_ratio), signed(effect.low_ratio), signed(effect.high_ratio))
}

fn sandbox_section(
    case: &Case,
    sandbox: &SandboxSummary,
    (phase_colours, category_colours): &mut (Colours, Colours),
) -> Result<Markup, Error> {
    // A sandbox has its own name where it is there once, see `Summary::of_run`.
    let is = |group: &&Group| sandbox.sandbox == group.subject() || sandbox.sandbox == group.sandbox;
    let groups: Vec<&Group> = case.groups().iter().filter(is).collect();
    let walls = |probes: bool| groups.iter().flat_map(|group| group.walls(probes)).collect();
    let samples =
        [Sample { name: "without probes", values: walls(false) }, Sample { name: "with probes", values: walls(true) }];
    let phases: Vec<_> =
        sandbox.phases.iter().map(|(name, time_ns)| Part { name: name.clone(), time_ns: *time_ns }).collect();
    let account = account(case, &groups)?;
    Ok(html! {
        div.sandbox {
            h3 { (sandbox.sandbox) }
            @if let Some(error) = &sandbox.first_error { p { "First failure: " (short(error)) } }
            @if !phases.is_empty() {
                p.quiet { "Phases, mean of the explained instances" }
                (stacked(&format!("phases of {}", sandbox.sandbox), &phases, phase_colours))
            }
            @if let Some((categories, lines)) = &account {
                p.quiet { "What the time was spent on" }
                (stacked(&format!("account of {}", sandbox.sandbox), categories, category_colours))
                details {
                    summary { "The " (lines.len().min(LINES)) " largest lines of the account" }
                    table {
                        tr { th.number { "share" } th.number { "time" } th { "who" } th { "what" } }
                        @for (share, time_ns, who) in lines.iter().take(LINES) {
                            tr {
                                td.number { (percent(*share)) } td.number { (duration(*time_ns)) } td { (who.role.as_deref().unwrap_or_default()) }
                                td { (short(&who.what())) }
                            }
                        }
                    }
                }
            }
            @if samples.iter().any(|sample| !sample.values.is_empty()) {
                p.quiet { "Time to the first response; the dashed line is the median" }
                (histogram(&format!("starts of {}", sandbox.sandbox), &samples))
            }
        }
    })
}

/// Lines of an account: share, mean per instance, and what.
type Lines = Vec<(f64, f64, crate::results::PathElement)>;

/// Time by category, and line by line; nothing where nothing was explained.
fn account(case: &Case, groups: &[&Group]) -> Result<Option<(Vec<Part>, Lines)>, Error> {
    let (mut sums, mut instances) = (BTreeMap::new(), 0.0);
    for group in groups {
        match case.path(group) {
            Ok(Some(path)) => {
                instances += path.starts as f64;
                for part in path.parts {
                    *sums.entry(part.element).or_insert(0.0) += part.mean_ns * path.starts as f64;
                }
            }
            Ok(None) => {}
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let whole: f64 = sums.values().sum();
    if whole == 0.0 {
        return Ok(None);
    }
    let mut categories: BTreeMap<String, f64> = BTreeMap::new();
    for (who, time_ns) in &sums {
        *categories.entry(who.category.clone()).or_default() += time_ns / instances;
    }
    let mut parts: Vec<_> = categories.into_iter().map(|(name, time_ns)| Part { name, time_ns }).collect();
    parts.sort_by(|one, other| other.time_ns.total_cmp(&one.time_ns));
    let mut lines: Lines = sums.into_iter().map(|(who, ns)| (ns / whole, ns / instances, who)).collect();
    lines.sort_by(|one, other| other.0.total_cmp(&one.0));
    Ok(Some((parts, lines)))
}

fn lost(run: &Run) -> Result<Markup, Error> {
    let Some(events) = run.observed::<EventCount>()? else { return Ok(html! { p { "Not recorded." } }) };
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in &events.rows {
        let sum = kinds.entry(&row.kind).or_default();
        sum.0 += row.seen_count;
        sum.1 += row.lost_count;
    }
    let (seen, lost) = kinds.values().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
    Ok(html! {
        @if lost == 0 { p { "None of " (counted(seen, "record")) " was lost." } }
        @else {
            p { (lost) " of " (counted(seen, "record")) " found no room: the accounts of the instances concerned have gaps." }
            table {
                tr { th { "record" } th.number { "written" } th.number { "lost" } }
                @for (kind, (seen, lost)) in kinds.iter().filter(|(_, sum)| sum.1 > 0) {
                    tr { td { (kind) } td.number { (seen) } td.number { (lost) } }
                }
            }
        }
    })
}

/// What makes slower sandboxes slower than the fastest.
fn differences(differences: &[Difference]) -> Markup {
    let signed = |ns: f64| format!("{}{}", if ns < 0.0 { "−" } else { "+" }, duration(ns.abs()));
    html! {
        @for difference in differences {
            details {
                summary { (difference.subject) ": " (signed(difference.difference_ns)) " to " (difference.than) }
                table {
                    @for line in &difference.lines {
                        tr {
                            td.number { (signed(line.difference_ns)) }
                            td { (line.role.as_deref().unwrap_or_default()) }
                            td { (line.what) }
                        }
                    }
                    tr { td.number { (signed(difference.rest_ns)) } td {} td { "all else" } }
                }
            }
        }
    }
}

/// The manifest, line by line.
fn manifest(run: &tables::Run) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(&run.manifest_json).ok();
    value.map_or_else(|| run.manifest_json.clone(), |value| format!("{value:#}"))
}

/// The text, if it is not too long.
fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An instant as `2026-01-31 12:30 UTC`.
fn date(unix_ns: i64) -> String {
    DateTime::from_timestamp_nanos(unix_ns).format("%Y-%m-%d %H:%M UTC").to_string()
}
