//! What an instance leaves on the host outside of its directory, written down *before* it is made.
//!
//! Whoever finds the directory of a killed agent can so undo everything, however far it came. Not written down is what the
//! directory itself shows: its files and whatever is mounted below it, the network namespace among them.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Name of the journal in the directory of an instance.
const FILE: &str = "journal.jsonl";

/// Something on the host that has to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Resource {
    /// A container of a runtime with the command line of runc: `RUNTIME --root ROOT delete --force ID`.
    Container {
        /// Executable of the runtime.
        runtime: PathBuf,
        /// Where the runtime keeps its state; inside the instance's directory.
        root: PathBuf,
        /// Name of the container.
        id: String,
    },
    /// A veth pair.
    Veth {
        /// Name of the host's end.
        name: String,
        /// Link-layer address of the host's end, chosen at random: tells it from another device of that name.
        address: [u8; 6],
    },
    /// A container of the Docker daemon, with the instance's directory as its label.
    DockerContainer {
        /// Socket of the daemon.
        socket: PathBuf,
        /// Name of the container.
        name: String,
    },
    /// An image of the Docker daemon that is one instance's alone.
    DockerImage {
        /// Socket of the daemon.
        socket: PathBuf,
        /// Name of the image.
        name: String,
    },
    /// A cgroup directory.
    Cgroup {
        /// The directory, which did not exist before.
        path: PathBuf,
    },
    /// A setting of the kernel that is about to be changed.
    Setting {
        /// Its file.
        path: PathBuf,
        /// What it was before.
        value: String,
    },
}

/// The open journal of an instance.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal in the directory of an instance, or makes it.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self { file: file.with_context(|| format!("could not open {}", path.display()))?, path })
    }

    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// When the file can't be written; then the resource must not be made.
    pub fn record(&mut self, resource: &Resource) -> Result<()> {
        let mut line = serde_json::to_vec(resource).context("could not write a resource as JSON")?;
        line.push(b'\n');
        // One write, so that a kill leaves a whole line or none.
        self.file.write_all(&line).with_context(|| format!("could not write {}", self.path.display()))
    }
}

/// All that the journal in the directory of an instance names; nothing, if it has none.
///
/// # Errors
/// When the file can't be read, or holds what this version does not know.
pub fn read(directory: &Path) -> Result<Vec<Resource>> {
    let path = directory.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", path.display())),
    };
    // A last line without its end was cut off by a full disk, and its resource never made.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}:{} is not understood", path.display(), number + 1))
    };
    whole.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_back_and_a_cut_line_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), []);
        let veth = Resource::Veth { name: "ssa1".into(), address: [2, 0, 0, 0, 0, 1] };
        let cgroup = Resource::Cgroup { path: "/sys/fs/cgroup/sandscope-a1".into() };
        Journal::open(directory.path()).unwrap().record(&veth).unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.record(&cgroup).unwrap();
        journal.file.write_all(b"{\"kind\":\"ve").unwrap();
        assert_eq!(read(directory.path()).unwrap(), [veth, cgroup]);
    }
}
