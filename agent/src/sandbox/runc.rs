//! The workload in a container by runc, driven directly: no daemon.

use super::{
    Instance, RoleRule, Sandbox, Specification, Support,
    oci::{self, Particulars, WORKLOAD},
    runtime::Runtime,
};
use anyhow::Result;
use std::collections::BTreeMap;

/// The kind `runc`.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runc {}

/// runc starts itself again as `runc init` (from `/proc/self/exe`, then from a sealed copy in memory), which makes the
/// container's namespaces and becomes the workload by exec.
const ROLES: &[RoleRule] = &[
    WORKLOAD,
    RoleRule { role: "runtime-init", contains: "runc init", forked: None },
    RoleRule { role: "runtime", contains: "runc", forked: None },
];

impl Sandbox for Runc {
    fn name(&self) -> &'static str {
        "runc"
    }

    fn about(&self) -> &'static str {
        "a container by runc: namespaces and cgroups of the host's kernel"
    }

    fn support(&self) -> Support {
        Runtime::support("runc")
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let mut provenance = Runtime::find("runc")?.provenance("runc")?;
        // A filter costs time at start and at each system call. gVisor's sentry applies none to the workload either.
        provenance.insert("runc.seccomp".into(), "none".into());
        Ok(provenance)
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        oci::prepare(specification, Runtime::find("runc")?, ROLES, |_, _| Ok(Particulars::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::rule_of;

    #[test]
    fn what_runc_1_1_executes_has_these_roles() {
        let role = |path, arguments: &[&str]| rule_of(ROLES, path, arguments).map(|rule| rule.role);
        let run =
            ["/usr/sbin/runc", "--root", "/run/sandscope/r/a1/state", "run", "--bundle", "/run/sandscope/r/a1/bundle"];
        assert_eq!(role("/usr/sbin/runc", &run), Some("runtime"));
        assert_eq!(role("/proc/self/exe", &["/usr/sbin/runc", "init"]), Some("runtime-init"));
        assert_eq!(role("/dev/fd/6", &["runc", "init"]), Some("runtime-init"));
        assert_eq!(
            role("/app", &["/app", "http://10.213.0.1:9000/ready/a1", "--scratch", "/tmp/unzipped"]),
            Some("workload")
        );
    }
}
