//! `sandscope report`: results as one HTML page.

use super::{BadRequest, input::Input, print};
use crate::{
    report::html::{MOST_RUNS, page},
    results::{Error, Selection},
};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf, process::ExitCode};

/// What to report on, and where to.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sandscope report results@latest --out report.html
  sandscope report results@01M89DW8 | ssh host 'cat > report.html'")]
pub(crate) struct Arguments {
    /// Directory of results, or a folder in a bucket; `DIR@RUN` for one run, by the beginning of its identifier or `latest`.
    #[arg(value_name = "DIR[@RUN]")]
    results: Selection,
    /// File of the page; it goes to standard output without it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the page.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let refused = |error: Error| BadRequest(error.to_string());
    let results = Input::open(&arguments.results)?;
    let count = results.runs().len();
    if count > MOST_RUNS {
        let latest = results.runs().last().map_or("", |run| run.id());
        let advice = format!("name one, such as {}@{latest}", arguments.results.directory.display());
        return Err(
            BadRequest(format!("a report shows at most {MOST_RUNS} runs, and there are {count}: {advice}")).into()
        );
    }
    let page = page(&results).map_err(refused)?;
    match &arguments.out {
        Some(file) => {
            fs::write(file, page).with_context(|| format!("can't write {}", file.display()))?;
            eprintln!("Report: {}", file.display());
        }
        None => print(&page)?,
    }
    Ok(ExitCode::SUCCESS)
}
