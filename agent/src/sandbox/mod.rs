//! Sandboxes: what each kind needs, how one instance is prepared, launched, watched and removed.
//!
//! One kind, one file, one implementation of [`Sandbox`]. The experiment calls, for every instance, in this order:
//! [`Sandbox::prepare`] (everything that may take time: bundle, network, files), then, on the launcher thread and inside the
//! timed window, [`Instance::launch`] (the one call that starts it), then [`Instance::failure`] as long as it waits, and
//! [`Instance::stop`] in the end, whatever happened before.

pub mod console;
pub mod network;
use crate::workload::Workload;
use anyhow::Result;
use std::{collections::BTreeMap, path::PathBuf};

/// A kind of sandbox.
pub trait Sandbox: Send + Sync {
    /// The name people type, such as `runc`.
    fn name(&self) -> &'static str;

    /// One line on what it is.
    fn about(&self) -> &'static str;

    /// Whether this host can run it, with the evidence.
    fn support(&self) -> Support;

    /// What the manifest records of it: versions, platforms, hashes of binaries, by name. Called once per run.
    ///
    /// # Errors
    /// When a binary that [`Sandbox::support`] found can't be read or does not answer.
    fn provenance(&self) -> Result<BTreeMap<String, String>>;

    /// Makes an instance ready to be launched: nothing that can be done before the timed window may be left to it.
    ///
    /// # Errors
    /// When the host refuses a resource; whatever was made until then is removed again.
    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>>;
}

/// Whether a host can do something, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Support {
    /// It can.
    Ok {
        /// What was found.
        evidence: String,
    },
    /// It can, but not fully.
    Degraded {
        /// What was found.
        evidence: String,
        /// What the person can do about it.
        remedy: String,
    },
    /// It can't.
    Unsupported {
        /// What is missing.
        evidence: String,
        /// What the person can do about it.
        remedy: String,
    },
}

/// What is asked of one instance.
#[derive(Clone, Debug)]
pub struct Specification {
    /// Names the instance's resources on the host; unique on it, at most 10 characters of `[a-z0-9]`.
    pub label: String,
    /// A directory of the instance's own inside the run's directory (see [`run_dir`]); removed with the run.
    pub directory: PathBuf,
    /// What runs inside.
    pub workload: Workload,
    /// Its network.
    pub network: network::Mode,
    /// Port of the host on which the agent awaits the ready callback (on the host's address of the instance's network).
    pub callback_port: u16,
}

/// How an instance tells that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The workload calls back when its socket listens; then it is asked at this address.
    Callback {
        /// Where the client sends its request.
        address: std::net::SocketAddr,
    },
    /// The first byte on its console is the response.
    Console,
}

/// Tells a role from what a process executed: the first rule that matches wins. A process that executed nothing has its
/// parent's role, unless a rule names the role of such children.
#[derive(Clone, Copy, Debug)]
pub struct RoleRule {
    /// The role, such as `runtime`, `sentry`, `gofer`, `vmm`, `workload`.
    pub role: &'static str,
    /// Matches when one of the first arguments (program name included) or the executed path contains this.
    pub contains: &'static str,
    /// Role of its children that execute nothing themselves; `None`: the same.
    pub forked: Option<&'static str>,
}

/// One instance, from prepared to removed. Dropping it stops it.
pub trait Instance: Send {
    /// Files that its start reads (runtime, workload, images): their state in the page cache is a condition.
    fn files(&self) -> Vec<PathBuf>;

    /// How it tells that it is ready.
    fn readiness(&self) -> Readiness;

    /// Roles of its processes, most specific first.
    fn roles(&self) -> &'static [RoleRule];

    /// Starts it and returns as soon as the host's part of starting is done; it need not be ready.
    /// Called once, on the launcher thread, inside the timed window.
    ///
    /// # Errors
    /// When the runtime can't be started.
    fn launch(&mut self) -> Result<()>;

    /// Evidence that it will never be ready, such as the end of its process with the last lines of its console. Cheap; called
    /// repeatedly.
    fn failure(&mut self) -> Option<String>;

    /// What it wrote to its console or standard output and error so far.
    fn console(&self) -> &console::Console;

    /// Host side of its network, when it has one of its own.
    fn network(&self) -> Option<&network::Private>;

    /// Ends it and removes all it left on the host. Harmless to call again.
    ///
    /// # Errors
    /// When something could not be removed; names it.
    fn stop(&mut self) -> Result<()>;
}
