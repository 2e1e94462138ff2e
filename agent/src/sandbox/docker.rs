//! The workload in a container by the Docker daemon, with any of the runtimes that the daemon has configured.
//!
//! What is measured is what `docker run --detach` asks of the daemon: create the container, start it, one request each. Both are
//! inside the timed window. The image is not: it is made before, from the workload, without a registry (see `image.rs`).
//! The daemon is started by whoever wants it; sandscope only talks to it.

mod container;
pub(crate) mod daemon;
mod image;
mod instance;
mod watcher;

use super::{
    Abilities, Instance, RoleRule, Sandbox, Specification, Support, blocking, crun, oci::WORKLOAD,
    runtime::missing_capabilities,
};
use crate::nearest::suggestion;
use anyhow::Result;
use daemon::{Daemon, Runtimes};
use std::{collections::BTreeMap, path::Path, sync::OnceLock};

/// Runtimes that people know, whether or not the daemon has them.
const KNOWN: [&str; 4] = ["runc", "crun", "runsc", "kata"];

/// Names of kinds begin so, and go on with the runtime.
const PREFIX: &str = "docker-";

/// The daemon and containerd are threads that existed before (see [`Instance::daemons`]); these are what they start. Of the
/// runtimes those whose helpers have roles of their own are named; any other has the name of its program.
const ROLES: &[RoleRule] = &[
    RoleRule { role: "docker-init", contains: "docker-init", forked: None },
    WORKLOAD,
    RoleRule { role: "docker-proxy", contains: "docker-proxy", forked: None },
    // The daemon's own program, run by the runtime, moves a network device into the container.
    RoleRule { role: "network-hook", contains: "libnetwork-setkey", forked: None },
    RoleRule { role: "gofer", contains: "runsc-gofer", forked: None },
    RoleRule { role: "sentry", contains: "runsc-sandbox", forked: Some("stub") },
    RoleRule { role: "shim", contains: "containerd-shim", forked: None },
    RoleRule { role: "runtime-init", contains: "runc init", forked: None },
    RoleRule { role: "runtime", contains: "runsc", forked: None },
    RoleRule { role: "runtime", contains: "crun", forked: Some("runtime-init") },
    RoleRule { role: "runtime", contains: "runc", forked: None },
    // Helpers of runsc: itself under another name.
    RoleRule { role: "runtime", contains: "/proc/self/exe", forked: None },
    RoleRule { role: "containerd", contains: "containerd", forked: None },
];

/// The kinds `docker` and `docker-RUNTIME`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "Options")]
pub struct Docker {
    name: String,
    runtime: Option<String>,
}

/// What a definition says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    runtime: Option<String>,
}

impl From<Options> for Docker {
    fn from(options: Options) -> Self {
        Self::new(options.runtime)
    }
}

impl Docker {
    /// With this runtime of the daemon; `None`: with its default.
    pub fn new(runtime: Option<String>) -> Self {
        let name = runtime.as_ref().map_or_else(|| "docker".to_owned(), |runtime| format!("{PREFIX}{runtime}"));
        Self { name, runtime }
    }

    /// The kind of this name, whether or not the daemon has such a runtime.
    pub fn named(name: &str) -> Option<Self> {
        name.strip_prefix(PREFIX).filter(|runtime| !runtime.is_empty()).map(|runtime| Self::new(Some(runtime.into())))
    }

    /// The kinds to offer: the daemon's default, its other runtimes, and those that people know and it lacks.
    pub fn all() -> Vec<Self> {
        // What a daemon has configured does not change while a command runs.
        static OFFERED: OnceLock<(Option<String>, Vec<String>)> = OnceLock::new();
        let (default, configured) = OFFERED.get_or_init(|| {
            let asked = blocking::wait("docker", async || Daemon::connect().await?.runtimes().await);
            let answer = |runtimes: Runtimes| (Some(runtimes.default.clone()), runtimes.names());
            asked.map_or_else(|_| (None, Vec::new()), answer)
        });
        let mut names: Vec<String> = KNOWN.map(str::to_owned).into();
        names.extend(configured.iter().filter(|name| !KNOWN.contains(&name.as_str())).cloned());
        // With that runtime, it would be the same sandbox twice.
        names.retain(|name| Some(name) != default.as_ref());
        std::iter::once(Self::new(None)).chain(names.into_iter().map(|name| Self::new(Some(name)))).collect()
    }
}

