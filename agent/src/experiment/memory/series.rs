//! Instances of one sandbox that are started one after the other and go on: alone or as a part of a suite.

use super::{Pages, Together, content, footprints, footprints::Moment, merging, summary::Gathered};
use crate::{
    experiment::{
        cold_start::Progress,
        observation::Ended,
        stage::{Place, Stage, Subject},
        step::{Action, Figure, Taken},
        trial::Trial,
    },
    host::clock::monotonic_ns,
    measure::memory::{
        host::{HostMemory, difference},
        ksm::MergeAny,
    },
    record::Dataset,
    sandbox::{Sandbox, run_dir::RunDirectory},
};
use anyhow::{Context, Result};
use std::sync::Arc;

/// Failures one after the other after which no more instances of a sandbox are started: the next would fail too.
const FAILURES_IN_A_ROW: u32 = 3;

/// The instances of one sandbox.
pub(in crate::experiment) struct Series<'a> {
    together: Together,
    subject: Subject,
    stage: &'a mut Stage,
    run_directory: &'a RunDirectory,
    dataset: &'a mut Dataset,
    progress: &'a mut dyn Progress,
    fault_ns: f64,
    /// Those that were ready.
    trials: Vec<Trial>,
    /// What was seen of those that never were.
    over: Vec<Ended>,
    /// At the last moment that was measured: position, from when to when, and size of each instance that ran.
    weighed: Vec<(u32, (u64, u64), u64)>,
    gathered: Gathered,
}

impl<'a> Series<'a> {
    /// One that has not begun. `fault_ns` is the time of a minor fault on this host.
    pub(in crate::experiment) fn new(
        together: Together,
        subject: Subject,
        stage: &'a mut Stage,
        run_directory: &'a RunDirectory,
        dataset: &'a mut Dataset,
        progress: &'a mut dyn Progress,
        fault_ns: f64,
    ) -> Self {
        Self {
            together,
            subject,
            stage,
            run_directory,
            dataset,
            progress,
            fault_ns,
            trials: Vec::new(),
            over: Vec::new(),
            weighed: Vec::new(),
            gathered: Gathered::default(),
        }
    }

    /// Starts, measures and removes them; gives what was seen of each, in the order of their positions. All tables but those
    /// that every experiment has are written.
    ///
    /// # Errors
    /// When the dataset can't be written or the host's books can't be read; they are removed in any case.
    pub(in crate::experiment) async fn run(mut self, position: &mut u32) -> Result<(Vec<Ended>, Gathered)> {
        let outcome = self.start_and_measure(position).await;
        for mut trial in self.trials.drain(..) {
            let position = trial.observation().position;
            if let Some(&(_, window, bytes)) = self.weighed.iter().find(|(weighed, ..)| *weighed == position) {
                trial.took(Taken::measured("memory", Action::Weigh, window, Figure::Bytes(bytes)));
            }
            self.over.push(trial.remove().await);
        }
        outcome?;
        self.over.sort_by_key(|ended| ended.observation.position);
        self.over.iter().for_each(|ended| self.gathered.ended(&ended.observation));
        Ok((self.over, self.gathered))
    }

    async fn start_and_measure(&mut self, position: &mut u32) -> Result<()> {
        let sandbox = Arc::clone(&self.subject.sandbox);
        // What is started meanwhile, and what that starts, can be merged.
        let mergeable = self.together.pages.and_then(|pages| pages.merge).map(|_| MergeAny::begin()).transpose()?;
        self.settle().await;
        let before = HostMemory::read()?;
        let (mut in_a_row, mut measured) = (0, 0);
        for _ in 0..self.together.instances {
            if self.stage.interrupted.is_cancelled() || in_a_row == FAILURES_IN_A_ROW {
                break;
            }
            self.progress.starts(sandbox.name(), false);
            let place = Place::new(self.dataset.run_id(), self.run_directory, *position)?;
            *position += 1;
            let launcher = Arc::clone(&self.stage.launcher);
            let mut trial = Trial::prepare(self.stage, &launcher, &self.subject, place).await;
            let is_ready = trial.instance().is_some() && trial.start(self.stage).await;
            self.progress.ended(trial.observation());
            if !is_ready {
                // What is left of it would be taken for memory of the others.
                self.over.push(trial.remove().await);
                in_a_row += 1;
                continue;
            }
            self.trials.push(trial);
            in_a_row = 0;
            self.settle().await;
            self.trials.iter_mut().for_each(Trial::check);
            let running = self.running();
            let after = HostMemory::read()?;
            let is_step = running.is_power_of_two() || running == self.together.instances;
            self.measure(&sandbox, &before, &after, is_step)?;
            measured = if is_step { running } else { measured };
        }
        // The last step, when not all instances came to it.
        if measured != self.running() && self.running() > 0 {
            let after = HostMemory::read()?;
            self.measure(&sandbox, &before, &after, true)?;
        }
        // The agent itself is not to be merged.
        drop(mergeable);
        if let Some(pages) = self.together.pages.filter(|_| self.running() > 0) {
            self.look_at_pages(&sandbox, pages).await?;
        }
        Ok(())
    }

