//! Writing files: a workload extracts its archive, which the host has in its page cache. The first time it makes the files, later
//! it replaces them.

use super::{
    kind::{Complaint, Experiment, Needs, Variant},
    step::Step,
};
use crate::measure::page_cache::CacheState;
use serde::Deserialize;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Unzip {
    /// Requests after the first one.
    more: u32,
}

impl Default for Unzip {
    fn default() -> Self {
        Self { more: 2 }
    }
}

impl Experiment for Unzip {
    fn needs(&self) -> Needs {
        Needs::FILE
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }

    fn variants(&self) -> Vec<Variant> {
        let step = |name, count| Step::requests(name, "/unzip", count).on_file(CacheState::Primed);
        let mut steps = vec![step("first", 1)];
        if self.more > 0 {
            steps.push(step("later", self.more));
        }
        vec![Variant::only(steps)]
    }
}
