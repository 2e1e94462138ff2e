//! A comparison as people read it: on a terminal, and as Markdown for where changes are discussed.

use super::{Changed, Comparison, ElementDifference, PathDifference, Row, SIGNIFICANT, Unit, Verdict};
use crate::{
    printable::printable,
    report::units::{duration, percent, size},
};
use std::fmt::{self, Display, Formatter, Write};

/// Changed conditions that are shown.
const CONDITIONS: usize = 12;

/// Characters of a condition's value that are shown: enough to tell hashes apart.
const VALUE: usize = 24;

/// Part of the median from which the difference of a path is shown.
const PATHS: f64 = 0.05;

/// Columns of the table.
const HEADER: [&str; 9] = ["sandbox", "metric", "A", "B", "difference", "95 % interval", "p", "delta", "verdict"];

impl Comparison {
    /// Rows that are shown: primary ones, and details that differ.
    fn shown(&self, primary: bool) -> impl Iterator<Item = &Row> {
        let differs = |row: &Row| matches!(row.verdict, Verdict::Better | Verdict::Worse);
        self.rows.iter().filter(move |row| row.primary == primary && (primary || differs(row)))
    }

    /// Details that are not shown.
    fn alike(&self) -> usize {
        self.rows.iter().filter(|row| !row.primary).count() - self.shown(false).count()
    }

    /// Paths that differ enough to look at.
    fn shown_paths(&self) -> impl Iterator<Item = &PathDifference> {
        let ratio = |path: &PathDifference| (path.b_median_ns - path.a_median_ns).abs() / path.a_median_ns;
        self.paths.iter().filter(move |path| ratio(path) >= PATHS)
    }

    fn introduction(&self) -> Vec<String> {
        let runs = |runs: &[String]| match runs {
            [run] => format!("run {run}"),
            runs => format!("{} runs", runs.len()),
        };
        let mut lines = vec![format!("A is {}, B is {}.", runs(&self.a_runs), runs(&self.b_runs))];
        let changed = &self.changed_conditions;
        if !changed.is_empty() {
            let shown: Vec<_> = changed.iter().take(CONDITIONS).map(describe).collect();
            let more = changed.len().saturating_sub(CONDITIONS);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            lines.push(format!("Not the same on both sides: {}{more}.", shown.join("; ")));
        }
        lines.extend(self.unpaired.iter().map(|kind| format!("{}.", printable(kind))));
        lines
    }

    fn conclusion(&self) -> Vec<String> {
        let count = |verdict| self.rows.iter().filter(|row| row.primary && row.verdict == verdict).count();
        let verdicts = [Verdict::Worse, Verdict::Better, Verdict::NoDifferenceSeen, Verdict::TooFewSamples];
        let counted = verdicts.map(|verdict| (count(verdict), verdict.name()));
        let counted: Vec<_> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(n, name)| format!("{n} {name}")).collect();
        let differ = if self.conditions_differ() {
            "; conditions differ, so that these tell that figures changed, not that what was compared changed them"
        } else {
            ""
        };
        let verdicts = if counted.is_empty() { "nothing to compare".to_owned() } else { counted.join(", ") };
        let mut lines =
            vec![format!("Primary metrics: {verdicts} (level of significance {}){differ}.", percent(SIGNIFICANT))];
        if self.alike() > 0 {
            lines.push(format!("{} details without a difference are not shown (--json has them).", self.alike()));
        }
        lines
    }
}

impl Display for Comparison {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for line in self.introduction() {
            writeln!(out, "{line}")?;
        }
        for (primary, title) in [(true, "Whether something changed"), (false, "Where")] {
            if self.shown(primary).next().is_none() {
                continue;
            }
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::NOTHING).set_header(HEADER);
            for row in self.shown(primary) {
                table.add_row(cells(row));
            }
            writeln!(out, "\n{title}\n{}", table.trim_fmt())?;
        }
        for difference in self.shown_paths() {
            writeln!(out, "\n{}", path_title(difference))?;
            for [value, words] in path_lines(difference) {
                writeln!(out, "{value:>12}  {words}")?;
            }
        }
        writeln!(out)?;
        self.conclusion().iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

