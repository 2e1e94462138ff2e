//! The smallest microVM: a guest of a few instructions on `/dev/kvm`, in a VMM that is a program of its own. The floor for
//! VMMs, and the ground truth of the KVM probes, since it makes as many exits of each kind as it is told.

use super::{
    Abilities, Instance, Readiness, RoleRule, Sandbox, Specification, Support,
    child::Program,
    instance::{HostInstance, Plan},
    runtime::sha256,
};
use crate::host::virtualization;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Name of the VMM's executable.
const EXECUTABLE: &str = "sandscope-kvm-floor";

/// Milestone of the console that follows everything the guest was told to do.
const DONE: &str = "guest_done";

const ROLES: &[RoleRule] = &[RoleRule { role: "vmm", contains: EXECUTABLE, forked: None }];

/// The kind `kvm-floor`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(from = "Counts")]
pub struct KvmFloor {
    /// Executable of the VMM; `None`: the one beside the running program.
    pub executable: Option<PathBuf>,
    /// What the guest does after its first words.
    pub counts: Counts,
}

/// How often the guest does what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Counts {
    /// Writes to an I/O port.
    pub pio: u64,
    /// Halts.
    pub hlt: u64,
    /// How long the timer runs that ends a halt, in nanoseconds; 0: as long as the VMM's default.
    pub hlt_interval_ns: u64,
    /// Accesses to memory that the VMM emulates.
    pub mmio: u64,
    /// First touches of pages.
    pub touch: u64,
    /// Iterations of an empty loop.
    pub spin: u64,
}

impl Counts {
    /// Option of the VMM and value, for each that is not zero.
    fn named(self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { pio, hlt, hlt_interval_ns, mmio, touch, spin } = self;
        let all = [
            ("pio", pio),
            ("hlt", hlt),
            ("hlt-interval-ns", hlt_interval_ns),
            ("mmio", mmio),
            ("touch", touch),
            ("spin", spin),
        ];
        all.into_iter().filter(|&(_, value)| value != 0)
    }
}

impl From<Counts> for KvmFloor {
    fn from(counts: Counts) -> Self {
        Self { executable: None, counts }
    }
}

impl KvmFloor {
    /// Executable of the VMM.
    ///
    /// # Errors
    /// When it is not there.
    pub fn executable(&self) -> Result<PathBuf> {
        executable(self.executable.as_deref())
    }
}

/// Executable of the floor at this path; without one, the one beside the running program.
///
/// # Errors
/// When it is not there.
pub(super) fn executable(path: Option<&Path>) -> Result<PathBuf> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("could not find the running program")?.with_file_name(EXECUTABLE),
    };
    ensure!(path.is_file(), "there is no {}: it belongs beside sandscope; `cargo build` makes both", path.display());
    Ok(path)
}

impl Sandbox for KvmFloor {
    fn name(&self) -> &'static str {
        "kvm-floor"
    }

    fn about(&self) -> &'static str {
        "a built-in microVM with a guest of a few instructions; the floor for VMMs"
    }

    fn support(&self) -> Support {
        let executable = match self.executable() {
            Ok(path) => path,
            Err(error) => {
                let remedy = "build it with `cargo build`, or install it beside sandscope".into();
                return Support::Unsupported { evidence: format!("{error:#}"), remedy };
            }
        };
        match virtualization::kvm() {
            Ok(version) => {
                Support::Ok { evidence: format!("/dev/kvm opens, API version {version}; {}", executable.display()) }
            }
            Err(missing) => Support::Unsupported { evidence: missing, remedy: virtualization::REMEDY.into() },
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities { server: false, host_file: false, apart: true }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let path = self.executable()?;
        let hash = sha256(&path)?;
        let counts = self.counts.named().map(|(name, count)| (format!("kvm-floor.{name}"), count.to_string()));
        let program = [("path", path.display().to_string()), ("sha256", hash)];
        Ok(counts.chain(program.map(|(name, value)| (format!("kvm-floor.{name}"), value))).collect())
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        specification.check()?;
        let executable = self.executable()?;
        HostInstance::prepare(&specification.directory, |_| {
            let (mut program, console) = Program::new(&executable, &specification.directory)?;
            for (name, count) in self.counts.named() {
                program.argument(format!("--{name}"))?.argument(count.to_string())?;
            }
            program.argument("--stay")?;
            console.expect(DONE, "sandscope floor: done");
            Ok(Plan {
                program: (program, console),
                files: vec![executable],
                readiness: Readiness::Console { done: DONE },
                roles: ROLES,
                network: None,
                conditions: BTreeMap::new(),
            })
        })
    }
}
