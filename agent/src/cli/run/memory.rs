//! `sandscope run memory`: what idle instances take of the memory.

use super::{BadRequest, Bar, Common, Setting, condition, end, seconds};
use crate::{
    experiment::memory::{Memory, Pages, Together},
    measure::memory::ksm::{Counters, MergeAny},
    report::memory::MemoryReport,
};
use anyhow::Result;
use std::{process::ExitCode, time::Duration};

/// Conditions of the experiment.
#[derive(clap::Args)]
pub(crate) struct MemoryArguments {
    #[command(flatten)]
    common: Common,
    /// Instances of each kind that run at the same time in the end.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    instances: u32,
    /// Seconds that instances are left alone before they are measured.
    #[arg(long, default_value_t = 1.0, value_parser = seconds, allow_negative_numbers = true)]
    settle: f64,
    /// Look at the content of all pages in the end: which are equal, which are shared, and why the others are not. The
    /// instances stand still meanwhile.
    #[arg(long)]
    pages: bool,
    /// With --pages, let the instances go on meanwhile: what they change is counted as it was at some moment.
    #[arg(long, requires = "pages")]
    no_pause: bool,
    /// With --pages, then turn the kernel's page merging (KSM) on, follow it until it merges no more, and restore its settings.
    #[arg(long, requires = "pages")]
    ksm: bool,
    /// Seconds that KSM is followed at most.
    #[arg(long, default_value_t = 60.0, value_parser = seconds, allow_negative_numbers = true)]
    ksm_timeout: f64,
}

/// Runs it.
pub(super) async fn execute(arguments: &MemoryArguments) -> Result<ExitCode> {
    let MemoryArguments { common, instances, settle, pages, no_pause, ksm, ksm_timeout } = arguments;
    common.check()?;
    if *ksm {
        // Only to know now whether it can be done.
        let can = Counters::read().and_then(|_| MergeAny::begin());
        drop(can.map_err(|error| BadRequest(format!("--ksm: {error:#}")))?);
    }
    let probes = (None, vec![("all".to_owned(), "this experiment needs none".to_owned())]);
    let conditions = [
        condition("instances", instances),
        condition("settle_s", settle),
        condition("pages", pages),
        condition("paused", !no_pause),
        condition("ksm", ksm),
    ];
    let Setting { sandboxes, workload, seed, manifest, dataset, run_directory, mut stage } =
        Setting::new("memory", common, probes, conditions).await?;
    let merge = ksm.then(|| Duration::from_secs_f64(*ksm_timeout));
    let experiment = Memory {
        sandboxes,
        workload,
        cache: common.cache,
        together: Together {
            instances: *instances,
            settle: Duration::from_secs_f64(*settle),
            pages: pages.then_some(Pages { hold: !no_pause, merge }),
        },
        seed,
    };
    let mut bar = Bar::new(experiment.total());
    let outcome = experiment.run(&mut stage, &run_directory, dataset, &manifest, &mut bar).await;
    bar.bar.finish_and_clear();
    let summary = outcome?;
    let failed = summary.sandboxes.iter().any(|sandbox| sandbox.failed_count > 0);
    common.show(&summary, &MemoryReport(&summary), &summary.run_id, &stage).await?;
    end(&stage, failed)
}
