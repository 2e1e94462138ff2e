//! Instances of the same kind, which are summed up and compared with each other.

use crate::record::tables::Instance;
use std::fmt;

/// What instances of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Their sandbox.
    pub sandbox: String,
    /// Their workload.
    pub workload: String,
    /// Their experiment.
    pub experiment: String,
    /// Their variant of it; empty where there is only one.
    pub variant: String,
}

impl Kind {
    /// The kind of an instance.
    pub fn of(instance: &Instance) -> Self {
        Self {
            sandbox: instance.sandbox.clone(),
            workload: instance.workload.clone(),
            experiment: instance.experiment.clone(),
            variant: instance.variant.clone(),
        }
    }
}

impl fmt::Display for Kind {
    /// In words, such as `runc, workload rust, cpu (evicted)`; of a cold start only what is particular.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, workload {}", self.sandbox, self.workload)?;
        if self.experiment != "cold-start" {
            write!(out, ", {}", self.experiment)?;
        }
        if !self.variant.is_empty() {
            write!(out, " ({})", self.variant)?;
        }
        Ok(())
    }
}
