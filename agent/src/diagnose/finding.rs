//! What a rule finds.

use crate::report::units;
use serde::Serialize;
use std::fmt;

/// Something that a person would act on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What it is about, such as `runc, workload rust`.
    pub subject: String,
    /// What was found, in one or two sentences with figures.
    pub text: String,
    /// The rows that show it.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub next_step: String,
}

/// How much a finding matters. The order is that in which findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Figures of the run are wrong, missing or not what was asked for.
    Problem,
    /// The figures are right, and this explains them.
    Insight,
}

impl Weight {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Insight => "insight",
        }
    }
}

/// A row, or a sum over rows, that shows a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The table.
    pub table: &'static str,
    /// Which rows of it, as `column=value` and what is taken of them.
    pub key: String,
    /// What is there.
    pub value: Quantity,
}

impl Evidence {
    /// Shown by rows of a table.
    pub fn new(table: &'static str, key: impl Into<String>, value: Quantity) -> Self {
        Self { table, key: key.into(), value }
    }
}

/// A value with its unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Nanoseconds.
    Ns(f64),
    /// Number of something.
    Count(u64),
    /// Share of 1.
    Ratio(f64),
    /// Bytes.
    Bytes(f64),
    /// No number.
    Text(String),
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&match self {
            Self::Ns(ns) => units::duration(*ns),
            Self::Count(count) => count.to_string(),
            Self::Ratio(ratio) => units::percent(*ratio),
            Self::Bytes(bytes) => units::size(*bytes),
            Self::Text(text) => text.clone(),
        })
    }
}
