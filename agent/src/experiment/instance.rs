//! One instance from preparation to removal, observed.

use super::plan::Cell;
use crate::{
    correlate::{Bystander, Marker},
    host::clock::{monotonic_ns, unix_ns},
    measure::page_cache::{self, CacheState, Residency},
    probe::{DeviceCounts, DeviceProbe, Probes, Recording},
    sandbox::{
        Instance, Readiness, RoleRule, Sandbox, Specification, launcher::Launcher, network, run_dir::RunDirectory,
    },
    workload::{
        Workload,
        callback::Receiver,
        client::{self, Exchange},
    },
};
use anyhow::{Context, Result, bail};
use sandscope_ebpf::map::Membership;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// How often an instance that is awaited is asked whether it has failed. Readiness itself is an event; this only bounds how
/// long a failure goes unnoticed.
const FAILURE_INTERVAL: Duration = Duration::from_millis(50);
/// What the client asks for first.
const FIRST_REQUEST: &str = "/hello";

/// What every instance of a run has in common.
pub struct Stage {
    /// Where sandboxes are started from.
    pub launcher: Launcher,
    /// The probes, if the host can have them.
    pub probes: Option<Probes>,
    /// What runs inside.
    pub workload: Workload,
    /// How instances are connected.
    pub network: network::Mode,
    /// Port of the ready callback.
    pub callback_port: u16,
    /// Condition of the page cache.
    pub cache: CacheState,
    /// Time from launch to response after which an instance has failed.
    pub timeout: Duration,
    /// Fires when the run is to end early.
    pub interrupted: CancellationToken,
}

/// Everything seen of one instance.
pub struct Observation {
    /// Names it in the dataset.
    pub id: String,
    /// Its place in the order of the run.
    pub position: u32,
    /// Kind of the sandbox.
    pub sandbox: String,
    /// Name of the workload.
    pub workload: String,
    /// Whether probes were attached.
    pub probes: bool,
    /// Condition of the page cache that was asked for.
    pub cache: CacheState,
    /// How it was connected.
    pub network: &'static str,
    /// When it was launched, `CLOCK_MONOTONIC` nanoseconds; `None` if it never was.
    pub launch_ns: Option<u64>,
    /// The same since 1970.
    pub launched_at_unix_ns: Option<i64>,
    /// Nanoseconds from launch to first good response, or why there was none.
    pub outcome: Result<u64, String>,
    /// What the agent itself saw.
    pub markers: Vec<Marker>,
    /// What the client asked.
    pub requests: Vec<Exchange>,
    /// Page cache right before the launch.
    pub residency: Option<Residency>,
    /// Further conditions.
    pub conditions: BTreeMap<String, String>,
    /// What the probes saw.
    pub recorded: Option<Recorded>,
}

impl Observation {
    /// Records of its probes that were lost.
    pub fn lost(&self) -> u64 {
        self.recorded.as_ref().map_or(0, |recorded| recorded.recording.lost())
    }
}

/// What the probes saw of an instance.
pub struct Recorded {
    pub(super) recording: Recording,
    pub(super) scope: u16,
    pub(super) bystanders: Vec<Bystander>,
    pub(super) roles: &'static [RoleRule],
    /// Name of the device and what passed it.
    pub(super) device: Option<(String, DeviceCounts)>,
}

/// Where and as what one instance is started.
pub(super) struct Place {
    pub(super) id: String,
    pub(super) label: String,
    pub(super) directory: PathBuf,
    pub(super) position: u32,
    pub(super) cell: Cell,
}

impl Place {
    /// The place of the instance that comes at `position` in the order of a run.
    pub(super) fn new(run_id: Ulid, run_directory: &RunDirectory, position: u32, cell: Cell) -> Result<Self> {
        // Names on the host are short: the random end of the run's id keeps runs apart, the position its instances.
        let run = run_id.to_string().to_lowercase();
        let label = format!("{}{position:x}", &run[run.len() - 4..]);
        let directory = run_directory.instance(&label)?;
        Ok(Self { id: format!("{run_id}-{position:05}"), label, directory, position, cell })
    }
}

