//! The smallest microVM: a guest of a few instructions on `/dev/kvm`, in a VMM that is a program of its own. The floor for
//! VMMs, and the ground truth of the KVM probes, since it makes as many exits of each kind as it is told.

use super::{
    Instance, Readiness, RoleRule, Sandbox, Specification, Support,
    child::Program,
    instance::{HostInstance, Plan},
    runtime::sha256,
};
use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, path::PathBuf};

/// Name of the VMM's executable.
const EXECUTABLE: &str = "sandscope-kvm-floor";

const ROLES: &[RoleRule] = &[RoleRule { role: "vmm", contains: EXECUTABLE, forked: None }];

/// The kind `kvm-floor`.
#[derive(Clone, Debug, Default)]
pub struct KvmFloor {
    /// Executable of the VMM; `None`: the one beside the running program.
    pub executable: Option<PathBuf>,
    /// What the guest does before it is up.
    pub counts: Counts,
}

/// How often the guest does what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Writes to an I/O port.
    pub pio: u64,
    /// Halts.
    pub hlt: u64,
    /// Accesses to memory that the VMM emulates.
    pub mmio: u64,
    /// First touches of pages.
    pub touch: u64,
    /// Iterations of an empty loop.
    pub spin: u64,
}

impl Counts {
    fn named(self) -> [(&'static str, u64); 5] {
        let Self { pio, hlt, mmio, touch, spin } = self;
        [("pio", pio), ("hlt", hlt), ("mmio", mmio), ("touch", touch), ("spin", spin)]
    }
}

impl KvmFloor {
    /// Executable of the VMM.
    ///
    /// # Errors
    /// When it is not there.
    pub fn executable(&self) -> Result<PathBuf> {
        let path = match &self.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("could not find the running program")?.with_file_name(EXECUTABLE),
        };
        ensure!(
            path.is_file(),
            "there is no {}: it belongs beside sandscope; `cargo build` makes both",
            path.display()
        );
        Ok(path)
    }
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
        match kvm_ioctls::Kvm::new() {
            Ok(kvm) => Support::Ok {
                evidence: format!("/dev/kvm opens, API version {}; {}", kvm.get_api_version(), executable.display()),
            },
            Err(error) => Support::Unsupported {
                evidence: format!("/dev/kvm can't be opened: {error}"),
                remedy: "run as root or as a member of the group kvm, on a machine with hardware virtualisation; in a virtual \
                         machine, switch nested virtualisation on; or use the lab: `cargo xtask lab`"
                    .into(),
            },
        }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let path = self.executable()?;
        let hash = sha256(&path)?;
        let counts = self.counts.named().map(|(name, count)| (format!("kvm-floor.{name}"), count.to_string()));
        let program = [("path", path.display().to_string()), ("sha256", hash)];
        Ok(counts.into_iter().chain(program.map(|(name, value)| (format!("kvm-floor.{name}"), value))).collect())
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
            Ok(Plan {
                program: (program, console),
                files: vec![executable],
                readiness: Readiness::Console,
                roles: ROLES,
                network: None,
                conditions: BTreeMap::new(),
            })
        })
    }
}
