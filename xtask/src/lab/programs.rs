//! The programs that run in the lab: sandscope, its tests, and the first process. They are those of the optimised build, which
//! the first command of the README and the integration tests make in any case; the shared libraries that they need are packed
//! with them, each at the place where the host has it.

use crate::{
    root::{root, target},
    root_file_system::libraries_of,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};

/// Integration tests of the agent that run in the lab: all that need a kernel.
const TESTS: [&str; 6] = ["probes", "kvm_exits", "kvm_floor", "critical_path", "stacks", "sandboxes"];
/// The tests inside the library.
pub const UNIT_TESTS: &str = "sandscope";
/// The one that starts virtual machines.
pub const MACHINES: &str = "machines";

/// What was built.
pub struct Programs {
    /// Tests by name, in the order in which they run.
    pub tests: Vec<(String, PathBuf)>,
    /// All others, by name.
    programs: Vec<(String, PathBuf)>,
}

impl Programs {
    /// The program of this name.
    ///
    /// # Errors
    /// When it was not built.
    pub fn get(&self, name: &str) -> Result<&PathBuf> {
        let found = self.programs.iter().find(|(known, _)| known == name);
        Ok(&found.with_context(|| format!("{name} was not built"))?.1)
    }

    /// All of them, tests included.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.tests.iter().chain(&self.programs).map(|(_, path)| path)
    }

    /// Copies of all of them without what only debuggers read: that is most of them, and the lab VM has them in its memory. Made
    /// once: several kernels are packed at the same time.
    fn strip(&self, shell: &Shell) -> Result<()> {
        shell.create_dir(stripped_folder())?;
        for program in self.all() {
            let copy = stripped(program);
            cmd!(shell, "strip --strip-debug -o {copy} {program}").quiet().run()?;
        }
        Ok(())
    }

    /// The shared libraries that they need, and what loads them.
    ///
    /// # Errors
    /// When the machine lacks one of them.
    pub fn libraries(&self, shell: &Shell) -> Result<BTreeSet<PathBuf>> {
        let all = self.all().map(|program| libraries_of(shell, program)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    }
}

/// The copy of a program that is packed.
pub fn stripped(program: &Path) -> PathBuf {
    stripped_folder().join(program.file_name().unwrap_or_default())
}

fn stripped_folder() -> PathBuf {
    target().join("lab/programs")
}

/// Folder that tests take for their temporary files on a disk: `CARGO_TARGET_TMPDIR` of the build.
pub fn tests_directory() -> PathBuf {
    target().join("tmp")
}

/// A line of cargo's report.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds them.
///
/// # Errors
/// When cargo fails.
pub fn build(shell: &Shell) -> Result<Programs> {
    let names: Vec<_> = TESTS.into_iter().chain([MACHINES]).collect();
    let tests = names.iter().flat_map(|name| ["--test", name]);
    let mut built = cargo(shell, "test", &["--no-run", "--package", "sandscope", "--lib"], tests)?;
    built.extend(cargo(shell, "build", &["--package", "lab-guest"], ["--bins"])?);
    let (tests, programs): (Vec<_>, Vec<_>) = built.into_iter().partition(|(_, _, is_test)| *is_test);
    let named = |list: Vec<(String, PathBuf, bool)>| list.into_iter().map(|(name, path, _)| (name, path));
    let mut tests: Vec<_> = named(tests).collect();
    // The unit tests of the library come first, then in the order of the list.
    tests.sort_by_key(|(name, _)| names.iter().position(|known| known == name));
    let programs = Programs { tests, programs: named(programs).collect() };
    programs.strip(shell)?;
    Ok(programs)
}

/// Name, file, and whether it is a test, of each executable that cargo makes.
fn cargo<'a>(
    shell: &Shell,
    command: &str,
    what: &[&str],
    more: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<(String, PathBuf, bool)>> {
    let _directory = shell.push_dir(root());
    let more: Vec<&str> = more.into_iter().collect();
    let report =
        cmd!(shell, "cargo {command} --locked --release {what...} {more...} --message-format json-render-diagnostics")
            .quiet()
            .read()?;
    let mut built = Vec::new();
    for line in report.lines() {
        let message: Message = serde_json::from_str(line).context("cargo's report makes no sense")?;
        if message.reason == "compiler-artifact"
            && let (Some(executable), Some(target), Some(profile)) =
                (message.executable, message.target, message.profile)
        {
            built.push((target.name, executable, profile.test));
        }
    }
    ensure!(!built.is_empty(), "cargo built nothing");
    Ok(built)
}