/// Starts an instance, waits for its first good response, and removes it. What goes wrong is part of the observation.
pub(super) async fn observe(stage: &mut Stage, sandbox: &Arc<dyn Sandbox>, place: Place) -> Observation {
    let mut observation = Observation {
        id: place.id,
        position: place.position,
        sandbox: sandbox.name().to_owned(),
        workload: stage.workload.name.clone(),
        probes: place.cell.probes,
        cache: stage.cache,
        network: stage.network.name(),
        launch_ns: None,
        launched_at_unix_ns: None,
        outcome: Err("not started".to_owned()),
        markers: Vec::new(),
        requests: Vec::new(),
        residency: None,
        conditions: BTreeMap::new(),
        recorded: None,
    };
    let specification = Specification {
        label: place.label,
        directory: place.directory,
        workload: stage.workload.clone(),
        network: stage.network,
        callback_port: stage.callback_port,
    };
    let prepare = {
        let sandbox = Arc::clone(sandbox);
        let specification = specification.clone();
        move || sandbox.prepare(&specification)
    };
    let prepared = stage.launcher.run(prepare).await.flatten();
    let instance = match prepared.with_context(|| format!("can't prepare a {} sandbox", sandbox.name())) {
        Ok(instance) => instance,
        Err(error) => {
            observation.outcome = Err(format!("{error:#}"));
            return observation;
        }
    };
    // A number of its own, so that nothing that an earlier instance may have left is taken for a part of this one.
    let scope = 1 + (place.position % u32::from(Membership::MAX_SCOPE)) as u16;
    let label = &specification.label;
    observation.conditions.clone_from(instance.conditions());
    let mut trial = Trial { stage, label, scope, observation: &mut observation, instance: Some(instance) };
    let outcome = trial.run().await;
    let removed = trial.remove().await;
    observation.outcome = match (outcome, removed) {
        (Ok(wall_ns), Ok(())) => Ok(wall_ns),
        (Ok(_), Err(left)) => Err(format!("it gave its response, but could not be removed: {left:#}")),
        (Err(error), Ok(())) => Err(format!("{error:#}")),
        (Err(error), Err(left)) => Err(format!("{error:#}; and it could not be removed: {left:#}")),
    };
    observation
}

/// An instance under observation.
struct Trial<'a> {
    stage: &'a mut Stage,
    label: &'a str,
    scope: u16,
    observation: &'a mut Observation,
    /// With the launcher while that works on it.
    instance: Option<Box<dyn Instance>>,
}

/// What the probes were told about an instance.
struct Watch {
    device: Option<(String, DeviceProbe)>,
    bystanders: Vec<Bystander>,
    roles: &'static [RoleRule],
}

