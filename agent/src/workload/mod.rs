//! What runs inside a sandbox, and how the agent talks to it.

pub mod callback;
pub mod client;
pub mod load;

mod content;
mod executable;

pub use content::{Content, Root};

use crate::nearest::suggestion;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Names of the workloads that come with sandscope.
pub const NAMES: [&str; 4] = ["rust", "go", "node", "python"];
/// TCP port that workloads listen on.
const PORT: u16 = 8080;
/// Directory that holds the workloads, a folder each; overrides the places that are looked at otherwise.
const DIRECTORY: &str = "SANDSCOPE_WORKLOADS";

/// A workload that is built and ready to be put into a sandbox.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The name people type, such as `rust`.
    pub name: String,
    /// What is executed: `COMMAND CALLBACK-URL [--port N] [--static-file PATH] [--scratch DIRECTORY]`.
    pub content: Content,
    /// File that its `/static`, `/read` and `/unzip` use, if it is to have one.
    pub static_file: Option<PathBuf>,
    /// TCP port that it listens on.
    pub port: u16,
}

impl Workload {
    /// Finds a workload by its name, or by the path of an executable or folder that keeps the same contract.
    ///
    /// # Errors
    /// When there is no such workload, or it can't be put into a sandbox.
    pub fn find(name: &str) -> Result<Self> {
        if name.contains('/') {
            let path = PathBuf::from(name);
            let path = path.canonicalize().with_context(|| format!("can't find the workload {}", path.display()))?;
            let name = path.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
            let content = Content::at(&path)?;
            return Ok(Self { name, content, static_file: None, port: PORT });
        }
        if !NAMES.contains(&name) {
            bail!(
                "there is no workload `{name}`{}; choose one of {}, or give the path of an executable",
                suggestion(name, NAMES),
                NAMES.join(", ")
            );
        }
        let directories = directories();
        let Some(directory) = directories.iter().find(|directory| is_built(&directory.join(name))) else {
            let places: Vec<_> = directories.iter().map(|place| place.display().to_string()).collect();
            bail!(
                "the workload `{name}` is not built (looked for {name} in {}); `cargo xtask workloads` builds it",
                places.join(", ")
            );
        };
        let folder = directory.join(name);
        let content =
            if folder.join("app").is_file() { Content::at(&folder.join("app")) } else { Content::at(&folder) }?;
        let static_file = Some(directory.join("static_file.zip")).filter(|file| file.is_file());
        Ok(Self { name: name.to_owned(), content, static_file, port: PORT })
    }

    /// A workload of one static executable, without a file to serve.
    pub fn of_executable(name: &str, executable: PathBuf) -> Self {
        Self { name: name.to_owned(), content: Content::Executable(executable), static_file: None, port: PORT }
    }

    /// Files of the host that its start reads: their state in the page cache is a condition.
    pub fn files(&self) -> Vec<PathBuf> {
        self.content.start_files().into_iter().chain(self.static_file.clone()).collect()
    }
}

fn is_built(folder: &Path) -> bool {
    folder.join("app").is_file() || folder.join(content::DESCRIPTION).is_file()
}

/// Where workloads may be: where the environment says, else beside the build that this program is of, else where it runs.
fn directories() -> Vec<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return vec![directory.into()];
    }
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("workloads")));
    beside.into_iter().chain([PathBuf::from("target/workloads")]).collect()
}
