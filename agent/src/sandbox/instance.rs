//! What the instances of all kinds have in common: one program of the host that is started, watched and removed.

use super::{
    Instance, Readiness, RoleRule,
    child::{Child, Program},
    console::Console,
    journal::Journal,
    network::{Network, Private},
    undo::{self, undo},
};
use anyhow::{Result, bail};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a kind of sandbox decides about an instance.
pub struct Plan {
    /// The program to start, and what it will print.
    pub program: (Program, Console),
    /// See [`Instance::files`].
    pub files: Vec<PathBuf>,
    /// See [`Instance::readiness`].
    pub readiness: Readiness,
    /// See [`Instance::roles`].
    pub roles: &'static [RoleRule],
    /// Its network, if it has any.
    pub network: Option<Network>,
    /// See [`Instance::conditions`].
    pub conditions: BTreeMap<String, String>,
}

/// An instance that is one program of the host, with its descendants.
pub struct HostInstance {
    directory: PathBuf,
    files: Vec<PathBuf>,
    readiness: Readiness,
    roles: &'static [RoleRule],
    network: Option<Network>,
    conditions: BTreeMap<String, String>,
    console: Console,
    stage: Stage,
    removed: bool,
}

enum Stage {
    Prepared(Program),
    Started(Child),
    /// Stopped, or failed to start.
    Over,
}

impl HostInstance {
    /// Carries out what `plan` does, which writes to the journal what has to be undone, and undoes it if it fails.
    ///
    /// # Errors
    /// Those of `plan`.
    pub fn prepare(directory: &Path, plan: impl FnOnce(&mut Journal) -> Result<Plan>) -> Result<Box<dyn Instance>> {
        match Journal::open(directory).and_then(|mut journal| plan(&mut journal)) {
            Ok(Plan { program: (program, console), files, readiness, roles, network, conditions }) => {
                Ok(Box::new(Self {
                    directory: directory.to_owned(),
                    files,
                    readiness,
                    roles,
                    network,
                    conditions,
                    console,
                    stage: Stage::Prepared(program),
                    removed: false,
                }))
            }
            Err(error) => {
                for failure in undo(directory) {
                    tracing::warn!("{failure:#}");
                }
                Err(error)
            }
        }
    }
}

impl Instance for HostInstance {
    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn readiness(&self) -> Readiness {
        self.readiness
    }

    fn roles(&self) -> &'static [RoleRule] {
        self.roles
    }

    fn conditions(&self) -> &BTreeMap<String, String> {
        &self.conditions
    }

    fn launch(&mut self) -> Result<()> {
        let Stage::Prepared(program) = std::mem::replace(&mut self.stage, Stage::Over) else {
            bail!("an instance can be launched only once");
        };
        self.stage = Stage::Started(program.spawn()?);
        Ok(())
    }

    fn failure(&mut self) -> Option<String> {
        match &mut self.stage {
            Stage::Prepared(_) => None,
            Stage::Started(child) => child.failure(&self.console),
            Stage::Over => Some("it was stopped, or never started".into()),
        }
    }

    fn console(&self) -> &Console {
        &self.console
    }

    fn network(&self) -> Option<&Private> {
        self.network.as_ref().and_then(Network::private)
    }

    fn members(&self) -> Result<Vec<i32>> {
        undo::members(&self.directory)
    }

    fn stop(&mut self) -> Result<()> {
        if self.removed {
            return Ok(());
        }
        let killed = if let Stage::Started(child) = &mut self.stage { child.kill() } else { Ok(()) };
        let mut failures = undo(&self.directory);
        failures.extend(killed.err());
        if !failures.is_empty() {
            let failures: Vec<_> = failures.iter().map(|failure| format!("{failure:#}")).collect();
            bail!("could not remove all of an instance:\n{}", failures.join("\n"));
        }
        self.stage = Stage::Over;
        self.removed = true;
        Ok(())
    }
}

impl Drop for HostInstance {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!("{error:#}");
        }
    }
}
