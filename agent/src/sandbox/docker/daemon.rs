//! The Docker daemon: where it is, what it is, which runtimes it has, and which processes of this host it consists of.

use crate::sandbox::{Daemon as Process, child::SEARCH_PATH};
use anyhow::{Context as _, Result, bail};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{SystemInfo, SystemVersion},
};
use procfs::{
    net::UnixState,
    process::{FDTarget, Process as Procfs},
};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// What to do when there is no daemon.
pub const REMEDY: &str =
    "start the Docker daemon (`dockerd`, as root), or set DOCKER_HOST to its socket, such as unix:///run/docker.sock";

/// Where the daemon listens, unless the variable of the next line says otherwise: Docker's own default.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const ENDPOINT: &str = "DOCKER_HOST";
const UNIX: &str = "unix://";

/// Where containerd listens, unless the daemon says or was told otherwise.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// How long the daemon may take for an answer, in seconds. Starting a container may have to wait for a slow disk.
const TIMEOUT_S: u64 = 60;

/// A daemon that answers.
pub struct Daemon {
    /// Speaks to it.
    pub client: Docker,
    /// Its socket.
    pub socket: PathBuf,
    version: SystemVersion,
    info: SystemInfo,
}

/// The runtimes that a daemon has.
pub struct Runtimes {
    /// Name of the one for containers that ask for none.
    pub default: String,
    all: BTreeMap<String, Details>,
}

/// How a daemon runs one of them.
pub struct Details {
    /// The program, if the daemon tells and it is one of this host; else it is up to a shim of its own.
    pub program: Option<PathBuf>,
    /// Its arguments before all others.
    pub arguments: Vec<String>,
}

impl Details {
    /// As the end of a sentence.
    pub fn shown(&self) -> String {
        let program = self.program.as_ref().map_or(String::new(), |path| format!(" ({}", path.display()));
        let arguments: String = self.arguments.iter().map(|argument| format!(" {argument}")).collect();
        if program.is_empty() { arguments } else { format!("{program}{arguments})") }
    }
}

impl Runtimes {
    /// Their names; not those that stand for a version of the shim with runc.
    pub fn names(&self) -> Vec<String> {
        self.all.keys().filter(|name| !name.starts_with("io.containerd.")).cloned().collect()
    }

    /// How this one is run.
    pub fn get(&self, name: &str) -> Option<&Details> {
        self.all.get(name)
    }
}

/// The socket that [`ENDPOINT`] names, or the default.
fn endpoint() -> Result<PathBuf> {
    match std::env::var(ENDPOINT) {
        Ok(text) if !text.is_empty() => match text.strip_prefix(UNIX) {
            Some(path) => Ok(path.into()),
            None => bail!(
                "{ENDPOINT} is `{text}`, but what a daemon does can only be followed on the same host: set it to the daemon's \
                 Unix socket"
            ),
        },
        _ => Ok(DEFAULT_SOCKET.into()),
    }
}

/// A client of the daemon at this socket, which an instance used; `what` is to be removed there.
pub async fn at(socket: &Path, what: &str) -> Result<Docker> {
    client(socket).await.with_context(|| {
        format!(
            "could not remove {what} from Docker: start that daemon again and run `sandscope clean`; if it is gone for good, \
             so is what it had, and the directory of the run can be removed by hand"
        )
    })
}

async fn client(socket: &Path) -> Result<Docker> {
    let failed = || format!("the Docker daemon does not answer at {}", socket.display());
    let path = socket.to_str().context("the path of the daemon's socket is no UTF-8").with_context(failed)?;
    let client = Docker::connect_with_unix(path, TIMEOUT_S, API_DEFAULT_VERSION).with_context(failed)?;
    client.negotiate_version().await.with_context(failed)
}

