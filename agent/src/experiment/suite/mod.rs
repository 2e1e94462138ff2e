//! Suites: experiments × sandboxes × workloads, repeated in an interleaved random order until the medians are sure enough, and
//! resumed where they were interrupted.
//!
//! ```text
//! Plan (cells, repetitions, seed) ─► order (a round: every cell that needs more, shuffled) ─► repetition ─► rows
//!                        ▲                                                                        │
//!          resume (what the dataset has) ◄──────────── Progress of each cell ◄────────────────────┘
//! ```
//!
//! The order of a round depends on the seed, the round and nothing else, so an interrupted run goes on as it would have gone on.

mod finish;
mod gathered;
mod repetition;
mod resume;
mod run;

pub use finish::{CellSummary, SuiteSummary};
pub use gathered::Gathered;
pub use resume::{FINGERPRINT, Resumed, Unfinished, unfinished};
pub use run::{Suite, SuiteProgress};

use super::{
    conditions::Conditions,
    kind::{Method, Variant},
    plan::Arms,
};
use crate::{
    sandbox::{Sandbox, resources::CpuList},
    workload::Workload,
};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc, time::Duration};

/// One combination that is repeated.
#[derive(Clone)]
pub struct Cell {
    /// Name of the experiment.
    pub experiment: String,
    /// Variant of the experiment.
    pub variant: Variant,
    /// Kind of the sandbox.
    pub sandbox: Arc<dyn Sandbox>,
    /// What runs inside.
    pub workload: Workload,
    /// Whether probes are attached.
    pub probes: bool,
}

/// What tells a cell from all others of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Name of the experiment.
    pub experiment: String,
    /// Variant of the experiment.
    pub variant: String,
    /// Kind of the sandbox.
    pub sandbox: String,
    /// What runs inside.
    pub workload: String,
    /// Whether probes are attached.
    pub probes: bool,
}

impl Cell {
    /// Whether the probes that count watch its instances.
    pub fn is_watched(&self) -> bool {
        matches!(self.variant.method, Method::Watch(_))
    }

    /// With probes or not, for each repetition, where these arms are asked for.
    pub fn arms(&self, asked: Arms) -> &'static [bool] {
        match self.variant.method {
            Method::Ask(_) if self.variant.instances > 1 && !self.sandbox.abilities().apart => Arms::Bare.probes(),
            _ => self.variant.method.arms(asked),
        }
    }

    /// What tells it from all others of a run.
    pub fn key(&self) -> CellKey {
        CellKey {
            experiment: self.experiment.clone(),
            variant: self.variant.name.clone(),
            sandbox: self.sandbox.name().to_owned(),
            workload: self.workload.name.clone(),
            probes: self.probes,
        }
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { experiment, variant, sandbox, workload, probes } = self;
        write!(out, "{experiment}")?;
        if !variant.is_empty() {
            write!(out, "/{variant}")?;
        }
        let arm = if *probes { "with" } else { "without" };
        write!(out, " {sandbox} {workload} {arm} probes")
    }
}

/// How often a cell is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeat {
    /// At least so often.
    pub least: u32,
    /// At most so often.
    pub most: u32,
    /// Between these, until the median's 95 % confidence interval is no wider than this share of the median, for every step.
    pub width_ratio: f64,
}

/// How quiet the host has to be before an instance is started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quiet {
    /// Share of all CPUs' time that others may use.
    pub busy_ratio: f64,
    /// How long the host is waited for; then the instance is started nevertheless, and marked.
    pub patience: Duration,
}

/// What is to be done.
#[derive(Clone)]
pub struct Plan {
    /// All cells, in the order in which they are shown.
    pub cells: Vec<Cell>,
    /// How often each is repeated.
    pub repeat: Repeat,
    /// How quiet the host has to be.
    pub quiet: Quiet,
    /// CPUs of the load generator; `None`: all.
    pub client_cpus: Option<CpuList>,
}

impl Plan {
    /// A hash of all that decides what is measured: a run is only resumed by the plan it was begun with.
    pub fn fingerprint(&self, conditions: &Conditions) -> String {
        let mut hash = Sha256::new();
        for cell in &self.cells {
            hash.update(format!("{}\0{:?}\0", cell.key(), cell.variant));
        }
        hash.update(format!("{:?} {:?} {:?}", self.repeat, self.quiet, conditions.recorded()));
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
