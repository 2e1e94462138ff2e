//! `sandscope explain`: findings in plain words from results.

use super::{BadRequest, input::Input, print};
use crate::{diagnose::diagnose, results::Selection};
use anyhow::Result;
use std::process::ExitCode;

/// What to explain, and how to print it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sandscope explain results
  sandscope explain results@latest --json | jq '.runs[].findings[] | {rule, text}'")]
pub(crate) struct Arguments {
    /// Directory of results, or a folder in a bucket; `DIR@RUN` for one run, by the beginning of its identifier or `latest`.
    #[arg(value_name = "DIR[@RUN]")]
    results: Selection,
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// Examines the results by all rules.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let refused = |error: crate::results::Error| BadRequest(error.to_string());
    let results = Input::open(&arguments.results)?;
    let diagnosis = diagnose(&results).map_err(refused)?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&diagnosis)?))?;
    } else {
        print(&diagnosis.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
