//! Steps: what is asked of a running instance, and what came of it.
//!
//! Every step has a window with the same two ends for every sandbox: from the instant at which its first request is due to the
//! one at which its last answer is whole.

use super::statistics::median;
use crate::{
    measure::page_cache::{CacheState, Residency},
    probe::{DeviceCounts, FileSums},
    workload::{
        client::Exchange,
        load::{Pace, Tally},
    },
};
use std::time::Duration;

/// One thing that is asked of a running instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name, unique in its variant.
    pub name: String,
    /// What is asked for, such as `/fft?n=1024`; empty when nothing is.
    pub path: String,
    /// How.
    pub action: Action,
    /// What is done to the workload's static file in the host's page cache before; `None`: the step does not use it.
    pub file: Option<CacheState>,
}

/// How something is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// One request after the other, each on a connection of its own.
    Requests {
        /// How many.
        count: u32,
    },
    /// A load.
    Load {
        /// Connections.
        connections: u32,
        /// Whether a connection serves one request after the other.
        keep_alive: bool,
        /// When requests are sent.
        pace: Pace,
        /// Time before the window.
        warm_up: Duration,
        /// Length of the window.
        window: Duration,
    },
    /// Nothing: it is left alone and watched.
    Watch,
    /// Nothing: its memory is measured.
    Weigh,
}

impl Step {
    /// Requests, one after the other.
    pub fn requests(name: impl Into<String>, path: impl Into<String>, count: u32) -> Self {
        Self { name: name.into(), path: path.into(), action: Action::Requests { count }, file: None }
    }

    /// The same step on the workload's static file, which is in this state before.
    #[must_use]
    pub fn on_file(self, file: CacheState) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Longest time that the step may take before it has failed, with this time for each request.
    pub fn patience(&self, timeout: Duration) -> Duration {
        match self.action {
            Action::Requests { count } => timeout.saturating_mul(count),
            Action::Load { warm_up, window, .. } => warm_up + window + timeout + timeout,
            Action::Watch | Action::Weigh => timeout,
        }
    }
}

/// What stands for a step when steps are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Nanoseconds.
    Ns(u64),
    /// Bytes.
    Bytes(u64),
}

impl Figure {
    /// The number without its unit.
    pub fn number(self) -> u64 {
        match self {
            Self::Ns(number) | Self::Bytes(number) => number,
        }
    }

    /// The number, if it is one of nanoseconds.
    pub fn ns(self) -> Option<u64> {
        match self {
            Self::Ns(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    /// The number, if it is one of bytes.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(number) => Some(number),
            Self::Ns(_) => None,
        }
    }

    /// Another number of the same unit.
    #[must_use]
    pub fn with(self, number: u64) -> Self {
        match self {
            Self::Ns(_) => Self::Ns(number),
            Self::Bytes(_) => Self::Bytes(number),
        }
    }
}

/// What came of a step.
#[derive(Debug)]
pub struct Taken {
    /// The step.
    pub step: Step,
    /// Its window, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// See `start_ns`.
    pub end_ns: u64,
    /// Requests, one by one.
    pub exchanges: Vec<Exchange>,
    /// What came of a load.
    pub tally: Option<Tally>,
    /// The static file in the page cache right before.
    pub file_before: Option<Residency>,
    /// The same right after.
    pub file_after: Option<Residency>,
    /// What passed the instance's device from the window's beginning to the last answer; `None` when nobody watched it.
    pub traffic: Option<DeviceCounts>,
    /// What it did with files meanwhile; `None` when nobody watched.
    pub files: Option<FileSums>,
    /// What was measured where nothing was asked.
    pub measured: Option<Figure>,
    /// Why it could not be done as it should.
    pub error: Option<String>,
}

impl Taken {
    /// One that begins and ends at this instant (`CLOCK_MONOTONIC` nanoseconds), with nothing done yet.
    pub fn at(step: Step, at_ns: u64) -> Self {
        Self {
            step,
            start_ns: at_ns,
            end_ns: at_ns,
            exchanges: Vec::new(),
            tally: None,
            file_before: None,
            file_after: None,
            traffic: None,
            files: None,
            measured: None,
            error: None,
        }
    }

    /// One in which nothing was asked and something measured, from the first instant to the second.
    pub fn measured(name: &str, action: Action, (start_ns, end_ns): (u64, u64), figure: Figure) -> Self {
        let step = Step { name: name.to_owned(), path: String::new(), action, file: None };
        Self { end_ns, measured: Some(figure), ..Self::at(step, start_ns) }
    }

    /// Answers with status 200.
    pub fn good_count(&self) -> u64 {
        let single = self.exchanges.iter().filter(|exchange| exchange.is_good()).count() as u64;
        single + self.tally.as_ref().map_or(0, Tally::good_count)
    }

    /// Other answers, and requests without one.
    pub fn bad_count(&self) -> u64 {
        let single = self.exchanges.iter().filter(|exchange| !exchange.is_good()).count() as u64;
        single + self.tally.as_ref().map_or(0, Tally::bad_count)
    }

    /// Length of the answers' bodies.
    pub fn body_bytes(&self) -> u64 {
        let single = self.exchanges.iter().filter_map(|exchange| exchange.body_bytes).sum::<u64>();
        single + self.tally.as_ref().map_or(0, |tally| tally.body_bytes)
    }

    /// The first reason for which it is not as it should be.
    pub fn first_error(&self) -> Option<String> {
        let tally = self.tally.as_ref();
        let unanswered = || tally?.errors.keys().next().cloned();
        let status = || {
            let status = tally?.statuses.keys().find(|&&status| status != 200)?;
            Some(format!("{} answers with status {status} instead of 200", self.step.path))
        };
        let unsent = || {
            let unsent = tally?.unsent_count;
            (unsent > 0).then(|| format!("no connection was free for {unsent} requests that were due"))
        };
        let single = || self.exchanges.iter().find_map(|exchange| exchange.error.clone());
        self.error.clone().or_else(single).or_else(unanswered).or_else(status).or_else(unsent)
    }

    /// What stands for the step when steps are compared; the columns `value_ns` and `value_bytes` of `steps` say what that is.
    pub fn value(&self) -> Option<Figure> {
        self.measured.or_else(|| self.value_ns().map(Figure::Ns))
    }

    fn value_ns(&self) -> Option<u64> {
        let good = self.exchanges.iter().filter(|exchange| exchange.is_good());
        let latencies: Vec<_> = good.map(|exchange| (exchange.finished_ns - exchange.started_ns) as f64).collect();
        if let Some(tally) = &self.tally {
            return match self.step.action {
                Action::Load { pace: Pace::Open { .. }, .. } => {
                    (!tally.latencies.is_empty()).then(|| tally.latencies.value_at_quantile(0.5))
                }
                _ => tally.end_ns.saturating_sub(tally.start_ns).checked_div(tally.good_count()),
            };
        }
        median(&latencies).map(|ns| ns as u64)
    }
}
