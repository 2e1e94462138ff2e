//! What came of the requests of a load.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::{collections::BTreeMap, fmt};

/// Latencies from 1 ns to 10 minutes are kept within a thousandth of their value.
const HIGHEST_NS: u64 = 600_000_000_000;
const DIGITS: u8 = 3;

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There was no connection.
    #[error("connecting failed: {0}")]
    Connect(String),
    /// The connection broke, or the answer was no HTTP.
    #[error("the exchange failed: {0}")]
    Exchange(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The requests could not be made due.
    #[error("the schedule failed: {0}")]
    Schedule(String),
}

/// Distinct errors that are kept by their words: what is inside a sandbox decides what goes wrong.
const MAX_ERRORS: usize = 32;

/// What came of the requests that were due in the window.
#[derive(Clone)]
pub struct Tally {
    /// The window, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// See `start_ns`; earlier than asked for when the load was interrupted.
    pub end_ns: u64,
    /// Latencies of answers with status 200, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of the answers' bodies.
    pub body_bytes: u64,
    /// Requests that were due and never sent: no connection was free for them.
    pub unsent_count: u64,
}

/// The histogram in short: it has ten thousand counts.
impl fmt::Debug for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_ns, end_ns, latencies, statuses, errors, body_bytes, unsent_count } = self;
        out.debug_struct("Tally")
            .field("window_ns", &end_ns.saturating_sub(*start_ns))
            .field("latencies", &latencies.len())
            .field("median_ns", &latencies.value_at_quantile(0.5))
            .field("statuses", statuses)
            .field("errors", errors)
            .field("body_bytes", body_bytes)
            .field("unsent_count", unsent_count)
            .finish_non_exhaustive()
    }
}

impl Tally {
    pub(super) fn new(start_ns: u64, end_ns: u64) -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS).context("no memory for a histogram")?;
        Ok(Self {
            start_ns,
            end_ns,
            latencies,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            body_bytes: 0,
            unsent_count: 0,
        })
    }

    fn counts(&self, due_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&due_ns)
    }

    pub(super) fn answered(&mut self, status: u16, body_bytes: u64, due_ns: u64, now_ns: u64) {
        if !self.counts(due_ns) {
            return;
        }
        *self.statuses.entry(status).or_default() += 1;
        self.body_bytes += body_bytes;
        if status == 200 {
            // Longer ones count as the longest.
            self.latencies.saturating_record(now_ns.saturating_sub(due_ns).max(1));
        }
    }

    pub(super) fn failed(&mut self, failure: &Failure, due_ns: u64) {
        if !self.counts(due_ns) {
            return;
        }
        let mut reason = failure.to_string();
        if self.errors.len() >= MAX_ERRORS && !self.errors.contains_key(&reason) {
            "others".clone_into(&mut reason);
        }
        *self.errors.entry(reason).or_default() += 1;
    }

    pub(super) fn ended(&mut self, end_ns: u64, unsent_count: u64) {
        self.end_ns = end_ns;
        self.unsent_count = unsent_count;
    }

    /// Answers with status 200.
    pub fn good_count(&self) -> u64 {
        self.latencies.len()
    }

    /// Requests with another status or without an answer.
    pub fn bad_count(&self) -> u64 {
        let others = self.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum::<u64>();
        others + self.errors.values().sum::<u64>()
    }

    /// Good answers per second of the window.
    pub fn throughput(&self) -> f64 {
        let seconds = self.end_ns.saturating_sub(self.start_ns) as f64 / 1e9;
        if seconds > 0.0 { self.good_count() as f64 / seconds } else { 0.0 }
    }
}
