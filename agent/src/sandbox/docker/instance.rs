//! One container of the Docker daemon, from prepared to removed.

use super::{
    ROLES, container,
    daemon::Daemon,
    image::{self, Image},
    watcher::{End, Watcher},
};
use crate::sandbox::{
    Daemon as Process, Device, Instance, Readiness, RoleRule, Specification, blocking,
    child::quote,
    console::Console,
    journal::{Journal, Resource},
    network::{Mode, Private},
    resources::FileSharing,
    runtime::Runtime as Program,
    undo::undo,
};
use crate::workload::Content;
use anyhow::{Context as _, Result, bail};
use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, StartContainerOptions,
    },
};
use rustix::thread::{CpuSet, sched_getaffinity};
use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf};
use tokio::runtime::Runtime;

/// Option of a bridge network: the name of the bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// The network that containers get unless they ask for another.
const DEFAULT_NETWORK: &str = "bridge";

/// The program between containerd and a runtime with the command line of runc.
const SHIM: &str = "containerd-shim-runc-v2";

/// A container.
struct Container {
    directory: PathBuf,
    name: String,
    client: Docker,
    /// For the two requests; gone when they were sent.
    runtime: Option<Runtime>,
    stage: Stage,
    /// CPUs that the preparing thread might use: those of a thread that is not pinned.
    cpus: CpuSet,
    console: Console,
    prints: bool,
    memory_bytes: Option<u64>,
    watcher: Option<Watcher>,
    files: Vec<PathBuf>,
    readiness: Readiness,
    conditions: BTreeMap<String, String>,
    host: Ipv4Addr,
    device: Option<Device>,
    daemons: Vec<Process>,
}

enum Stage {
    Prepared(Box<ContainerCreateBody>),
    Started,
    /// Stopped, or failed to start.
    Over,
    Removed,
}

/// Makes everything but the container.
///
/// # Errors
/// When the daemon does not answer or refuses; what was made until then is removed again.
pub fn prepare(specification: &Specification, runtime: Option<&str>) -> Result<Box<dyn Instance>> {
    let directory = &specification.directory;
    let prepared = Journal::open(directory).and_then(|mut journal| {
        let asked = blocking::wait("docker", async || ask(specification, runtime, &mut journal).await);
        asked.and_then(|answers| Container::new(specification, answers))
    });
    match prepared {
        Ok(container) => Ok(Box::new(container)),
        Err(error) => {
            for failure in undo(directory) {
                tracing::warn!("{failure:#}");
            }
            Err(error)
        }
    }
}

/// What the daemon told, and made.
struct Answers {
    daemon: Daemon,
    body: ContainerCreateBody,
    files: Vec<PathBuf>,
    host: Ipv4Addr,
    device: Option<Device>,
    daemons: Vec<Process>,
    conditions: BTreeMap<String, String>,
}

async fn ask(specification: &Specification, runtime: Option<&str>, journal: &mut Journal) -> Result<Answers> {
    let daemon = Daemon::connect().await?;
    let Specification { label, workload, resources, .. } = specification;
    workload.content.check()?;
    let (socket, name) = (daemon.socket.clone(), container::name(label));
    journal.record(&Resource::DockerContainer { socket: socket.clone(), name })?;
    let copied = resources.files == FileSharing::Copy;
    let image = if copied {
        journal.record(&Resource::DockerImage { socket, name: image::copy_name(label) })?;
        image::provide_copy(&daemon.client, workload, label).await?
    } else {
        image::provide(&daemon.client, workload).await?
    };
    let network = Network::of(specification.network, &daemon.client).await?;
    let body = container::body(specification, &image, runtime, network.host)?;

    let runtimes = daemon.runtimes().await?;
    let runtime = runtime.unwrap_or(&runtimes.default);
    let details = runtimes.get(runtime);
    let program = details.and_then(|details| details.program.clone());
    let mut conditions = BTreeMap::from([
        ("window".into(), "one request to create the container, one to start it".into()),
        ("runtime".into(), runtime.into()),
        ("files".into(), files_condition(resources.files, &image.driver)),
        ("scratch".into(), "tmpfs".into()),
        ("log".into(), if resources.console { "json-file, 1m; followed from the start on" } else { "none" }.into()),
        ("seccomp".into(), "the daemon's default".into()),
        ("frames".into(), network.frames.clone()),
        ("pinned".into(), "the container at most: the daemon and the runtime run where they like".into()),
    ]);
    let arguments = details.map_or(String::new(), |details| details.arguments.join(" "));
    conditions.extend((!arguments.is_empty()).then(|| ("runtime-arguments".into(), arguments)));
    let daemons = match daemon.processes().await {
        Ok(daemons) => daemons,
        Err(error) => {
            conditions.insert("unseen".into(), format!("what the daemon does: {error:#}"));
            Vec::new()
        }
    };
    let shim = Program::find(SHIM).ok().map(|shim| shim.path);
    let files = [shim, program].into_iter().flatten().chain(layer_files(&image, specification)).collect();
    Ok(Answers { daemon, body, files, host: network.host, device: network.device, daemons, conditions })
}