    /// Looks at the content of all pages of the instances that run.
    async fn look_at_pages(&mut self, sandbox: &Arc<dyn Sandbox>, pages: Pages) -> Result<()> {
        let running = self.trials.iter().filter(|trial| runs(trial));
        let running: Vec<_> =
            running.filter_map(|trial| Some((trial.observation().id.as_str(), trial.instance()?))).collect();
        let interrupted = &self.stage.interrupted;
        let Some(content) = content::look_at(&running, pages.hold, interrupted).await? else { return Ok(()) };
        let count = u32::try_from(running.len()).unwrap_or(u32::MAX);
        for (instance, (id, _)) in running.iter().enumerate() {
            self.dataset.append(id, content.page_rows(instance, count, false))?;
        }
        if let Some((last, _)) = running.last() {
            self.dataset.append(last, [content.scan_row(sandbox.name(), count, false)])?;
        }
        self.dataset.flush()?;
        self.gathered.content = Some(content.summary(running.len()));
        if let Some(limit) = pages.merge {
            let last = self.trials.last().map_or(0, |trial| trial.observation().position);
            let directory = self.run_directory.instance(&format!("ksm{last:x}"))?;
            let merging = merging::follow(&running, &directory, &content, limit, pages.hold, interrupted).await?;
            let Some(merging) = merging else { return Ok(()) };
            for (instance, (id, _)) in running.iter().enumerate() {
                self.dataset.append(id, merging.content.page_rows(instance, count, true))?;
            }
            if let Some((last, _)) = running.last() {
                self.dataset.append(last, merging.rows(sandbox.name(), count))?;
                self.dataset.append(last, [merging.content.scan_row(sandbox.name(), count, true)])?;
            }
            self.dataset.flush()?;
            self.gathered.merging = Some(merging.summary());
        }
        Ok(())
    }

    async fn settle(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.together.settle) => {}
            () = self.stage.interrupted.cancelled() => {}
        }
    }

    /// Instances that run.
    fn running(&self) -> u32 {
        u32::try_from(self.trials.iter().filter(|trial| runs(trial)).count()).unwrap_or(u32::MAX)
    }

    /// Reads the books of the instances that run, and writes those of the host beside the sums. Each instance's own rows are
    /// written at the steps only.
    fn measure(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        before: &HostMemory,
        after: &HostMemory,
        is_step: bool,
    ) -> Result<()> {
        let running = self.running();
        let mut moment = Moment::default();
        self.weighed.clear();
        for trial in self.trials.iter().filter(|trial| runs(trial)) {
            let start_ns = monotonic_ns();
            let Some(instance) = trial.instance() else { continue };
            let id = &trial.observation().id;
            let of = footprints::of_instance(instance);
            let of = of.with_context(|| format!("the memory of instance {id} can't be read"))?;
            if is_step {
                self.dataset.append(id, of.memory_rows(running, self.fault_ns))?;
                self.dataset.append(id, of.guest_rows(running))?;
                self.dataset.append(id, of.kernel_rows(running))?;
            }
            let pss_bytes = of.processes.iter().map(|process| process.pss_bytes).sum();
            self.weighed.push((trial.observation().position, (start_ns, monotonic_ns()), pss_bytes));
            moment.add(of);
        }
        let lost = difference(before, after);
        if let Some(last) = self.trials.iter().rfind(|trial| runs(trial)) {
            let row = moment.host_row(sandbox.name(), running, after, &lost);
            self.dataset.append(&last.observation().id, [row])?;
        }
        self.dataset.flush().context("the results so far are kept; what comes next can't be written")?;
        self.gathered.add(running, moment, lost);
        Ok(())
    }
}

/// Whether an instance was ready and goes on.
fn runs(trial: &Trial) -> bool {
    trial.instance().is_some() && trial.observation().outcome.is_ok()
}
