//! Computing: what a sandbox adds to work that needs only the CPU. Each kind of work is asked for once, which is when its memory
//! is touched for the first time, and then again and again.
//!
//! `/fft` and `/matrix` also say how long the work itself took by the workload's clock, in nanoseconds (`requests.workload_ns`).

use super::{
    kind::{Complaint, Experiment, Needs, Variant, require},
    step::Step,
};
use serde::Deserialize;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cpu {
    /// Additions of `/fib`.
    fib: u64,
    /// Points of the Fourier transform.
    fft: u64,
    /// Rows and columns of the matrix.
    matrix: u64,
    /// Requests for each after the first one.
    requests: u32,
}

impl Default for Cpu {
    /// A tenth of a second to a second each in a compiled language.
    fn default() -> Self {
        Self { fib: 1_000_000_000, fft: 1 << 20, matrix: 1024, requests: 5 }
    }
}

impl Experiment for Cpu {
    fn needs(&self) -> Needs {
        Needs::SERVER
    }

    fn check(&self) -> Result<(), Complaint> {
        // The bounds of the workloads' contract.
        require("fib", (1..=10_000_000_000).contains(&self.fib), "choose from 1 to 10000000000 additions")?;
        require("fft", (1..=1 << 24).contains(&self.fft), "choose from 1 to 16777216 points")?;
        require("matrix", (1..=4096).contains(&self.matrix), "choose from 1 to 4096 rows")?;
        require("requests", self.requests > 0, "choose at least 1 request")
    }

    fn variants(&self) -> Vec<Variant> {
        let works = [("fib", self.fib), ("fft", self.fft), ("matrix", self.matrix)];
        let steps = works.into_iter().flat_map(|(work, n)| {
            let path = format!("/{work}?n={n}");
            [Step::requests(format!("{work}-first"), path.clone(), 1), Step::requests(work, path, self.requests)]
        });
        vec![Variant::only(steps.collect())]
    }
}
