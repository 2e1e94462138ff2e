//! Sandboxes: what each kind needs, how one instance is prepared, launched, watched and removed.
//!
//! One kind, one file, one implementation of [`Sandbox`]. The experiment calls, for every instance, in this order:
//! [`Sandbox::prepare`] (everything that may take time: bundle, network, files), then, on the launcher thread and inside the
//! timed window, [`Instance::launch`] (the one call that starts it), then [`Instance::failure`] as long as it waits, and
//! [`Instance::stop`] in the end, whatever happened before.

mod bundle;
mod child;
pub mod console;
mod executable;
pub mod gvisor;
mod instance;
mod journal;
pub mod kvm_floor;
pub mod launcher;
mod lock;
pub mod network;
pub mod process;
mod processes;
pub mod run_dir;
pub mod runc;
mod runtime;
mod spawn;
mod undo;

pub use crate::host::support::Support;
use crate::workload::{Workload, callback};
use anyhow::{Result, bail, ensure};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// All kinds of sandboxes, in the order in which they are shown.
pub fn all() -> Vec<Box<dyn Sandbox>> {
    vec![
        Box::new(process::Process),
        Box::new(runc::Runc),
        Box::new(gvisor::Gvisor { platform: gvisor::Platform::Systrap }),
        Box::new(gvisor::Gvisor { platform: gvisor::Platform::Ptrace }),
        Box::new(kvm_floor::KvmFloor::default()),
    ]
}

/// The kind of this name.
///
/// # Errors
/// When there is none; names the nearest.
pub fn find(name: &str) -> Result<Box<dyn Sandbox>> {
    let mut all = all();
    if let Some(position) = all.iter().position(|sandbox| sandbox.name() == name) {
        return Ok(all.swap_remove(position));
    }
    let names: Vec<_> = all.iter().map(|sandbox| sandbox.name()).collect();
    let nearest = names
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let suggestion = nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
    bail!("there is no sandbox `{name}`{suggestion} The kinds are: {}", names.join(", "))
}

/// From this similarity on (0: nothing in common, 1: equal) a known name is suggested for one that is not.
const SIMILAR: f64 = 0.5;

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

impl Specification {
    /// Fails unless the label can name what an instance makes on the host.
    fn check(&self) -> Result<()> {
        let letters = self.label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        ensure!(
            letters && (1..=LABEL_LENGTH).contains(&self.label.len()),
            "`{}` can't label an instance: use 1 to {LABEL_LENGTH} lower-case letters and digits",
            self.label
        );
        Ok(())
    }

    /// Arguments of the workload, which sees these paths.
    fn arguments(&self, network: &network::Network, static_file: Option<&Path>, scratch: &Path) -> Vec<String> {
        let mut arguments = vec![callback::url(network.host_address().into(), self.callback_port, &self.label)];
        if let Some(path) = static_file {
            arguments.extend(["--static-file".into(), path.display().to_string()]);
        }
        arguments.extend(["--scratch".into(), scratch.display().to_string()]);
        arguments.extend(["--port".into(), self.workload.port.to_string()]);
        arguments
    }

    /// Files that the start of the workload reads.
    fn files(&self) -> Vec<PathBuf> {
        [Some(&self.workload.executable), self.workload.static_file.as_ref()].into_iter().flatten().cloned().collect()
    }

    /// How a workload in this network tells that it is ready.
    fn readiness(&self, network: &network::Network) -> Readiness {
        Readiness::Callback { address: SocketAddr::from((network.sandbox_address(), self.workload.port)) }
    }
}

/// Most characters of a label: with a prefix of two it has to fit into an interface's name, which has 15.
const LABEL_LENGTH: usize = 10;

/// How an instance tells that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The workload calls back when its socket listens (see [`callback::url`]); then it is asked at this
    /// address.
    Callback {
        /// Where the client sends its request.
        address: SocketAddr,
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
    /// Matches when the executed path, or the arguments (program name first, joined by single spaces), contain this.
    pub contains: &'static str,
    /// Role of its children that execute nothing themselves; `None`: the same.
    pub forked: Option<&'static str>,
}

/// The first of the rules that applies to who executed this path with these arguments.
pub fn rule_of(rules: &'static [RoleRule], path: &str, arguments: &[impl AsRef<str>]) -> Option<&'static RoleRule> {
    let arguments = arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    rules.iter().find(|rule| path.contains(rule.contains) || arguments.contains(rule.contains))
}

/// One instance, from prepared to removed. Dropping it stops it.
pub trait Instance: Send {
    /// Files that its start reads (runtime, workload, images): their state in the page cache is a condition.
    fn files(&self) -> Vec<PathBuf>;

    /// How it tells that it is ready.
    fn readiness(&self) -> Readiness;

    /// Roles of its processes, most specific first.
    fn roles(&self) -> &'static [RoleRule];

    /// What is particular about how it was prepared and matters to who compares figures, by name.
    fn conditions(&self) -> &BTreeMap<String, String>;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_the_nearest_suggested() {
        for sandbox in all() {
            assert_eq!(find(sandbox.name()).unwrap().name(), sandbox.name());
        }
        let error = find("rnuc").err().unwrap().to_string();
        assert!(error.contains("did you mean `runc`?") && error.contains("kvm-floor"), "{error}");
        let error = find("something-else").err().unwrap().to_string();
        assert!(!error.contains("did you mean") && error.contains("kvm-floor"), "{error}");
    }
}
