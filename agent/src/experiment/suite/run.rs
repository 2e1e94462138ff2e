//! Runs a suite: round after round, every cell that needs more, in random order.

use super::{
    Cell, CellKey, Plan, Resumed,
    finish::{SuiteSummary, cell_rows, outlier_rows},
    gathered::{AllGathered, Gathered},
    repetition::{Means, Repeated, repeat},
};
use crate::{
    experiment::{
        guests::Guests,
        kind::Method,
        memory,
        observation::Ended,
        rows::{self, declare},
        stage::Stage,
        step_rows,
    },
    host::clock::unix_ns,
    probe::Aggregate,
    record::{Dataset, Manifest},
    sandbox::run_dir::RunDirectory,
    steady::Window,
};
use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// A suite that is to be run, or to go on.
pub struct Suite {
    /// What is to be done.
    pub plan: Plan,
    /// Decides the order.
    pub seed: u64,
    /// What was done before.
    pub resumed: Resumed,
    /// The probes that count; cells that watch instances need them.
    pub aggregate: Option<Aggregate>,
    /// Functions of the guests that are watched.
    pub guests: Guests,
}

/// Told about the progress of a suite.
pub trait SuiteProgress {
    /// A repetition is about to begin; so many are known to be left, this one included.
    fn begins(&mut self, cell: &CellKey, left: u64);
    /// A repetition is over.
    fn ended(&mut self, instances: &[Ended]);
}

impl Suite {
    /// Runs it and fills the dataset. An instance that fails is a row with its error, and the run goes on; an interruption ends the
    /// run after the repetition at hand, and it can be resumed.
    ///
    /// # Errors
    /// When the dataset can't be written, or the agent itself lacks something.
    pub async fn run(
        self,
        stage: &mut Stage,
        run_directory: &RunDirectory,
        mut dataset: Dataset,
        manifest: &Manifest,
        progress: &mut dyn SuiteProgress,
    ) -> Result<SuiteSummary> {
        let Self { plan, seed, resumed, mut aggregate, guests } = self;
        declare_all(&mut dataset, &plan)?;
        let Resumed { mut gathered, mut next_position, mut outcome } = resumed;
        'rounds: for round in 0.. {
            let todo = of_round(&plan, &gathered, seed, round);
            if todo.is_empty() && round >= plan.repeat.least {
                break;
            }
            for cell in todo {
                if stage.interrupted.is_cancelled() {
                    break 'rounds;
                }
                let key = cell.key();
                progress.begins(&key, left(&plan, &gathered, seed));
                let of_cell = gathered.entry(key).or_default();
                let aggregate = aggregate.as_mut();
                let means = Means { plan: &plan, stage, aggregate, run_directory, dataset: &mut dataset };
                let Repeated { ended, window } = repeat(means, cell, next_position, of_cell.next()).await?;
                if stage.interrupted.is_cancelled() {
                    // What was cut short is neither a failure nor a result.
                    break 'rounds;
                }
                next_position += cell.variant.instances;
                progress.ended(&ended);
                if let (Some((watching, window)), Some(of)) = (&window, ended.first().map(|ended| &ended.observation)) {
                    let guest = guests.of_sandbox(&of.sandbox);
                    watching.append(window, of, &mut stage.names, guest, &mut dataset)?;
                }
                for ended in ended {
                    let (observation, explanation) = ended.explain(stage);
                    outcome.lost_events_count += explanation.lost();
                    outcome.instances_count += 1;
                    outcome.failed_count += u32::from(observation.outcome.is_err());
                    of_cell.add(&observation, &step_rows::steps(&observation));
                    rows::append(&observation, explanation, &mut dataset)?;
                }
                dataset.flush().context("the results so far are kept; what comes next can't be written")?;
            }
        }
        let finished = plan.cells.iter().all(|cell| is_finished(&plan, cell, &gathered, seed));
        if finished {
            for (instance, row) in outlier_rows(&gathered) {
                dataset.append(&instance, [row])?;
            }
            dataset.flush()?;
            dataset.replace(&cell_rows(&plan, &gathered, seed), [])?;
        }
        outcome.finished_at_unix_ns = finished.then(unix_ns);
        dataset.describe(manifest, &outcome)?;
        Ok(SuiteSummary::of(dataset.run_id(), &plan, &gathered, seed, &outcome))
    }
}

/// Every table of the plan's experiments exists, also when there is nothing to say in it.
fn declare_all(dataset: &mut Dataset, plan: &Plan) -> Result<()> {
    declare(dataset)?;
    if plan.cells.iter().any(Cell::is_watched) {
        Window::declare(dataset)?;
    }
    if plan.cells.iter().any(|cell| matches!(cell.variant.method, Method::Gather(_))) {
        memory::declare(dataset)?;
    }
    dataset.flush()?;
    Ok(())
}

/// Cells that have no more than `round` repetitions and need more, in the order of that round.
fn of_round<'a>(plan: &'a Plan, gathered: &AllGathered, seed: u64, round: u32) -> Vec<&'a Cell> {
    let mut all: Vec<&Cell> = plan.cells.iter().collect();
    all.shuffle(&mut StdRng::seed_from_u64(seed ^ (u64::from(round) << 32)));
    all.retain(|cell| {
        let done = gathered.get(&cell.key()).map_or(0, Gathered::repetitions);
        done <= round && !is_finished(plan, cell, gathered, seed)
    });
    all
}

fn is_finished(plan: &Plan, cell: &Cell, gathered: &AllGathered, seed: u64) -> bool {
    gathered.get(&cell.key()).is_some_and(|gathered| gathered.is_finished(plan.repeat, seed))
}

/// Repetitions that are known to be left: those up to the least of each cell, and one of each that needs more.
fn left(plan: &Plan, gathered: &AllGathered, seed: u64) -> u64 {
    let of_cell = |cell: &Cell| {
        let done = gathered.get(&cell.key()).map_or(0, Gathered::repetitions);
        let more = u32::from(!is_finished(plan, cell, gathered, seed));
        u64::from(plan.repeat.least.saturating_sub(done).max(more))
    };
    plan.cells.iter().map(of_cell).sum()
}
