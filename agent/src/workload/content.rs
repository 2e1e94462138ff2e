//! What a workload consists of: one static executable, or a root file system with an interpreter, its libraries and a program.

use super::executable::ensure_static;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// File in the folder of a workload that says what is in it.
pub(super) const DESCRIPTION: &str = "workload.toml";
/// Folder beside it: the root file system.
const ROOT: &str = "root";
/// Where a static executable is, inside.
const EXECUTABLE: &str = "/app";

/// What a workload consists of.
#[derive(Clone, Debug)]
pub enum Content {
    /// A static executable that needs nothing else.
    Executable(PathBuf),
    /// A root file system.
    Root(Root),
}

/// A root file system with everything that a workload needs, and the places at which a sandbox adds to it: the folders `proc`,
/// `dev` and `tmp` and the empty file `static_file`.
#[derive(Clone, Debug)]
pub struct Root {
    /// The folder on the host.
    pub folder: PathBuf,
    /// What is executed, as it is seen inside.
    pub command: Vec<String>,
    /// Files on the host that the start reads.
    start_files: Vec<PathBuf>,
}

/// What [`DESCRIPTION`] holds. Paths are those seen inside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Description {
    command: Vec<String>,
    start_files: Vec<String>,
}

impl Content {
    /// What is at this path: a static executable, or a folder with a `workload.toml` and a root file system.
    ///
    /// # Errors
    /// When it is neither, or misses something; says what.
    pub fn at(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            ensure_static(path)?;
            return Ok(Self::Executable(path.to_owned()));
        }
        let description = path.join(DESCRIPTION);
        let text = fs::read_to_string(&description).with_context(|| {
            format!("the workload {} is a folder, but can't read its {DESCRIPTION}", path.display())
        })?;
        let Description { command, start_files } =
            toml::from_str(&text).with_context(|| format!("{} is not understood", description.display()))?;
        let folder = path.join(ROOT);
        let on_host = |inside: &String| folder.join(inside.trim_start_matches('/'));
        let program = command.first().with_context(|| format!("{}: `command` is empty", description.display()))?;
        for file in start_files.iter().chain([program, &"/static_file".to_owned()]) {
            ensure!(
                on_host(file).is_file(),
                "{} names {file}, which is not in {}",
                description.display(),
                folder.display()
            );
        }
        for place in ["proc", "dev", "tmp"] {
            ensure!(
                folder.join(place).is_dir(),
                "{} has no folder {place} for a sandbox to mount on",
                folder.display()
            );
        }
        let start_files = start_files.iter().map(on_host).collect();
        Ok(Self::Root(Root { folder, command, start_files }))
    }

    /// Fails when it has changed so that it can't be put into a sandbox any more; later that would come as `exec format error`
    /// from a runtime.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Executable(path) => ensure_static(path),
            Self::Root(root) => {
                ensure!(root.folder.is_dir(), "the workload's root file system {} is gone", root.folder.display());
                Ok(())
            }
        }
    }

    /// What is executed, as it is seen inside.
    pub fn command(&self) -> Vec<String> {
        match self {
            Self::Executable(_) => vec![EXECUTABLE.to_owned()],
            Self::Root(root) => root.command.clone(),
        }
    }

    /// Files on the host that the start reads.
    pub fn start_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Executable(path) => vec![path.clone()],
            Self::Root(root) => root.start_files.clone(),
        }
    }

    /// The file that is written last when it is built: its time is that of the build.
    pub fn written_last(&self) -> PathBuf {
        match self {
            Self::Executable(path) => path.clone(),
            Self::Root(root) => root.folder.with_file_name(DESCRIPTION),
        }
    }

    /// The file or folder on the host.
    pub fn path(&self) -> &Path {
        match self {
            Self::Executable(path) => path,
            Self::Root(root) => &root.folder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(description: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DESCRIPTION), description).unwrap();
        for place in ["proc", "dev", "tmp", "usr/bin", "app"] {
            fs::create_dir_all(folder.path().join("root").join(place)).unwrap();
        }
        for file in ["usr/bin/interpreter", "app/main", "static_file"] {
            fs::write(folder.path().join("root").join(file), "").unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_a_root_with_a_command() {
        let folder = folder("command = [\"/usr/bin/interpreter\", \"/app/main\"]\nstart-files = [\"/app/main\"]\n");
        let content = Content::at(folder.path()).unwrap();
        assert_eq!(content.command(), ["/usr/bin/interpreter", "/app/main"]);
        assert_eq!(content.start_files(), [folder.path().join("root/app/main")]);
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_named() {
        let error = |description: &str| format!("{:#}", Content::at(folder(description).path()).unwrap_err());
        assert!(error("command = []\nstart-files = []").contains("`command` is empty"));
        assert!(error("command = [\"/bin/x\"]\nstart-files = []").contains("/bin/x, which is not in"));
        assert!(error("command = [\"/app/main\"]\nfiles = []").contains("unknown field `files`"));
        let empty = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Content::at(empty.path()).unwrap_err());
        assert!(error.contains("can't read its workload.toml"), "{error}");
    }
}