fn files_condition(sharing: FileSharing, driver: &str) -> String {
    match sharing {
        FileSharing::Shared => format!("image layer by {driver}, read-only"),
        FileSharing::Copy => format!("image layer by {driver} of its own, read-only"),
        FileSharing::Overlay => format!("image layer by {driver} below a writable one"),
    }
}

/// The files of the workload that its start reads, as the image has them.
fn layer_files(image: &Image, specification: &Specification) -> Vec<PathBuf> {
    let Specification { workload, .. } = specification;
    let inside = match &workload.content {
        Content::Executable(_) => vec![PathBuf::from(workload.content.command()[0].trim_start_matches('/'))],
        Content::Root(root) => {
            let files = workload.content.start_files();
            files.iter().filter_map(|file| Some(file.strip_prefix(&root.folder).ok()?.to_owned())).collect()
        }
    };
    let layer = image.layer.iter().flat_map(|layer| inside.iter().map(|path| layer.join(path)));
    layer.chain(workload.static_file.clone()).collect()
}

/// Where the container will be.
struct Network {
    /// The host's address, seen from it.
    host: Ipv4Addr,
    device: Option<Device>,
    /// Where its frames are seen.
    frames: String,
}

impl Network {
    async fn of(mode: Mode, client: &Docker) -> Result<Self> {
        if mode == Mode::Host {
            let frames = "not seen: it has no device of its own".to_owned();
            return Ok(Self { host: Ipv4Addr::LOCALHOST, device: None, frames });
        }
        let network = client.inspect_network(DEFAULT_NETWORK, None::<InspectNetworkOptions>).await;
        let network = network.with_context(|| {
            format!("the Docker daemon has no network `{DEFAULT_NETWORK}`: was it started with --bridge=none?")
        })?;
        let bridge = network.options.and_then(|mut options| options.remove(BRIDGE_NAME));
        let bridge = bridge.with_context(|| format!("the network `{DEFAULT_NETWORK}` names no bridge"))?;
        let gateways = network.ipam.and_then(|ipam| ipam.config).into_iter().flatten();
        let host = gateways.filter_map(|config| config.gateway?.parse().ok()).next();
        let host =
            host.with_context(|| format!("the network `{DEFAULT_NETWORK}` has no gateway with an IPv4 address"))?;
        // The container's own device comes into being while it starts, too late to be watched from its first frame on. The
        // bridge is there, and all that the host and the container send each other goes through it.
        let others = fs::read_dir(format!("/sys/class/net/{bridge}/brif")).map(Iterator::count);
        let index = fs::read_to_string(format!("/sys/class/net/{bridge}/ifindex"));
        let (device, frames) = match (others, index.ok().and_then(|index| index.trim().parse().ok())) {
            (Ok(0), Some(index)) => (
                Some(Device { name: bridge.clone(), index }),
                format!("at the bridge {bridge}, on which nobody else is"),
            ),
            (Ok(others), Some(_)) => (None, format!("not seen: {others} others are on the bridge {bridge}")),
            _ => (None, format!("not seen: the bridge {bridge} is not in this network namespace")),
        };
        Ok(Self { host, device, frames })
    }
}

impl Container {
    fn new(specification: &Specification, answers: Answers) -> Result<Self> {
        let Answers { daemon, body, files, host, device, daemons, conditions } = answers;
        let name = container::name(&specification.label);
        let prints = specification.resources.console;
        let (watcher, console) = Watcher::new(daemon.client.clone(), name.clone(), prints)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("could not start a runtime for Docker")?;
        Ok(Self {
            directory: specification.directory.clone(),
            name,
            client: daemon.client,
            runtime: Some(runtime),
            stage: Stage::Prepared(Box::new(body)),
            cpus: sched_getaffinity(None).context("can't ask for this thread's CPUs")?,
            console,
            prints,
            memory_bytes: specification.resources.memory_bytes,
            watcher: Some(watcher),
            files,
            readiness: Readiness::CallbackFrom { port: specification.workload.port },
            conditions,
            host,
            device,
            daemons,
        })
    }

