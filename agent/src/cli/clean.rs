//! `sandscope clean`: removes what killed runs have left on the host.

use super::print;
use crate::sandbox::{
    docker,
    run_dir::{Cleaned, clean, default_base},
};
use anyhow::Result;
use std::process::ExitCode;

/// Removes what dead runs have left, and what Docker keeps of sandscope; what a living run owns stays, and with one all that
/// Docker has, which it may be about to use.
pub(crate) fn execute() -> Result<ExitCode> {
    let cleaned = clean(&default_base())?;
    report(&cleaned);
    let swept = if cleaned.living.is_empty() { docker::sweep()? } else { Vec::new() };
    for what in &swept {
        eprintln!("sandscope: removed {what} from Docker");
    }
    if cleaned.removed.is_empty() && cleaned.failures.is_empty() && swept.is_empty() {
        print("nothing to remove\n")?;
    }
    Ok(if cleaned.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says on standard error what was removed and what could not be.
pub(crate) fn report(cleaned: &Cleaned) {
    for run in &cleaned.removed {
        eprintln!("sandscope: removed what the run {run} had left on this host");
    }
    for failure in &cleaned.failures {
        eprintln!("sandscope: {failure}");
    }
}
