//! One repetition of a cell: one instance, or many at the same time, from prepared to removed.

use super::{Cell, Plan};
use crate::{
    experiment::{
        idle::Watching,
        kind::Method,
        memory::{Series, Together},
        observation::{Ended, Part},
        perform::perform,
        stage::{Place, Stage, Subject},
        step::Step,
        trial::Trial,
    },
    explain,
    host::quiescence,
    measure::{host_load, memory::fault},
    probe::Aggregate,
    record::Dataset,
    sandbox::{launcher::Launcher, run_dir::RunDirectory},
    steady::Window,
};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use std::sync::Arc;

/// What repetitions need of the run.
pub(super) struct Means<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stage: &'a mut Stage,
    /// For cells that watch instances.
    pub(super) aggregate: Option<&'a mut Aggregate>,
    pub(super) run_directory: &'a RunDirectory,
    pub(super) dataset: &'a mut Dataset,
}

/// What came of a repetition.
pub(super) struct Repeated {
    /// What was seen of each instance.
    pub(super) ended: Vec<Ended>,
    /// What was counted while the only one was left alone, and how that was done.
    pub(super) window: Option<(Watching, Window)>,
}

/// Runs it on instances whose positions in the run begin at `position`.
///
/// # Errors
/// When the agent itself lacks something; what goes wrong with an instance is in its observation.
pub(super) async fn repeat(means: Means<'_>, cell: &Cell, position: u32, repetition: u32) -> Result<Repeated> {
    let Means { plan, stage, aggregate, run_directory, dataset } = means;
    let part = Part { experiment: cell.experiment.clone(), variant: cell.variant.name.clone(), repetition };
    let host = host_load::settled(plan.quiet.busy_ratio, plan.quiet.patience).await?;
    let subject = Subject {
        part,
        sandbox: Arc::clone(&cell.sandbox),
        workload: cell.workload.clone(),
        cache: cell.variant.cache,
        probes: cell.probes,
        found: host.conditions().into(),
    };
    let run_id = dataset.run_id().to_owned();
    match &cell.variant.method {
        Method::Ask(steps) => {
            let ended = ask(plan, cell, stage, (&run_id, run_directory), &subject, position, steps).await?;
            Ok(Repeated { ended, window: None })
        }
        Method::Watch(watching) => {
            let aggregate = aggregate.context("the probes that count are not loaded")?;
            let place = Place::new(&run_id, run_directory, position)?;
            let (ended, window) = watching.watch(stage, aggregate, &subject, place).await;
            Ok(Repeated { ended: vec![ended], window: window.map(|window| (*watching, window)) })
        }
        Method::Gather(together) => gather(*together, subject, stage, run_directory, dataset, position).await,
    }
}

/// Instances that are started one after the other and go on.
async fn gather(
    together: Together,
    subject: Subject,
    stage: &mut Stage,
    run_directory: &RunDirectory,
    dataset: &mut Dataset,
    mut position: u32,
) -> Result<Repeated> {
    let fault_ns = fault::minor_fault_ns()?;
    let mut nobody = ();
    let series = Series::new(together, subject, stage, run_directory, dataset, &mut nobody, fault_ns);
    let (ended, _) = series.run(&mut position).await?;
    Ok(Repeated { ended, window: None })
}

/// Instances that are launched at once and then asked.
async fn ask(
    plan: &Plan,
    cell: &Cell,
    stage: &mut Stage,
    (run_id, run_directory): (&str, &RunDirectory),
    subject: &Subject,
    position: u32,
    steps: &[Step],
) -> Result<Vec<Ended>> {
    let mut trials = Vec::new();
    for number in 0..cell.variant.instances {
        let place = Place::new(run_id, run_directory, position + number)?;
        // One thread launches one after the other.
        let launcher =
            if cell.variant.instances == 1 { Arc::clone(&stage.launcher) } else { Arc::new(Launcher::spawn()?) };
        trials.push(Trial::prepare(stage, &launcher, subject, place).await);
    }
    for trial in &mut trials {
        if let Err(error) = trial.condition() {
            trial.fail(&error);
        }
    }
    if let Some(first) = trials.first() {
        stage.begin_recording(first.observation())?;
    }
    for trial in &mut trials {
        if let Err(error) = trial.watch(stage) {
            trial.fail(&error);
        }
    }
    quiescence::settle();
    let shared: &Stage = stage;
    join_all(trials.iter_mut().map(|trial| async move {
        if let Err(error) = trial.launch(shared).await {
            trial.fail(&error);
        }
    }))
    .await;
    for trial in trials.iter_mut().filter(|trial| trial.observation().outcome.is_ok()) {
        if let Err(error) = trial.look_around(stage) {
            trial.fail(&error);
            continue;
        }
        perform(trial, stage, steps, plan.client_cpus.as_ref(), cell.variant.instances == 1).await;
    }
    end_recording(&mut trials, stage);
    let mut ended = Vec::new();
    for trial in trials {
        ended.push(trial.remove().await);
    }
    Ok(ended)
}

/// Takes the one recording of all of them, and gives each what is its own.
fn end_recording(trials: &mut [Trial], stage: &mut Stage) {
    let mut watched = Vec::new();
    for (place, trial) in trials.iter_mut().enumerate() {
        match trial.unwatch(stage) {
            Ok(seen) => watched.extend(seen.map(|seen| (place, seen))),
            Err(error) => trial.fail(&error),
        }
    }
    if watched.is_empty() {
        return;
    }
    match stage.end_recording() {
        Ok(None) => {}
        Ok(Some(recording)) => {
            let sources: Vec<_> = watched.iter().map(|(_, seen)| seen.source()).collect();
            let parts = explain::split(&recording, &sources);
            for ((place, seen), part) in watched.into_iter().zip(parts) {
                trials[place].keep(seen, part);
            }
        }
        Err(error) => trials.iter_mut().for_each(|trial| trial.fail(&error)),
    }
}