    fn exited(&self, code: i64, out_of_memory: bool, error: &str) -> String {
        let mut text = format!("the container {} ended with exit code {code}", self.name);
        if out_of_memory {
            let limit = self.memory_bytes.map_or_else(|| "the host's".to_owned(), |bytes| format!("{bytes} bytes"));
            text += &format!(", ended by the kernel for want of memory (limit: {limit})");
        }
        if !error.is_empty() {
            text += &format!(": {error}");
        }
        text + &if self.prints { quote(&self.console) } else { "; what it printed was not kept (--console)".to_owned() }
    }
}

/// The CPUs of the calling thread, if it was pinned to less than `all`.
fn pinned(all: &CpuSet) -> Option<String> {
    let now = sched_getaffinity(None).ok()?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| now.is_set(cpu));
    (now != *all).then(|| cpus.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(","))
}

impl Instance for Container {
    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn readiness(&self) -> Readiness {
        self.readiness
    }

    fn roles(&self) -> &'static [RoleRule] {
        ROLES
    }

    fn conditions(&self) -> &BTreeMap<String, String> {
        &self.conditions
    }

    fn launch(&mut self) -> Result<()> {
        let Stage::Prepared(mut body) = std::mem::replace(&mut self.stage, Stage::Over) else {
            bail!("an instance can be launched only once");
        };
        if let (Some(cpus), Some(host_config)) = (pinned(&self.cpus), &mut body.host_config) {
            host_config.cpuset_cpus = Some(cpus);
        }
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        let (client, name) = (&self.client, &self.name);
        let runtime = self.runtime.take().context("an instance can be launched only once")?;
        runtime.block_on(async {
            let created = client.create_container(Some(options), *body).await;
            created.with_context(|| format!("the Docker daemon could not create the container {name}"))?;
            let started = client.start_container(name, None::<StartContainerOptions>).await;
            started.with_context(|| format!("the Docker daemon could not start the container {name}"))
        })?;
        self.stage = Stage::Started;
        if let Some(watcher) = &mut self.watcher {
            watcher.begin();
        }
        Ok(())
    }

    fn failure(&mut self) -> Option<String> {
        match &self.stage {
            Stage::Prepared(_) => None,
            Stage::Started => match self.watcher.as_ref()?.end()? {
                End::Exited { code, out_of_memory, error } => Some(self.exited(code, out_of_memory, &error)),
                End::Lost(reason) => Some(reason),
            },
            Stage::Over | Stage::Removed => Some("it was stopped, or never started".into()),
        }
    }

    fn console(&self) -> &Console {
        &self.console
    }

    fn network(&self) -> Option<&Private> {
        None
    }

    fn host_address(&self) -> Ipv4Addr {
        self.host
    }

    fn device(&self) -> Option<Device> {
        self.device.clone()
    }

    fn daemons(&self) -> Vec<Process> {
        self.daemons.clone()
    }

    /// The shim and all below it: it has started every process of the container.
    fn members(&self) -> Result<Vec<i32>> {
        let (client, name) = (&self.client, &self.name);
        let inspected = blocking::wait("docker", async || {
            let inspected = client.inspect_container(name, None::<InspectContainerOptions>).await;
            inspected.with_context(|| format!("the Docker daemon does not tell of the container {name}"))
        })?;
        let main = inspected.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok());
        let main = main.filter(|&pid| pid > 0).with_context(|| format!("the container {name} has no process"))?;
        let stats: BTreeMap<i32, _> = procfs::process::all_processes()
            .context("could not list /proc")?
            .filter_map(|process| process.ok()?.stat().ok())
            .map(|stat| (stat.pid, stat))
            .collect();
        let parent = |pid: i32| stats.get(&pid).map(|stat| stat.ppid);
        // A name in the kernel has 15 characters.
        let is_shim = |pid: &i32| stats.get(pid).is_some_and(|stat| SHIM.starts_with(&stat.comm));
        let top = parent(main).filter(is_shim).unwrap_or(main);
        let below = |&pid: &i32| {
            let line = std::iter::successors(Some(pid), |&pid| parent(pid));
            line.take(stats.len()).any(|ancestor| ancestor == top)
        };
        Ok(stats.keys().copied().filter(below).collect())
    }

    fn stop(&mut self) -> Result<()> {
        if matches!(self.stage, Stage::Removed) {
            return Ok(());
        }
        self.stage = Stage::Over;
        drop(self.watcher.take());
        let failures = undo(&self.directory);
        if !failures.is_empty() {
            let failures: Vec<_> = failures.iter().map(|failure| format!("{failure:#}")).collect();
            bail!("could not remove all of an instance:\n{}", failures.join("\n"));
        }
        self.stage = Stage::Removed;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // One that was never launched may be dropped inside another runtime, where nobody may wait for this one's end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Err(error) = self.stop() {
            tracing::warn!("{error:#}");
        }
    }
}
