//! `sandscope sandboxes`: what can be profiled, and what each needs.

use super::{BadRequest, print};
use crate::{
    config,
    sandbox::{self, Sandbox, Support},
};
use anyhow::Result;
use serde::Serialize;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Which ones, and how to print them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sandscope sandboxes --config experiments/sandboxes.toml
  sandscope sandboxes --json | jq -r '.[] | select(.verdict == \"ok\").name'")]
pub(crate) struct Arguments {
    /// File with definitions of further sandboxes.
    #[arg(long)]
    config: Option<PathBuf>,
    /// For machines.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    about: &'static str,
    #[serde(flatten)]
    support: Support,
}

/// The sandboxes that need no definition, and those that a file defines; a definition takes the place of one of the same name.
pub(crate) fn known(config: Option<&Path>) -> Result<Vec<Box<dyn Sandbox>>> {
    let mut all = sandbox::all();
    if let Some(file) = config {
        let defined = config::sandboxes::sandboxes(file).map_err(|problem| BadRequest(problem.to_string()))?;
        all.retain(|known| defined.iter().all(|defined| defined.name() != known.name()));
        all.extend(defined);
    }
    Ok(all)
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let known = known(arguments.config.as_deref())?;
    let entries: Vec<_> = known
        .iter()
        .map(|sandbox| Entry { name: sandbox.name(), about: sandbox.about(), support: sandbox.support() })
        .collect();
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&entries)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Entry { name, about, support } in &entries {
        writeln!(text, "{name:width$}  {:11}  {about}", support.verdict())?;
        writeln!(text, "{:width$}  {:11}  {}", "", "", support.evidence())?;
        if let Some(remedy) = support.remedy() {
            writeln!(text, "{:width$}  {:11}  → {remedy}", "", "")?;
        }
    }
    let kinds: Vec<_> = sandbox::KINDS.iter().map(|kind| kind.name).collect();
    writeln!(text, "\nKinds for definitions (--config): {}", kinds.join(", "))?;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
