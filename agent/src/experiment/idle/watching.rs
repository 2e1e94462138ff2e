//! How an idle instance is watched: alone or as a part of a suite.

use crate::{
    correlate::Names,
    experiment::{
        observation::{Ended, Observation},
        stage::{Place, Stage, Subject},
        step::{Action, Figure, Taken},
        trial::Trial,
        watch::mark_threads,
    },
    host::clock::monotonic_ns,
    probe::Aggregate,
    record::{Dataset, Error},
    sandbox::Daemon,
    steady::{self, GuestSymbols, Opening, Translators, Window},
};
use anyhow::{Context, Result};
use sandscope_ebpf::map::Membership;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How much longer than it should take the window may take before the instance has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often places of threads that have ended are given back.
const LOOK: Duration = Duration::from_secs(1);

/// How long, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// Time from the first response to the window.
    pub settle: Duration,
    /// Length of the window.
    pub window: Duration,
}

impl Watching {
    /// Starts an instance, watches it once it has settled, and removes it.
    pub(in crate::experiment) async fn watch(
        &self,
        stage: &mut Stage,
        aggregate: &mut Aggregate,
        subject: &Subject,
        place: Place,
    ) -> (Ended, Option<Window>) {
        let launcher = Arc::clone(&stage.launcher);
        let mut trial = Trial::prepare(stage, &launcher, subject, place).await;
        let scope = trial.scope();
        // They see the window alone: those of the timeline would be part of what is measured.
        let timeline = stage.probes.take().map(|mut probes| {
            probes.detach();
            probes
        });
        let mark = |aggregate: &Aggregate, daemons: &[Daemon], membership| {
            aggregate.mark(launcher.tid(), membership);
            for daemon in daemons {
                mark_threads(|tid| aggregate.mark(tid, membership), daemon.pid);
            }
        };
        let daemons = trial.instance().map_or_else(Vec::new, |instance| instance.daemons());
        let outcome = async {
            aggregate.attach()?;
            mark(aggregate, &daemons, Membership::bystander(scope));
            // Why not is in the observation.
            if trial.start(stage).await {
                self.window(&mut trial, stage, aggregate, subject).await.map(Some)
            } else {
                Ok(None)
            }
        };
        let window = outcome.await.unwrap_or_else(|error| {
            trial.fail(&error);
            None
        });
        mark(aggregate, &daemons, Membership::NONE);
        let mut ended = trial.finish(stage).await;
        aggregate.detach();
        stage.probes = timeline;
        if let (Err(error), Ok(_)) = (aggregate.forget(scope), &ended.observation.outcome) {
            ended.observation.outcome = Err(format!("the probes can't forget it: {error:#}"));
        }
        (ended, window)
    }

    async fn window(
        &self,
        trial: &mut Trial,
        stage: &Stage,
        aggregate: &mut Aggregate,
        subject: &Subject,
    ) -> Result<Window> {
        let deadline = Instant::now() + self.settle + self.window + PATIENCE;
        trial.unless_it_fails(stage, deadline, tokio::time::sleep(self.settle)).await?;
        let instance = trial.instance().context("the instance was lost")?;
        let watched = steady::Subject {
            name: subject.sandbox.name().to_owned(),
            scope: trial.scope(),
            roles: instance.roles(),
            thread_roles: instance.thread_roles(),
        };
        let mut opening = Opening::open(watched, &BTreeSet::new(), aggregate)?;
        let start_ns = monotonic_ns();
        let end = Instant::now() + self.window;
        while Instant::now() < end {
            trial.unless_it_fails(stage, deadline, tokio::time::sleep_until(end.min(Instant::now() + LOOK))).await?;
            // So that a sandbox that starts processes without end does not run out of places.
            opening.note_ended(&aggregate.take_ended()?.0);
        }
        let window = opening.close(aggregate)?;
        let cost = Figure::Ns((window.cost().ratio * 1e9) as u64);
        trial.took(Taken::measured("idle", Action::Watch, (start_ns, monotonic_ns()), cost));
        Ok(window)
    }

    /// Appends what was seen of an instance in its window.
    ///
    /// # Errors
    /// When a file can't be written.
    pub(in crate::experiment) fn append(
        &self,
        window: &Window,
        observation: &Observation,
        names: &mut Names,
        guest: Option<&GuestSymbols>,
        dataset: &mut Dataset,
    ) -> Result<(), Error> {
        window.learn(names);
        let settled_ns = u64::try_from(self.settle.as_nanos()).ok();
        window.append(&observation.id, settled_ns, &Translators { names, guest }, dataset)
    }
}
