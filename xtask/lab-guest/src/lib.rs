//! What the lab tells its VM to do, and what the VM tells back. Both programs read this file.

use serde::{Deserialize, Serialize};

/// Where the plan is in the VM.
pub const PLAN: &str = "/lab/plan.json";
/// Where the VM gathers what it sends back.
pub const RESULTS: &str = "/lab/results";
/// Serial number of the disk that takes the results, as a tar archive from its first byte on.
pub const RESULTS_DISK: &str = "results";
/// Last file of that archive: an archive without it is not complete.
pub const OUTCOME: &str = "outcome.json";

/// What the VM does from its start to its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Loaded in this order.
    pub modules: Vec<Module>,
    /// Mounted in this order, after the modules are loaded.
    pub mounts: Vec<Mount>,
    /// Set for all steps.
    pub environment: Vec<(String, String)>,
    /// Run one after the other; one that fails does not stop the next.
    pub steps: Vec<Step>,
}

/// A kernel module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Module {
    /// Its file in the VM.
    pub file: String,
    /// Such as `vgif=0 avic=0`.
    pub parameters: String,
}

/// An ext4 file system on a disk of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Serial number of the disk.
    pub disk: String,
    /// Folder of the VM.
    pub at: String,
}

/// A program to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Names the file with its output.
    pub name: String,
    /// Path in the VM.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Seconds after which it is killed.
    pub timeout_s: u64,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Release of the kernel that ran.
    pub release: String,
    /// As many as the plan has.
    pub steps: Vec<StepOutcome>,
}

/// How a step went.
#[derive(Debug, Serialize, Deserialize)]
pub struct StepOutcome {
    /// Name of the step.
    pub name: String,
    /// Its exit status in words, unless it was good.
    pub failure: Option<String>,
    /// How long it took.
    pub time_ms: u64,
}
