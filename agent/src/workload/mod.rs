//! What runs inside a sandbox, and how the agent talks to it.

pub mod callback;
pub mod client;

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

/// Names of the workloads that come with sandscope.
pub const NAMES: [&str; 2] = ["rust", "go"];
/// TCP port that workloads listen on.
const PORT: u16 = 8080;
/// Directory that holds the workloads, `<name>/app` each; overrides the places that are looked at otherwise.
const DIRECTORY: &str = "SANDSCOPE_WORKLOADS";

/// A workload that is built and ready to be put into a sandbox.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The name people type, such as `rust`.
    pub name: String,
    /// Statically linked executable: `EXECUTABLE CALLBACK-URL [--port N] [--static-file PATH] [--scratch DIRECTORY]`.
    pub executable: PathBuf,
    /// File that its `/static`, `/read` and `/unzip` use, if it is to have one.
    pub static_file: Option<PathBuf>,
    /// TCP port that it listens on.
    pub port: u16,
}

impl Workload {
    /// Finds a workload by its name, or by the path of an executable that keeps the same contract.
    ///
    /// # Errors
    /// When there is no such workload or executable.
    pub fn find(name: &str) -> Result<Self> {
        if name.contains('/') {
            let executable = PathBuf::from(name);
            check_executable(&executable)?;
            let name =
                executable.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
            return Ok(Self { name, executable: executable.canonicalize()?, static_file: None, port: PORT });
        }
        if !NAMES.contains(&name) {
            bail!(
                "there is no workload `{name}`; choose one of {}, or give the path of an executable",
                NAMES.join(", ")
            );
        }
        let directories = directories();
        let found = directories.iter().find(|directory| directory.join(name).join("app").is_file());
        let Some(directory) = found else {
            let places: Vec<_> = directories.iter().map(|place| place.display().to_string()).collect();
            bail!(
                "the workload `{name}` is not built (looked for {name}/app in {}); `cargo xtask workloads` builds it",
                places.join(", ")
            );
        };
        let executable = directory.join(name).join("app");
        check_executable(&executable)?;
        let static_file = Some(directory.join("static_file.zip")).filter(|file| file.is_file());
        Ok(Self { name: name.to_owned(), executable, static_file, port: PORT })
    }
}

/// Where workloads may be: where the environment says, else beside the build that this program is of, else where it runs.
fn directories() -> Vec<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return vec![directory.into()];
    }
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("workloads")));
    beside.into_iter().chain([PathBuf::from("target/workloads")]).collect()
}

fn check_executable(path: &Path) -> Result<()> {
    access(path, Access::EXEC_OK).with_context(|| format!("the workload {} can't be executed", path.display()))?;
    if !path.is_file() {
        bail!("the workload {} is not a file", path.display());
    }
    Ok(())
}
