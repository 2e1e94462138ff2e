//! `sandscope doctor`: prints the examination of the host.

use super::print;
use crate::doctor::{Examination, examine};
use anyhow::Result;
use std::{fmt::Write, process::ExitCode};

/// How to print it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// Examines the host; the exit code tells whether the main job can be done.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let examination = examine();
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&examination)?))?;
    } else {
        print(&table(&examination)?)?;
    }
    Ok(if examination.main_job { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(examination: &Examination) -> Result<String> {
    let width = examination.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for feature in &examination.features {
        let support = &feature.support;
        writeln!(text, "{:width$}  {:11}  {}", feature.name, support.verdict(), support.evidence())?;
        if let Some(remedy) = support.remedy() {
            writeln!(text, "{:width$}  {:11}  → {remedy}", "", "")?;
        }
    }
    text.push_str(if examination.main_job {
        "\nThis host can profile cold starts.\n"
    } else {
        "\nThis host can't profile cold starts: see what is unsupported above.\n"
    });
    Ok(text)
}