impl Trial<'_> {
    fn instance(&mut self) -> Result<&mut Box<dyn Instance>> {
        self.instance.as_mut().context("the instance was lost when the launcher failed")
    }

    /// Runs something that starts or ends processes on the launcher's thread: they would die with any other.
    async fn on_launcher<T: Send + 'static>(
        &mut self,
        action: impl FnOnce(&mut dyn Instance) -> T + Send + 'static,
    ) -> Result<T> {
        let mut instance = self.instance.take().context("the instance was lost when the launcher failed")?;
        let (instance, result) = self
            .stage
            .launcher
            .run(move || {
                let result = action(instance.as_mut());
                (instance, result)
            })
            .await?;
        self.instance = Some(instance);
        Ok(result)
    }

    /// From the conditions to the first good response; gives the nanoseconds from the launch to it.
    async fn run(&mut self) -> Result<u64> {
        let files = self.instance()?.files();
        self.observation.residency = Some(page_cache::bring_about(self.stage.cache, &files)?);
        let readiness = self.instance()?.readiness();
        let receiver = match readiness {
            Readiness::Callback { .. } => {
                let address = self
                    .instance()?
                    .network()
                    .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |own| IpAddr::V4(own.host_address));
                Some(Receiver::bind(address, self.stage.callback_port, self.label).await?)
            }
            Readiness::Console => None,
        };
        let watch = self.watch()?;
        let outcome = self.start_and_ask(readiness, receiver).await;
        if let Some(watch) = watch {
            self.unwatch(watch)?;
        }
        outcome
    }

    async fn start_and_ask(&mut self, readiness: Readiness, receiver: Option<Receiver>) -> Result<u64> {
        let launched_at_unix_ns = unix_ns();
        let (launch_ns, launched) = self
            .on_launcher(|instance| {
                let launch_ns = monotonic_ns();
                (launch_ns, instance.launch())
            })
            .await?;
        self.observation.launch_ns = Some(launch_ns);
        self.observation.launched_at_unix_ns = Some(launched_at_unix_ns);
        let deadline = Instant::now() + self.stage.timeout;
        self.marker("launch", "launcher", launch_ns, None);
        launched.context("it could not be launched")?;
        let end_ns = match (readiness, receiver) {
            (Readiness::Callback { address }, Some(receiver)) => {
                let callback = self.unless_it_fails(deadline, receiver.wait()).await??;
                let told = callback.since_main_ns.map(|ns| format!("{ns} ns after the start of the workload's main"));
                self.marker("callback", "client", callback.at_ns, told);
                // The socket stays open until the end: the workload must not see its callback refused.
                let request = client::get(address, FIRST_REQUEST, launch_ns, deadline);
                let exchange = self.unless_it_fails(deadline, request).await?;
                self.observation.requests.push(exchange.clone());
                if !exchange.is_good() {
                    bail!("{}", exchange.error.unwrap_or_else(|| "no good response".to_owned()));
                }
                exchange.finished_ns
            }
            (_, _) => {
                let first_byte = self.instance()?.console().first_byte();
                let at_ns = self.unless_it_fails(deadline, first_byte).await?;
                at_ns.context("it ended without a byte on its console")?
            }
        };
        self.marker("first_response", "client", end_ns, None);
        Ok(end_ns.saturating_sub(launch_ns))
    }

    /// Awaits an event of the instance, unless it fails, the time is over or the run is interrupted.
    async fn unless_it_fails<T>(&mut self, deadline: Instant, event: impl Future<Output = T>) -> Result<T> {
        let mut event = std::pin::pin!(event);
        let interrupted = self.stage.interrupted.clone();
        loop {
            let again = (Instant::now() + FAILURE_INTERVAL).min(deadline);
            tokio::select! {
                biased;
                value = &mut event => return Ok(value),
                () = interrupted.cancelled() => bail!("interrupted"),
                () = tokio::time::sleep_until(again) => {}
            }
            let timeout = self.stage.timeout;
            let instance = self.instance()?;
            if let Some(failure) = instance.failure() {
                bail!("{failure}");
            }
            if Instant::now() >= deadline {
                let lines = instance.console().last_lines(5);
                let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") };
                bail!("not ready within {timeout:?} (--timeout); the last lines of its console: {said}");
            }
        }
    }

    fn marker(&mut self, name: &'static str, source: &'static str, at_ns: u64, detail: Option<String>) {
        self.observation.markers.push(Marker { name, source, at_ns, detail });
    }

    /// Makes the probes see the instance that is about to be launched, or makes sure that there are none.
    fn watch(&mut self) -> Result<Option<Watch>> {
        let Some(probes) = &mut self.stage.probes else { return Ok(None) };
        if !self.observation.probes {
            probes.detach();
            return Ok(None);
        }
        let instance = self.instance.as_ref().context("the instance was lost")?;
        probes.attach()?;
        // What is left of the time before belongs to nobody.
        drop(probes.take()?);
        let device = match instance.network() {
            Some(own) => {
                let name = own.host_interface.clone();
                let probe = probes.watch_device(&name, own.host_index, self.scope)?;
                Some((name, probe))
            }
            None => None,
        };
        let client = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let bystanders = [(self.stage.launcher.tid(), "launcher"), (client, "client")].map(|(tid, role)| Bystander {
            tid,
            role: role.to_owned(),
            until_ns: None,
        });
        for bystander in &bystanders {
            probes.mark(bystander.tid, Membership::bystander(self.scope));
        }
        Ok(Some(Watch { device, bystanders: bystanders.into(), roles: instance.roles() }))
    }

    /// Ends the recording.
    fn unwatch(&mut self, watch: Watch) -> Result<()> {
        let Some(probes) = &mut self.stage.probes else { return Ok(()) };
        let Watch { device, mut bystanders, roles } = watch;
        let now_ns = monotonic_ns();
        for bystander in &mut bystanders {
            probes.mark(bystander.tid, Membership::NONE);
            bystander.until_ns = Some(now_ns);
        }
        let device = match device {
            Some((name, probe)) => Some((name, probes.unwatch_device(probe)?)),
            None => None,
        };
        let recording = probes.take()?;
        self.observation.recorded = Some(Recorded { recording, scope: self.scope, bystanders, roles, device });
        Ok(())
    }

    /// Ends the instance and removes what it left.
    async fn remove(&mut self) -> Result<()> {
        self.on_launcher(|instance| instance.stop()).await?
    }
}
