//! Taking memory: a workload takes so much, writes to each of its pages, and gives it back. The first time a guest may have to
//! get the memory from the host; the second time it may still have it.

use super::{
    kind::{Complaint, Experiment, Needs, Variant, require},
    step::Step,
};
use serde::Deserialize;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Alloc {
    /// How much, in MiB.
    mib: u32,
    /// Requests after the second one.
    more: u32,
}

impl Default for Alloc {
    fn default() -> Self {
        Self { mib: 50, more: 3 }
    }
}

impl Experiment for Alloc {
    fn needs(&self) -> Needs {
        Needs::SERVER
    }

    fn check(&self) -> Result<(), Complaint> {
        require("mib", (1..=65536).contains(&self.mib), "choose from 1 to 65536 MiB")
    }

    fn variants(&self) -> Vec<Variant> {
        let step = |name, count| Step::requests(name, format!("/alloc?mib={}", self.mib), count);
        let mut steps = vec![step("first", 1), step("second", 1)];
        if self.more > 0 {
            steps.push(step("later", self.more));
        }
        vec![Variant::only(steps)]
    }
}
