//! What runs inside a sandbox, and how the agent talks to it.

pub mod callback;
pub mod client;

use std::path::PathBuf;

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
