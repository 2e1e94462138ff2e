//! The progress of a run, on a terminal.

use crate::experiment::{
    Ended, Observation,
    cold_start::Progress,
    suite::{CellKey, SuiteProgress},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeSet;

/// A progress bar on standard error, if that is a terminal.
pub(super) struct Bar {
    pub(super) bar: ProgressBar,
    /// Failures that were shown: the same one of the same sandbox and step is not shown again.
    shown: BTreeSet<(String, String, String)>,
}

impl Bar {
    pub(super) fn new(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, shown: BTreeSet::new() }
    }
}

impl Progress for Bar {
    fn starts(&mut self, sandbox: &str, probes: bool) {
        let arm = if probes { "with probes" } else { "without probes" };
        self.bar.set_message(format!("{sandbox} {arm}"));
    }

    fn ended(&mut self, observation: &Observation) {
        self.bar.inc(1);
        self.show_failure(observation);
    }
}

impl SuiteProgress for Bar {
    fn begins(&mut self, cell: &CellKey, left: u64) {
        self.bar.set_length(self.bar.position() + left);
        self.bar.set_message(cell.to_string());
    }

    fn ended(&mut self, instances: &[Ended]) {
        self.bar.inc(1);
        instances.iter().for_each(|ended| self.show_failure(&ended.observation));
    }
}

impl Bar {
    /// Tells why an instance failed, or a step on it; the same reason for a kind only once.
    fn show_failure(&mut self, observation: &Observation) {
        let Observation { sandbox, position, outcome, steps, .. } = observation;
        let of_steps = steps.iter().filter_map(|taken| Some((taken.step.name.as_str(), taken.first_error()?)));
        let failures = outcome.as_ref().err().map(|error| ("", error.clone())).into_iter().chain(of_steps);
        for (step, error) in failures {
            if self.shown.insert((sandbox.clone(), step.to_owned(), error.clone())) {
                let what = if step.is_empty() { String::new() } else { format!(", step {step}") };
                self.bar.suspend(|| eprintln!("sandscope: instance {position} ({sandbox}{what}) failed: {error}"));
            }
        }
    }
}
