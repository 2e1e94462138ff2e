//! Packs an interpreter with the shared libraries it needs into a root file system: what a container image would hold, made from
//! the programs of this machine, so that no registry is needed.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};

/// Where a sandbox mounts something.
const MOUNT_POINTS: [&str; 3] = ["proc", "dev", "tmp"];
/// Where the served file is mounted.
const STATIC_FILE: &str = "static_file";

/// A root file system in the making.
pub struct RootFileSystem<'a> {
    shell: &'a Shell,
    folder: PathBuf,
    libraries: BTreeSet<PathBuf>,
    /// As seen inside.
    start_files: Vec<String>,
}

impl<'a> RootFileSystem<'a> {
    /// Begins an empty one in the folder `root` of a workload's folder, which is emptied.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn create(shell: &'a Shell, workload: &Path) -> Result<Self> {
        shell.remove_path(workload)?;
        let folder = workload.join("root");
        for place in MOUNT_POINTS {
            shell.create_dir(folder.join(place))?;
        }
        shell.write_file(folder.join(STATIC_FILE), "")?;
        Ok(Self { shell, folder, libraries: BTreeSet::new(), start_files: Vec::new() })
    }

    /// Where on this machine something is that is seen inside at an absolute path.
    pub fn inside(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Puts a program of this machine where it is here, with the libraries that it needs. Its start reads them.
    ///
    /// # Errors
    /// When something is missing.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        self.copy(program, program)?;
        let libraries = libraries_of(self.shell, program)?;
        self.start_files.extend([program].into_iter().chain(libraries.iter().map(PathBuf::as_path)).map(shown));
        self.add_libraries(libraries)
    }

    /// Puts a folder of this machine where it is here, without the entries whose names are left out, with the libraries that the
    /// shared objects in it need.
    ///
    /// # Errors
    /// When something can't be read.
    pub fn add_folder(&mut self, folder: &Path, left_out: &[&str]) -> Result<()> {
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop() {
            for path in self.shell.read_dir(&folder)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if left_out.iter().any(|left_out| name == *left_out) {
                    continue;
                }
                if path.is_dir() {
                    pending.push(path);
                } else if path.is_file() {
                    self.copy(&path, &path)?;
                    if name.contains(".so") {
                        let libraries = libraries_of(self.shell, &path)?;
                        self.add_libraries(libraries)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts the files of the program itself, those with this extension in a folder, into `/app`. Its start reads them.
    ///
    /// # Errors
    /// When a file can't be copied.
    pub fn add_application(&mut self, folder: &Path, extensions: &[&str]) -> Result<()> {
        for path in self.shell.read_dir(folder)? {
            let extension = path.extension().unwrap_or_default();
            if path.is_file() && extensions.iter().any(|wanted| extension == *wanted) {
                let inside = Path::new("/app").join(path.file_name().unwrap_or_default());
                self.copy(&path, &inside)?;
                self.start_files.push(shown(&inside));
            }
        }
        Ok(())
    }

    /// Writes down what is in it, for the agent.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(self, command: &[&str]) -> Result<()> {
        let list = |items: &[String]| {
            let items: Vec<_> = items.iter().map(|item| format!("    {item:?},\n")).collect();
            format!("[\n{}]\n", items.concat())
        };
        let command: Vec<_> = command.iter().map(ToString::to_string).collect();
        let text = format!("command = {}start-files = {}", list(&command), list(&self.start_files));
        self.shell.write_file(self.folder.with_file_name("workload.toml"), text)?;
        Ok(())
    }

    fn add_libraries(&mut self, libraries: Vec<PathBuf>) -> Result<()> {
        for library in libraries {
            if self.libraries.insert(library.clone()) {
                self.copy(&library, &library)?;
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, inside: &Path) -> Result<()> {
        let to = self.inside(inside);
        self.shell.create_dir(to.parent().unwrap_or(&self.folder))?;
        fs::copy(from, &to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }
}

/// The shared libraries of a program of this machine, the loader among them.
///
/// # Errors
/// When `ldd` does not run, or the machine lacks one of them.
pub fn libraries_of(shell: &Shell, program: &Path) -> Result<Vec<PathBuf>> {
    let text = cmd!(shell, "ldd {program}").quiet().ignore_stderr().ignore_status().read()?;
    let mut libraries = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("{} needs a library that this machine does not have: {}", program.display(), line.trim());
        }
        // `name => /path (address)`, or `/path (address)` for the loader.
        let path = line.rsplit("=> ").next().unwrap_or(line).trim().split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
