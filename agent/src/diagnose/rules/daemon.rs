//! A daemon in front of a runtime takes most of the time.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Group, Quantity, Rule, Topic,
        starts::{self, Told},
    },
    experiment::statistics::median,
    record::tables::Execution,
    report::units::duration,
    results::{Error, Kind, PathElement},
};
use std::collections::BTreeMap;

/// Part of the wall time that is a daemon's.
const TOLERATED: f64 = 0.40;

/// Roles that exist only because a daemon starts the sandbox.
const ROLES: [&str; 5] = ["dockerd", "containerd", "shim", "network-hook", "docker-proxy"];

/// Programs that are named.
const PROGRAMS: usize = 4;

const NEXT_STEP: &str = "docs/docker.md explains what the daemon does in that time (unmounts that write back a whole file system, the network \
                         hook). Where starts matter, keep containers created beforehand and only start them.";

pub(super) struct Daemon;

impl Rule for Daemon {
    fn name(&self) -> &'static str {
        "daemon"
    }

    fn about(&self) -> &'static str {
        "Containers of whose start 40 % or more is the daemon's, beside the runtime alone."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let is_daemons = |who: &PathElement| who.role.as_deref().is_some_and(|role| ROLES.contains(&role));
        starts::above(self, case, TOLERATED, is_daemons, |group, _, share| {
            let mut text = format!("is the daemon that works or is waited for, not the runtime: {}", share.words());
            let mut evidence = Vec::new();
            if let Some((alone, median_ns)) = alone(case, group)
                && let Some(with) = wall(group)
            {
                text += &format!(
                    ". It takes {}, and {} alone {} ({:.1} times as long)",
                    duration(with),
                    alone.sandbox,
                    duration(median_ns),
                    with / median_ns
                );
                let key = format!("sandbox={} median of wall_ns", alone.sandbox);
                evidence.push(Evidence::new("instances", key, Quantity::Ns(median_ns)));
            }
            let executed = executed(case, group)?;
            if !executed.is_empty() {
                text += &format!(". Per start it executes {}", executed.join(", "));
            }
            Ok(Some(Told { text, evidence, next_step: NEXT_STEP.to_owned() }))
        })
    }
}

/// The programs that a start executes, those that are longest on the critical path first, as `runc 4 times (12.0 ms)`.
fn executed(case: &Case, group: &Group) -> Result<Vec<String>, Error> {
    let (explained, mut programs) = (group.explained(), BTreeMap::<&str, (u64, u64)>::new());
    let table = case.run().observed::<Execution>()?;
    for row in table.iter().flat_map(|table| &table.rows).filter(|row| explained.contains(row.instance_id.as_str())) {
        let name = row.program.rsplit('/').next().unwrap_or_default();
        let sum = programs.entry(name).or_default();
        *sum = (sum.0 + 1, sum.1 + row.path_ns);
    }
    let mut programs: Vec<_> = programs.into_iter().collect();
    programs.sort_by_key(|&(_, (_, path_ns))| std::cmp::Reverse(path_ns));
    let starts = explained.len() as f64;
    let told = |(name, (count, path_ns)): (&str, (u64, u64))| {
        let times = count as f64 / starts;
        let times = if (times - 1.0).abs() < 0.05 { "once".to_owned() } else { format!("{times:.0} times") };
        format!("{name} {times} ({} of the path)", duration(path_ns as f64 / starts))
    };
    Ok(programs.into_iter().take(PROGRAMS).map(told).collect())
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
    use crate::diagnose::testing::{Part, Scene, execution};

    #[test]
    fn a_daemon_is_compared_with_the_runtime_that_it_starts() {
        let mut scene = Scene::healthy();
        scene.spend("docker-runc", 0.8, Part::of("kernel", "dockerd").within("write"));
        for id in scene.probed("docker-runc") {
            scene
                .executions
                .extend(["create", "init", "start"].map(|what| (id.clone(), execution("/usr/bin/runc", what))));
        }
        let finding = scene.only_finding("daemon");
        assert!(finding.text.starts_with("For 82.0 % of a start"), "{}", finding.text);
        // The scene's `docker-runc` takes 40 ms, `runc` 25 ms.
        assert!(finding.text.contains("(1.6 times as long). Per start it executes runc 3 times"), "{}", finding.text);
        assert_eq!(finding.evidence[0].key, "category=kernel role=dockerd syscall=write");
    }
}
