//! A report as one HTML file that needs nothing else: no network, no script, for screen and paper, light and dark.
//!
//! What a guest wrote is in it (errors, names of processes), so every text is escaped by the template, and the page's own policy
//! forbids whatever could act: it may use its inline style and nothing else.

mod bars;
mod figures;
mod histogram;
mod memory;
mod run;
mod suite;
mod windows;

use crate::{
    diagnose::{diagnose_run, rules},
    results::{Error, Results},
};
use maud::{DOCTYPE, PreEscaped, html};

/// Runs that a page can show and still be read.
pub const MOST_RUNS: usize = 20;

/// The policy of the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The report on results as an HTML page.
///
/// # Errors
/// When a file can't be read.
pub fn page(results: &Results) -> Result<String, Error> {
    let mut sections = Vec::new();
    for run in results.runs() {
        sections.push(run::section(run, &diagnose_run(run, rules::all())?)?);
    }
    let title = match results.runs() {
        [run] => format!("sandscope run {}", run.id()),
        runs => format!("sandscope, {} runs", runs.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                @for section in &sections { (section) }
                footer { "Written by sandscope " (env!("CARGO_PKG_VERSION")) ". The figures are those of the Parquet tables." }
            }
        }
    };
    Ok(page.into_string())
}
