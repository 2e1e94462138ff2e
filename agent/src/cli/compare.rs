//! `sandscope compare`: what became better or worse between two sets of results.

use super::{BadRequest, input::Input, print};
use crate::{
    compare::compare,
    results::{Error, Selection},
};
use anyhow::Result;
use std::process::ExitCode;

/// What to compare, and how to print it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sandscope compare before after
  sandscope compare results@01M89DW8 results@latest --markdown
  sandscope compare before after --fail-on-regression --tolerate 5   # for CI: exit code 1

docs/compare.md says what the columns mean.")]
pub(crate) struct Arguments {
    /// Results of the baseline: a directory or a folder in a bucket, or `DIR@RUN` for one run of it.
    #[arg(value_name = "A[@RUN]")]
    a: Selection,
    /// Results to compare with it.
    #[arg(value_name = "B[@RUN]")]
    b: Selection,
    /// For machines.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// For where changes are discussed.
    #[arg(long)]
    markdown: bool,
    /// Exit with 1 when a primary metric became worse.
    #[arg(long)]
    fail_on_regression: bool,
    /// Per cent by which it may become worse before that.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = per_cent, requires = "fail_on_regression")]
    tolerate: f64,
}

fn per_cent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=10_000.0).contains(&value) => Ok(value),
        _ => Err("a number of per cent from 0 to 10000".to_owned()),
    }
}

/// Compares the results.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let refused = |error: Error| BadRequest(error.to_string());
    let (a, b) = (Input::open(&arguments.a)?, Input::open(&arguments.b)?);
    let comparison = compare(&a, &b).map_err(refused)?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&comparison)?))?;
    } else if arguments.markdown {
        print(&comparison.markdown())?;
    } else {
        print(&comparison.to_string())?;
    }
    let failed = arguments.fail_on_regression && comparison.has_regression(arguments.tolerate / 100.0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
