//! A daemon in front of a runtime takes most of the time.

use crate::{
    diagnose::{Case, Evidence, Finding, Group, Quantity, Rule, Weight},
    experiment::statistics::median,
    report::units::{duration, percent},
    results::{Error, Kind, PathElement},
};

/// Part of the wall time that is a daemon's.
const TOLERATED: f64 = 0.40;

/// Roles that exist only because a daemon starts the sandbox.
const ROLES: [&str; 5] = ["dockerd", "containerd", "shim", "network-hook", "docker-proxy"];

pub(super) struct Daemon;

impl Rule for Daemon {
    fn name(&self) -> &'static str {
        "daemon"
    }

    fn about(&self) -> &'static str {
        "Containers of whose start 40 % or more is the daemon's, beside the runtime alone."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for group in case.groups() {
            let is_daemons = |who: &PathElement| who.role.as_deref().is_some_and(|role| ROLES.contains(&role));
            let Some(share) = case.share(group, is_daemons)? else { continue };
            if share.ratio < TOLERATED {
                continue;
            }
            let mut text = format!(
                "{} of a start ({}) is work of the daemon, not of the runtime",
                percent(share.ratio),
                duration(share.mean_ns)
            );
            let mut evidence = share.evidence();
            if let Some((alone, median_ns)) = alone(case, group)
                && let Some(with) = wall(group)
            {
                text += &format!(
                    ": it takes {}, and {} alone {} ({:.1} times as long)",
                    duration(with),
                    alone.sandbox,
                    duration(median_ns),
                    with / median_ns
                );
                let key = format!("sandbox={} median of wall_ns", alone.sandbox);
                evidence.push(Evidence::new("instances", key, Quantity::Ns(median_ns)));
            }
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text,
                evidence,
                next_step:
                    "The lines above say what the daemon does; docs/docker.md explains the usual ones (unmounts that \
                            write back a whole file system, the network hook). Where starts matter, keep containers \
                            created beforehand and only start them."
                        .to_owned(),
            });
        }
        Ok(findings)
    }
}

/// The runtime of a group without the daemon, if the same run started it with the same workload: `docker-runc` is runc's.
fn alone<'a>(case: &'a Case, group: &Group) -> Option<(&'a Group, f64)> {
    let runtime = match group.sandbox.strip_prefix("docker-") {
        Some("runsc") => "gvisor",
        Some(runtime) => runtime,
        None => "runc",
    };
    let kind = Kind { sandbox: runtime.to_owned(), ..group.kind.clone() };
    let alone = |other: &&Group| other.kind == kind;
    let alone = case.groups().iter().find(alone)?;
    Some((alone, wall(alone)?))
}

/// Median time of a start, without probes where there are such instances.
fn wall(group: &Group) -> Option<f64> {
    median(&group.walls(false)).or_else(|| median(&group.walls(true)))
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_daemon_is_compared_with_the_runtime_that_it_starts() {
        let mut scene = Scene::healthy();
        scene.spend("docker-runc", 0.8, Part::of("kernel", "dockerd").within("write"));
        let finding = scene.only_finding("daemon");
        assert!(finding.text.starts_with("82.0 % of a start"), "{}", finding.text);
        // The scene's `docker-runc` takes 40 ms, `runc` 25 ms.
        assert!(finding.text.ends_with("(1.6 times as long)"), "{}", finding.text);
        assert_eq!(finding.evidence[0].key, "category=kernel role=dockerd syscall=write");
    }
}
