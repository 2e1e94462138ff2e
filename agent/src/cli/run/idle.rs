//! `sandscope run idle`: what sandboxes cost when nothing is asked of them.

use super::{Bar, Common, Setting, condition, end, seconds};
use crate::{
    cli::BadRequest,
    experiment::{
        Guests,
        idle::{Idle, Watching},
    },
    probe::{Aggregate, Limits},
    report::window::IdleReport,
    steady::GuestSymbols,
};
use anyhow::Result;
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Conditions of the experiment.
#[derive(clap::Args)]
pub(crate) struct IdleArguments {
    #[command(flatten)]
    common: Common,
    /// Instances of each kind.
    #[arg(short = 'n', long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    instances: u32,
    /// Seconds for which each instance is watched.
    #[arg(long, default_value_t = 30.0, value_parser = seconds, allow_negative_numbers = true)]
    window: f64,
    /// Seconds from the first response to the window.
    #[arg(long, default_value_t = 5.0, value_parser = seconds, allow_negative_numbers = true)]
    settle: f64,
    /// Symbols of the guests' kernel, an ELF file or a table such as System.map, for the addresses at which vCPUs leave it;
    /// without it those that are kept beside the guests' images.
    #[arg(long, value_name = "FILE")]
    guest_symbols: Option<PathBuf>,
}

/// Runs it.
pub(super) async fn execute(arguments: &IdleArguments) -> Result<ExitCode> {
    let IdleArguments { common, instances, window, settle, guest_symbols } = arguments;
    common.check()?;
    let bad = |error: anyhow::Error| BadRequest(format!("{error:#}"));
    let given = guest_symbols.as_deref().map(GuestSymbols::read).transpose().map_err(bad)?;
    let mut aggregate = Aggregate::load(Limits::default()).map_err(|error| {
        BadRequest(format!("{error}: nothing can be counted without; `sandscope doctor` says more"))
    })?;
    let missing = aggregate.missing().iter().map(|missing| (missing.to_string(), missing.reason.clone())).collect();
    let conditions = [condition("instances", instances), condition("window_s", window), condition("settle_s", settle)];
    let Setting { sandboxes, workload, seed, mut manifest, dataset, run_directory, mut stage } =
        Setting::new("idle", common, (None, missing), conditions).await?;
    manifest.probes.available = true;
    let guests = match given {
        Some(given) => Guests::Given(given),
        None => Guests::kept(&sandboxes).map_err(bad)?,
    };
    let experiment = Idle {
        sandboxes,
        workload,
        cache: common.cache,
        watching: Watching { settle: Duration::from_secs_f64(*settle), window: Duration::from_secs_f64(*window) },
        instances: *instances,
        seed,
        guests,
    };
    let mut bar = Bar::new(experiment.total());
    let outcome = experiment.run(&mut stage, &mut aggregate, &run_directory, dataset, &manifest, &mut bar).await;
    bar.bar.finish_and_clear();
    let summary = outcome?;
    let failed = summary.sandboxes.iter().any(|sandbox| sandbox.failed_count > 0);
    common.show(&summary, &IdleReport(&summary), &summary.run_id, &stage).await?;
    end(&stage, failed)
}
