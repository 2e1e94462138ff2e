//! The workload in a container by crun, driven directly: the same container as runc's, by a runtime written in C.

use super::{
    Instance, RoleRule, Sandbox, Specification, Support, blocking, mounts,
    oci::{self, Particulars, WORKLOAD},
    runtime::Runtime,
};
use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};
use std::{collections::BTreeMap, fs, path::Path};

/// The kind `crun`.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crun {}

/// crun forks a child, which makes the container's surroundings and becomes the workload by exec.
const ROLES: &[RoleRule] = &[WORKLOAD, RoleRule { role: "runtime", contains: "crun", forked: Some("runtime-init") }];

/// Where hosts with both versions of cgroups mount the second.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// What the manifest says of an instance that was started with [`UNIFIED`] hidden.
const HIDDEN: &str = "/sys/fs/cgroup/unified hidden from crun, which refuses controllers in both versions";

/// Why crun starts nothing on this host unless `UNIFIED` is hidden from it; `None` when it does.
///
/// It refuses version 1 of cgroups when version 2 is mounted beside it and has controllers too.
pub fn refusal() -> Option<String> {
    let controllers = fs::read_to_string(Path::new(UNIFIED).join("cgroup.controllers")).ok()?;
    let controllers = controllers.trim();
    (!controllers.is_empty()).then(|| {
        format!("crun refuses version 1 of cgroups beside a version 2 with controllers ({UNIFIED} has {controllers})")
    })
}

impl Sandbox for Crun {
    fn name(&self) -> &str {
        "crun"
    }

    fn about(&self) -> &'static str {
        "a container by crun: namespaces and cgroups of the host's kernel"
    }

    fn support(&self) -> Support {
        match (Runtime::support("crun"), refusal()) {
            (Support::Ok { evidence }, Some(refusal)) => {
                Support::Ok { evidence: format!("{evidence}; {refusal}: it is hidden from it") }
            }
            (support, _) => support,
        }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let mut provenance = Runtime::find("crun")?.provenance("crun")?;
        provenance.insert("crun.seccomp".into(), "none".into());
        Ok(provenance)
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        oci::prepare(specification, Runtime::find("crun")?, ROLES, |_, _| {
            let mut particulars = Particulars::default();
            if refusal().is_some() {
                let hide =
                    || unmount(UNIFIED, UnmountFlags::DETACH).with_context(|| format!("could not hide {UNIFIED}"));
                particulars.mounts = Some(blocking::on_a_thread("mounts", || mounts::namespace(hide))?);
                particulars.conditions.insert("cgroups".into(), HIDDEN.into());
            }
            Ok(particulars)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::rule_of;

    #[test]
    fn what_crun_1_8_executes_has_these_roles() {
        let role = |path, arguments: &[&str]| rule_of(ROLES, path, arguments).map(|rule| (rule.role, rule.forked));
        let run = ["/usr/bin/crun", "--root", "/run/sandscope/r/a1/state", "run", "a1"];
        assert_eq!(role("/usr/bin/crun", &run), Some(("runtime", Some("runtime-init"))));
        // A sealed copy of itself in memory.
        assert_eq!(role("/proc/self/fd/5", &run), Some(("runtime", Some("runtime-init"))));
        let workload = ["/app", "http://10.213.0.1:9000/ready/a1", "--port", "8080"];
        assert_eq!(role("/app", &workload), Some(("workload", None)));
    }
}
