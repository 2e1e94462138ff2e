//! The workload in gVisor by runsc, driven directly: a kernel in user space, on one of its platforms.

mod root_check;

use super::{
    Instance, RoleRule, Sandbox, Specification, Support,
    oci::{self, Particulars},
    runtime::Runtime,
};
use anyhow::Result;
use std::collections::BTreeMap;

/// The kinds `gvisor`, `gvisor-ptrace` and, by definition only, any platform.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gvisor {
    /// How the sentry runs the workload's code.
    pub platform: Platform,
}

/// How the sentry runs the workload's code and gets hold of its system calls. Always chosen, never runsc's default, which has
/// changed between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Traps system calls by seccomp and signals: the default of runsc since 2023.
    Systrap,
    /// `ptrace`: the oldest one; works everywhere.
    Ptrace,
    /// Hardware virtualisation by `/dev/kvm`.
    Kvm,
}

impl Platform {
    /// As runsc calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systrap => "systrap",
            Self::Ptrace => "ptrace",
            Self::Kvm => "kvm",
        }
    }
}

/// runsc starts itself again under these names. What the sentry forks and does not exec holds the workload's memory.
const ROLES: &[RoleRule] = &[
    RoleRule { role: "gofer", contains: "runsc-gofer", forked: None },
    RoleRule { role: "sentry", contains: "runsc-sandbox", forked: Some("stub") },
    RoleRule { role: "runtime", contains: "runsc", forked: None },
    // Helpers of the runtime: itself under another name.
    RoleRule { role: "runtime", contains: "/proc/self/exe", forked: None },
];

impl Sandbox for Gvisor {
    fn name(&self) -> &'static str {
        match self.platform {
            Platform::Systrap => "gvisor",
            Platform::Ptrace => "gvisor-ptrace",
            Platform::Kvm => "gvisor-kvm",
        }
    }

    fn about(&self) -> &'static str {
        match self.platform {
            Platform::Systrap => {
                "gVisor by runsc on its platform systrap: a kernel in user space, its own network stack"
            }
            Platform::Ptrace => "gVisor by runsc on its platform ptrace: a kernel in user space, its own network stack",
            Platform::Kvm => "gVisor by runsc on its platform kvm: a kernel in user space, its own network stack",
        }
    }

    fn support(&self) -> Support {
        Runtime::support("runsc")
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let runtime = Runtime::find("runsc")?;
        let name = self.name();
        let mut provenance = runtime.provenance(name)?;
        provenance.insert(format!("{name}.platform"), self.platform.name().into());
        Ok(provenance)
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        oci::prepare(specification, Runtime::find("runsc")?, ROLES, |runtime, network| {
            let stack = if network.private().is_some() { "sandbox" } else { "host" };
            let mut conditions = BTreeMap::from([
                ("platform".into(), self.platform.name().into()),
                ("network-stack".into(), stack.into()),
            ]);
            let mounts = network.private().map(|private| root_check::hide(runtime, private)).transpose()?.flatten();
            if mounts.is_some() {
                conditions.insert("root-check".into(), root_check::CONDITION.into());
            }
            let options = vec![
                format!("--platform={}", self.platform.name()),
                format!("--network={stack}"),
                // The root is read-only and the rest a tmpfs of the sentry: there is nothing to overlay.
                "--overlay2=none".into(),
            ];
            Ok(Particulars { options, mounts, conditions })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::rule_of;

    #[test]
    fn what_runsc_executes_has_these_roles() {
        let role = |path, arguments: &[&str]| rule_of(ROLES, path, arguments).map(|rule| (rule.role, rule.forked));
        let root = "--root=/run/sandscope/r/a1/state";
        assert_eq!(role("/usr/bin/runsc", &["/usr/bin/runsc", root, "run"]), Some(("runtime", None)));
        assert_eq!(role("/proc/self/exe", &["runsc-gofer", root, "gofer"]), Some(("gofer", None)));
        assert_eq!(role("/proc/self/exe", &["runsc-sandbox", root, "boot"]), Some(("sentry", Some("stub"))));
    }
}