impl Comparison {
    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        for line in self.introduction() {
            let _ = writeln!(text, "{}\n", escape(&line));
        }
        for (primary, title) in [(true, "Whether something changed"), (false, "Where")] {
            if self.shown(primary).next().is_none() {
                continue;
            }
            let rule = HEADER.map(|_| "---").join(" | ");
            let _ = writeln!(text, "### {title}\n\n| {} |\n| {rule} |", HEADER.join(" | "));
            for row in self.shown(primary) {
                let cells: Vec<_> = cells(row).iter().map(|cell| escape(cell)).collect();
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        for difference in self.shown_paths() {
            let _ =
                writeln!(text, "### {}\n\n| difference | element |\n| ---: | --- |", escape(&path_title(difference)));
            for [value, words] in path_lines(difference) {
                let _ = writeln!(text, "| {value} | {} |", escape(&words));
            }
            text.push('\n');
        }
        text + &self.conclusion().join("\n") + "\n"
    }
}

/// What a difference of paths is about.
fn path_title(difference: &PathDifference) -> String {
    let (a, b) = (duration(difference.a_median_ns), duration(difference.b_median_ns));
    format!("Critical path of {}, median of starts with probes: {a} → {b}", printable(&difference.subject))
}

/// Its elements and the rest, each with its part of the difference.
fn path_lines(difference: &PathDifference) -> Vec<[String; 2]> {
    let signed = |ns: f64| format!("{}{}", if ns < 0.0 { "−" } else { "+" }, duration(ns.abs()));
    let line = |element: &ElementDifference| [signed(element.difference_ns()), printable(&element.element)];
    let rest = [signed(difference.rest_ns), "all else".to_owned()];
    difference.elements.iter().map(line).chain([rest]).collect()
}

/// Keeps what a sandbox may be called from being Markdown.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '|' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

fn describe(Changed { condition, a, b }: &Changed) -> String {
    let values = |values: &[String]| match values {
        [] => "not written down".to_owned(),
        [value] => printable(&value.chars().take(VALUE).collect::<String>()),
        values => format!("{} values", values.len()),
    };
    format!("{} ({} → {})", printable(condition), values(a), values(b))
}

/// What the table says of a row.
fn cells(row: &Row) -> [String; HEADER.len()] {
    let value = |value: f64| match row.unit {
        Unit::Ns => duration(value),
        Unit::Bytes => size(value),
        Unit::Ratio => percent(value),
        Unit::Count => format!("{value:.0}"),
    };
    let judged = row.judged.as_ref();
    let signed = |ratio: Option<f64>| ratio.map(|ratio| format!("{:+.1} %", ratio * 100.0));
    let none = || "–".to_owned();
    let interval = judged.and_then(|judged| {
        let (low, high) = (judged.low_ratio? * 100.0, judged.high_ratio? * 100.0);
        Some(format!("{low:+.1} to {high:+.1} %"))
    });
    let noise = match judged.and_then(|judged| judged.noise_floor_ratio) {
        Some(floor) if row.verdict == Verdict::NoDifferenceSeen => format!(" (noise ±{})", percent(floor)),
        _ => String::new(),
    };
    [
        printable(&kind(row)),
        printable(&metric(row)),
        value(row.a_center),
        value(row.b_center),
        signed(judged.and_then(|judged| judged.difference_ratio)).unwrap_or_else(none),
        interval.unwrap_or_else(none),
        judged.map_or_else(none, |judged| probability(judged.adjusted_p_value)),
        judged.map_or_else(none, |judged| format!("{:+.2}", judged.cliffs_delta)),
        match row.verdict {
            Verdict::TooFewSamples => format!("{} ({} and {})", row.verdict.name(), row.a_count, row.b_count),
            verdict => format!("{}{noise}", verdict.name()),
        },
    ]
}

/// The kind of the instances, as short as a column of a table needs it.
fn kind(row: &Row) -> String {
    let variant = if row.variant.is_empty() { String::new() } else { format!(" ({})", row.variant) };
    match row.experiment.as_str() {
        "cold-start" => format!("{}/{}{variant}", row.sandbox, row.workload),
        experiment => format!("{}/{} {experiment}{variant}", row.sandbox, row.workload),
    }
}

fn metric(row: &Row) -> String {
    let probes = match row.probes {
        Some(true) => ", with probes",
        Some(false) => ", without probes",
        None => "",
    };
    format!("{} {}{probes}", row.group, row.metric)
}

fn probability(p_value: f64) -> String {
    if p_value < 0.0001 { "<0.0001".to_owned() } else { format!("{p_value:.4}") }
}