impl Sandbox for Docker {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> &'static str {
        match self.runtime.as_deref() {
            None => "a container by the Docker daemon with its default runtime",
            Some("runc") => "a container by the Docker daemon with runc",
            Some("crun") => "a container by the Docker daemon with crun",
            Some("runsc") => "gVisor by the Docker daemon with runsc",
            Some("kata") => "a VM by the Docker daemon with Kata Containers",
            Some(_) => "a container by the Docker daemon with another of its runtimes",
        }
    }

    fn support(&self) -> Support {
        let wanted = self.runtime.clone();
        let asked = blocking::wait("docker", async || {
            let daemon = Daemon::connect().await?;
            let (runtimes, processes) = (daemon.runtimes().await?, daemon.processes().await);
            Ok((daemon, runtimes, processes))
        });
        let (daemon, runtimes, processes) = match asked {
            Ok(answers) => answers,
            Err(error) => {
                return Support::Unsupported { evidence: format!("{error:#}"), remedy: daemon::REMEDY.into() };
            }
        };
        let names = runtimes.names();
        let runtime = wanted.unwrap_or_else(|| runtimes.default.clone());
        let Some(details) = runtimes.get(&runtime) else {
            let nearest = suggestion(&runtime, names.iter().map(String::as_str));
            return Support::Unsupported {
                evidence: format!("{daemon} has no runtime `{runtime}`{nearest} (it has: {})", names.join(", ")),
                remedy: format!(
                    "install {runtime}, add it to `runtimes` in /etc/docker/daemon.json, and restart the daemon"
                ),
            };
        };
        let evidence = format!("{daemon}, runtime {runtime}{}", details.shown());
        if details.program.as_deref().and_then(Path::file_name).is_some_and(|program| program == "crun")
            && let Some(refusal) = crun::refusal()
        {
            return Support::Unsupported {
                evidence: format!("{evidence}; {refusal}, and nothing can be hidden from what a daemon starts"),
                remedy: "boot with systemd.unified_cgroup_hierarchy=1; or use the sandbox `crun`".into(),
            };
        }
        if let Some(missing) = missing_capabilities() {
            return Support::Degraded {
                evidence: format!("{evidence}; but {missing}"),
                remedy: "run as root: start times are measured, but not explained".into(),
            };
        }
        match processes {
            Ok(_) => Support::Ok { evidence },
            Err(error) => Support::Degraded {
                evidence: format!("{evidence}; {error:#}"),
                remedy: "run the daemon in the pid namespace of sandscope: its work can't be followed otherwise".into(),
            },
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities { server: true, host_file: true, apart: false }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let provenance = blocking::wait("docker", async || {
            let daemon = Daemon::connect().await?;
            Ok((daemon.versions(), daemon.runtimes().await?))
        });
        let (versions, runtimes) = provenance?;
        let runtime = self.runtime.as_ref().unwrap_or(&runtimes.default);
        let mut all: BTreeMap<String, String> =
            versions.into_iter().map(|(key, value)| (format!("{}.{key}", self.name), value)).collect();
        all.insert(format!("{}.runtime", self.name), runtime.clone());
        if let Some(details) = runtimes.get(runtime) {
            all.insert(format!("{}.runtime.arguments", self.name), details.arguments.join(" "));
            if let Some(program) = &details.program {
                let runtime = super::runtime::Runtime { path: program.clone() };
                all.extend(runtime.provenance(&format!("{}.runtime", self.name))?);
            }
        }
        Ok(all)
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        specification.check()?;
        instance::prepare(specification, self.runtime.as_deref())
    }
}

/// Removes the container of an instance, if there is one: what the journal wrote down.
///
/// # Errors
/// When the daemon does not answer or refuses; says what to do.
pub fn remove_container(directory: &Path, socket: &Path, name: &str) -> Result<()> {
    blocking::wait("docker", async || container::remove(&daemon::at(socket, name).await?, directory, name).await)
}

/// Removes what no instance needs: containers whose instance is gone, and images that no container uses. Returns what was
/// removed; nothing, if there is no daemon.
///
/// # Errors
/// When the daemon answers, but does not list what it has, or refuses.
pub fn sweep() -> Result<Vec<String>> {
    blocking::wait("docker", async || {
        let Ok(Daemon { client, .. }) = Daemon::connect().await else { return Ok(Vec::new()) };
        let containers =
            container::remove_orphans(&client).await?.into_iter().map(|name| format!("the container {name}"));
        let containers: Vec<_> = containers.collect();
        let images = image::remove_unused(&client).await?.into_iter().map(|name| format!("the image {name}"));
        Ok(containers.into_iter().chain(images).collect())
    })
}

/// Removes the image that was made for one instance alone.
///
/// # Errors
/// As [`remove_container`].
pub fn remove_image(socket: &Path, name: &str) -> Result<()> {
    blocking::wait("docker", async || image::remove(&daemon::at(socket, name).await?, name).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::rule_of;

    #[test]
    fn a_kind_is_named_by_its_runtime() {
        assert_eq!(Docker::new(None).name(), "docker");
        assert_eq!(Docker::named("docker-my-runc").unwrap().name(), "docker-my-runc");
        assert!(Docker::named("docker-").is_none() && Docker::named("runc").is_none());
    }

    #[test]
    fn what_docker_starts_has_these_roles() {
        let role = |path, arguments: &[&str]| rule_of(ROLES, path, arguments).map(|rule| rule.role);
        let shim = "/usr/bin/containerd-shim-runc-v2";
        let publish = ["-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd"];
        assert_eq!(role(shim, &[&[shim, "-namespace", "moby"], &publish[..]].concat()), Some("shim"));
        let log = "/run/containerd/io.containerd.runtime.v2.task/moby/1f/log.json";
        for path in ["/usr/bin/runc", "/usr/bin/crun", "/usr/bin/runsc"] {
            assert_eq!(role(path, &[path, "--log", log, "create"]), Some("runtime"), "{path}");
        }
        assert_eq!(role("/proc/self/exe", &["runc", "init"]), Some("runtime-init"));
        assert_eq!(role("/proc/self/exe", &["runsc-sandbox", "--log", log, "boot"]), Some("sentry"));
        assert_eq!(role("/proc/self/exe", &["runsc-gofer", "--log", log]), Some("gofer"));
        assert_eq!(role("/proc/25/exe", &["libnetwork-setkey", "-exec-root=/run/docker", "1f"]), Some("network-hook"));
        assert_eq!(role("/app", &["/app", "http://172.17.0.1:3999/ready/a1", "--port", "8080"]), Some("workload"));
        assert_eq!(role("/usr/bin/containerd", &["/usr/bin/containerd", "publish"]), Some("containerd"));
    }

    #[test]
    fn when_the_daemon_is_gone_it_is_said_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let error = remove_container(directory.path(), &socket, "sandscope-a1").unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("sandscope-a1") && error.contains(socket.to_str().unwrap()), "{error}");
        assert!(error.contains("start that daemon again and run `sandscope clean`"), "{error}");
    }
}