impl Daemon {
    /// The daemon that the environment names, or the default.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect() -> Result<Self> {
        let socket = endpoint()?;
        let client = client(&socket).await?;
        let version = client.version().await.context("the Docker daemon does not tell its version")?;
        let info = client.info().await.context("the Docker daemon does not tell about itself")?;
        Ok(Self { client, socket, version, info })
    }

    /// Its runtimes.
    ///
    /// # Errors
    /// When it names no default.
    pub async fn runtimes(&self) -> Result<Runtimes> {
        let default = self.info.default_runtime.clone().context("the Docker daemon names no default runtime")?;
        let all = self.info.runtimes.iter().flatten().map(|(name, runtime)| {
            let program = runtime.path.as_deref().and_then(program);
            let arguments = runtime.runtime_args.clone().unwrap_or_default();
            (name.clone(), Details { program, arguments })
        });
        Ok(Runtimes { default, all: all.collect() })
    }

    /// Versions and settings that matter to who compares figures.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let info = &self.info;
        let components = self.version.components.iter().flatten();
        let mut all: BTreeMap<String, String> =
            components.map(|part| (format!("{}.version", part.name.to_lowercase()), part.version.clone())).collect();
        let settings = [
            ("storage-driver", info.driver.clone()),
            ("cgroup-driver", info.cgroup_driver.as_ref().map(ToString::to_string)),
            ("cgroup-version", info.cgroup_version.as_ref().map(ToString::to_string)),
            ("security", info.security_options.as_ref().map(|options| options.join(" "))),
        ];
        all.extend(settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        all
    }

    /// The processes of this host that the daemon consists of: itself and containerd.
    ///
    /// # Errors
    /// When they are not to be found.
    pub async fn processes(&self) -> Result<Vec<Process>> {
        let daemon = listener(&self.socket)?
            .with_context(|| format!("no process that can be seen here listens at {}", self.socket.display()))?;
        let pid = daemon.pid;
        let containerd = self.containerd(&daemon)?.context("the daemon's containerd can't be found")?;
        Ok(vec![Process { pid, role: "dockerd" }, Process { pid: containerd.pid, role: "containerd" }])
    }

    /// A child of the daemon, or who listens where the daemon says, or was told, that it finds it.
    fn containerd(&self, daemon: &Procfs) -> Result<Option<Procfs>> {
        let is_child =
            |process: &Procfs| process.stat().is_ok_and(|stat| stat.ppid == daemon.pid && stat.comm == "containerd");
        let all = procfs::process::all_processes().context("could not list /proc")?;
        if let Some(child) = all.flatten().find(is_child) {
            return Ok(Some(child));
        }
        let told = self.info.containerd.as_ref().and_then(|containerd| containerd.address.clone());
        let arguments = daemon.cmdline().context("could not read the daemon's command line")?;
        let address = told.or_else(|| option(&arguments, "--containerd"));
        listener(Path::new(address.as_deref().unwrap_or(CONTAINERD_SOCKET)))
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.version.as_deref().unwrap_or("of unknown version");
        write!(out, "Docker {version} at {}", self.socket.display())
    }
}

/// The program that a runtime's path or name leads to.
fn program(path: &str) -> Option<PathBuf> {
    let mut candidates = SEARCH_PATH.split(':').map(|directory| Path::new(directory).join(path));
    // Joined to an absolute path, a directory has no effect.
    candidates.find(|path| path.is_file())
}

/// Value of an option of a command line, written as one word or as two.
fn option(arguments: &[String], name: &str) -> Option<String> {
    let position = arguments.iter().position(|argument| argument.split('=').next() == Some(name))?;
    match arguments[position].split_once('=') {
        Some((_, value)) => Some(value.to_owned()),
        None => arguments.get(position + 1).cloned(),
    }
}

/// Who listens at this socket. Not process 1, which may have opened it on behalf of who does.
fn listener(socket: &Path) -> Result<Option<Procfs>> {
    let real = socket.canonicalize().ok();
    let same = |path: &Path| path == socket || (real.is_some() && path.canonicalize().ok() == real);
    let sockets = procfs::net::unix().context("could not read /proc/net/unix")?;
    // Those that it has accepted have the same path, and are connected.
    let listens = sockets.into_iter().filter(|entry| entry.state == UnixState::UNCONNECTED);
    let inodes: Vec<u64> =
        listens.filter(|entry| entry.path.as_deref().is_some_and(same)).map(|entry| entry.inode).collect();
    let holds = |process: &Procfs| {
        process.fd().is_ok_and(|descriptors| {
            descriptors.flatten().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
        })
    };
    let all = procfs::process::all_processes().context("could not list /proc")?;
    Ok(all.flatten().find(|process| process.pid != 1 && holds(process)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_both_spellings() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let two = words("dockerd --host unix:///d.sock --containerd /c.sock");
        assert_eq!(option(&two, "--containerd").as_deref(), Some("/c.sock"));
        assert_eq!(option(&words("dockerd --containerd=/c.sock"), "--containerd").as_deref(), Some("/c.sock"));
        assert_eq!(option(&words("dockerd --containerd-namespace x"), "--containerd"), None);
        assert_eq!(option(&words("dockerd --containerd"), "--containerd"), None);
    }

    #[test]
    fn who_listens_is_found_through_links() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, link) = (directory.path().join("s"), directory.path().join("l"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        for path in [&socket, &link] {
            assert_eq!(listener(path).unwrap().unwrap().pid, std::process::id().cast_signed());
        }
        assert!(listener(&directory.path().join("other")).unwrap().is_none());
    }
}
