//! One instance under observation, from preparation to removal.
//!
//! ```text
//! prepare ─► condition ─► watch ─► settle ─► launch … first good response ─► … steps … ─► unwatch ─► remove
//!            └────────── start: all four ───────────┘                         └──── finish: both ────┘
//! ```
//!
//! An experiment with one instance at a time calls [`Trial::prepare`], [`Trial::start`] and [`Trial::finish`]; one with many at
//! a time does the parts itself, so that what they share (the probes, the recording) is taken once. What goes wrong on the way
//! is part of the observation, and the instance is removed in any case.

use super::{
    observation::{Ended, Observation, Recorded},
    stage::{Place, Stage, Subject},
    step::Taken,
    watch::{Watch, Watched, programs},
};
use crate::{
    correlate::{Marker, Source},
    explain,
    host::{
        clock::{monotonic_ns, unix_ns},
        quiescence,
    },
    measure::page_cache,
    probe::{DeviceCounts, FileSums, Probes, Recording},
    sandbox::{Instance, Readiness, Specification, launcher::Launcher, network::Offload, resources::CpuList},
    workload::{
        Content,
        callback::{Callback, Receiver},
        client::{self, Exchange},
    },
};
use anyhow::{Context, Result, bail};
use sandscope_ebpf::map::Membership;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;

/// How often an instance that is awaited is asked whether it has failed. Readiness itself is an event; this only bounds how
/// long a failure goes unnoticed.
const FAILURE_INTERVAL: Duration = Duration::from_millis(50);
/// So many of these intervals may lie between the end of a console and the end of the process that wrote to it.
const END_INTERVALS: u32 = 20;
/// From how many bytes of records on they are summed up.
const SUMMED_UP_BYTES: usize = 64 << 20;
/// What the client asks for first.
const FIRST_REQUEST: &str = "/hello";
/// The outcome of one that nothing has gone wrong with so far.
const NOT_STARTED: &str = "not started";

/// An instance under observation.
pub struct Trial {
    launcher: Arc<Launcher>,
    label: String,
    scope: u16,
    observation: Observation,
    /// With the launcher while that works on it; `None` for good if it was never made.
    instance: Option<Box<dyn Instance>>,
    watch: Option<Watch>,
    recorded: Option<Recorded>,
    static_file: Option<PathBuf>,
    content: Content,
    /// Where it is asked once it is ready, if it can be asked.
    address: Option<SocketAddr>,
    /// Stays open until the end: the workload must not see its callback refused.
    receiver: Option<Receiver>,
}

/// The client while it waits for the callback and then asks for the first time.
struct Asking {
    callback: oneshot::Receiver<Callback>,
    answer: AbortOnDropHandle<Result<Answered>>,
}

/// What came of the first request.
struct Answered {
    exchange: Exchange,
    address: SocketAddr,
    receiver: Receiver,
}

impl Asking {
    /// Begins to wait for a callback from an instance that is about to be launched.
    fn start(receiver: Receiver, readiness: Readiness, deadline: Instant) -> Self {
        let launch_ns = monotonic_ns();
        let (tell, callback) = oneshot::channel();
        let answer = tokio::spawn(async move {
            let callback = receiver.wait().await?;
            let address = match readiness {
                Readiness::Callback { address } => address,
                Readiness::CallbackFrom { port } => SocketAddr::new(callback.from, port),
                Readiness::Console { .. } | Readiness::Line { .. } | Readiness::Launched { .. } => {
                    bail!("it does not call back")
                }
            };
            // Nobody listens when the instance has failed meanwhile.
            let _ = tell.send(callback);
            let exchange = client::get(address, FIRST_REQUEST, launch_ns, deadline).await;
            Ok(Answered { exchange, address, receiver })
        });
        Self { callback, answer: AbortOnDropHandle::new(answer) }
    }

    /// The callback, if there was one, and what came of the request; without a callback that tells why.
    async fn answered(self) -> (Option<Callback>, Result<Answered>) {
        let callback = self.callback.await.ok();
        let answer = self.answer.await.context("the client panicked");
        (callback, answer.flatten())
    }
}

impl Trial {
    /// Prepares an instance. `launcher` is the thread that starts and ends it: one of its own when several are started at a
    /// time, else the stage's.
    pub async fn prepare(stage: &Stage, launcher: &Arc<Launcher>, subject: &Subject, place: Place) -> Self {
        let observation = Observation {
            id: place.id,
            position: place.position,
            part: subject.part.clone(),
            sandbox: subject.sandbox.name().to_owned(),
            workload: subject.workload.name.clone(),
            probes: subject.probes,
            cache: subject.cache,
            network: stage.network.name(),
            launch_ns: None,
            launched_at_unix_ns: None,
            outcome: Err(NOT_STARTED.to_owned()),
            markers: Vec::new(),
            since_main_ns: None,
            requests: Vec::new(),
            steps: Vec::new(),
            files_of_start: None,
            file_names: BTreeMap::new(),
            offloads: Vec::new(),
            residency: None,
            conditions: subject.found.clone(),
            seen_by: "client",
            timeline: false,
            console_lines: Vec::new(),
        };
        let specification = Specification {
            label: place.label.clone(),
            directory: place.directory,
            workload: subject.workload.clone(),
            network: stage.network,
            resources: stage.resources,
            callback_port: stage.callback_port,
        };
        // A number of its own, so that nothing that an earlier instance may have left is taken for a part of this one.
        let scope = 1 + (place.position % u32::from(Membership::MAX_SCOPE)) as u16;
        let mut trial = Self {
            launcher: Arc::clone(launcher),
            label: place.label,
            scope,
            observation,
            instance: None,
            watch: None,
            recorded: None,
            static_file: subject.workload.static_file.clone(),
            content: subject.workload.content.clone(),
            address: None,
            receiver: None,
        };
        let sandbox = Arc::clone(&subject.sandbox);
        let prepared = launcher.run(move || sandbox.prepare(&specification)).await.flatten();
        match prepared.with_context(|| format!("can't prepare a {} sandbox", subject.sandbox.name())) {
            Ok(instance) => {
                trial.observation.conditions.extend(instance.conditions().clone());
                trial.instance = Some(instance);
            }
            Err(error) => trial.fail(&error),
        }
        trial
    }

    /// From the conditions to the first good response; says whether there was one.
    pub async fn start(&mut self, stage: &mut Stage) -> bool {
        let outcome = async {
            self.condition()?;
            stage.begin_recording(&self.observation)?;
            self.watch(stage)?;
            quiescence::settle();
            self.launch(stage).await?;
            self.look_around(stage)
        };
        if let Err(error) = outcome.await {
            self.fail(&error);
        }
        self.observation.outcome.is_ok()
    }

    /// Ends the recording, ends the instance, removes what it left, and gives what was seen of it.
    pub async fn finish(mut self, stage: &mut Stage) -> Ended {
        if let Err(error) = self.end_recording(stage) {
            self.fail(&error);
        }
        self.remove().await
    }

    fn end_recording(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(watched) = self.unwatch(stage)? else { return Ok(()) };
        if let Some(recording) = stage.end_recording()? {
            let recording = explain::own(recording, watched.source());
            self.keep(watched, recording);
        }
        Ok(())
    }

    /// What was seen so far.
    pub fn observation(&self) -> &Observation {
        &self.observation
    }

    /// Number of its scope.
    pub(super) fn scope(&self) -> u16 {
        self.scope
    }

    /// Where it is asked; `None` before it is ready, and for one that only writes to its console.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The instance; `None` when there is none.
    pub fn instance(&self) -> Option<&dyn Instance> {
        self.instance.as_deref()
    }

    /// Notes that it did not go on after it was ready, if it did not.
    pub(super) fn check(&mut self) {
        if let Some(failure) = self.instance.as_mut().and_then(|instance| instance.failure())
            && self.observation.outcome.is_ok()
        {
            self.observation.outcome = Err(format!("it was ready, but did not go on: {failure}"));
        }
    }

    /// The file that the workload serves, on the host.
    pub(super) fn static_file(&self) -> Option<&Path> {
        self.static_file.as_deref()
    }

    /// What has passed its device so far, if probes watch it.
    pub(super) fn traffic(&self, stage: &mut Stage) -> Result<Option<DeviceCounts>> {
        match (&self.watch, &mut stage.probes) {
            (Some(watch), Some(probes)) => watch.traffic(probes),
            _ => Ok(None),
        }
    }

    /// What it has done with files so far, if probes watch it.
    pub(super) fn files(&self, stage: &Stage) -> Result<Option<FileSums>> {
        match (&self.watch, &stage.probes) {
            (Some(watch), Some(probes)) => watch.files(probes),
            _ => Ok(None),
        }
    }

    /// Notes what came of a step.
    pub(super) fn took(&mut self, taken: Taken) {
        self.observation.steps.push(taken);
    }

    /// Wants its single events written down.
    pub fn keep_timeline(&mut self) {
        self.observation.timeline = true;
    }

    /// Notes why it failed, unless it had before.
    pub fn fail(&mut self, error: &anyhow::Error) {
        let before = self.observation.outcome.as_ref().err();
        if before.is_none_or(|before| before == NOT_STARTED) {
            self.observation.outcome = Err(format!("{error:#}"));
        }
    }

    /// Brings the page cache into the state that was asked for, and notes what became of that.
    ///
    /// # Errors
    /// When it can't be done, or the instance could not be prepared.
    pub fn condition(&mut self) -> Result<()> {
        let files = self.prepared()?.files();
        self.observation.residency = Some(page_cache::bring_about(self.observation.cache, &files)?);
        Ok(())
    }

    /// Makes the probes see it, if it is to have them. They must be attached.
    ///
    /// # Errors
    /// When they can't watch its device.
    pub fn watch(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(probes) = stage.probes.as_mut().filter(|_| self.observation.probes) else { return Ok(()) };
        let instance = self.instance.as_deref().context("the instance was lost")?;
        let times = if probes.times_faults() { "its own" } else { "of others like it" };
        self.observation.conditions.insert("page_fault_times".to_owned(), times.to_owned());
        let source = Source {
            scope: self.scope,
            rules: instance.roles(),
            untimed_fault_ns: probes.untimed_fault_ns(),
            fault_prices: stage.fault_times.prices(&self.observation.sandbox, &self.observation.workload),
            programs: programs(instance, &self.content),
            bystanders: Vec::new(),
        };
        self.watch = Some(Watch::start(probes, instance, source, self.launcher.tid())?);
        Ok(())
    }

    /// Launches it and waits for its first good response.
    ///
    /// # Errors
    /// When there is none; says why.
    pub async fn launch(&mut self, stage: &Stage) -> Result<()> {
        let readiness = self.prepared()?.readiness();
        let receiver = match readiness {
            Readiness::Callback { .. } | Readiness::CallbackFrom { .. } => {
                let address = IpAddr::V4(self.prepared()?.host_address());
                Some(Receiver::bind(address, stage.callback_port, &self.label)?)
            }
            Readiness::Console { .. } | Readiness::Line { .. } | Readiness::Launched { .. } => None,
        };
        let outcome = self.launch_and_ask(stage, readiness, receiver).await;
        for (source, reached) in self.prepared()?.reached() {
            self.marker(reached.marker, source, reached.at_ns, Some(reached.line).filter(|line| !line.is_empty()));
        }
        self.observation.outcome = Ok(outcome?);
        Ok(())
    }

    /// Notes, right after its start, what it did with files and what its devices leave to others. A guest has agreed with its
    /// VMM on the latter by then. Of instances that are started together not before all have started: it takes time.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn look_around(&mut self, stage: &Stage) -> Result<()> {
        self.observation.files_of_start = self.files(stage)?;
        if self.watch.is_some()
            && let Some(instance) = &mut self.instance
        {
            self.observation.file_names = page_cache::names(&instance.files());
            self.observation.offloads = match (instance.network(), instance.device()) {
                (Some(own), _) => own.offloads()?,
                (None, Some(device)) => vec![Offload::read("host_end", &device.name)?],
                (None, None) => Vec::new(),
            };
            if let Some(tap) = self.observation.offloads.iter_mut().find(|offload| offload.place == "tap") {
                tap.mergeable_buffers = instance.mergeable_buffers();
            }
        }
        Ok(())
    }

    /// Makes the probes forget it; what is left is to take the recording and [`Trial::keep`] it.
    pub(super) fn unwatch(&mut self, stage: &mut Stage) -> Result<Option<Watched>> {
        self.watch.take().map(|watch| watch.end(stage)).transpose()
    }

    /// Keeps what was recorded of it and of nobody else.
    pub(super) fn keep(&mut self, watched: Watched, recording: Recording) {
        self.recorded = Some(watched.recorded(recording));
    }

    /// Sums up what was recorded so far, if that is much. Only for an instance that is recorded alone. One whose single events are
    /// to be written down keeps them all.
    ///
    /// # Errors
    /// When the kernel does not give the records.
    pub(super) fn sum_up(&mut self, stage: &mut Stage) -> Result<()> {
        let kept_bytes = stage.probes.as_ref().map_or(0, Probes::kept_bytes);
        match &mut self.watch {
            Some(watch) if !self.observation.timeline && kept_bytes >= SUMMED_UP_BYTES => {
                watch.sum_up(stage, &self.observation)
            }
            _ => Ok(()),
        }
    }

    /// Ends it, removes what it left, and gives what was seen of it.
    pub(super) async fn remove(mut self) -> Ended {
        if self.observation.timeline {
            self.observation.console_lines =
                self.instance.as_ref().map(|instance| instance.console().timed_lines()).unwrap_or_default();
        }
        if self.instance.is_some() {
            let removed = self.on_launcher(|instance| instance.stop()).await.flatten();
            let (mut observation, recorded) = (self.observation, self.recorded);
            observation.outcome = match (observation.outcome, removed) {
                (outcome, Ok(())) => outcome,
                (Ok(_), Err(left)) => Err(format!("it gave its response, but could not be removed: {left:#}")),
                (Err(error), Err(left)) => Err(format!("{error}; and it could not be removed: {left:#}")),
            };
            return Ended { observation, recorded };
        }
        Ended { observation: self.observation, recorded: self.recorded }
    }

    fn prepared(&mut self) -> Result<&mut Box<dyn Instance>> {
        self.instance.as_mut().context("the instance was lost when the launcher failed")
    }

    /// Runs something that starts or ends processes on the launcher's thread: they would die with any other.
    async fn on_launcher<T: Send + 'static>(
        &mut self,
        action: impl FnOnce(&mut dyn Instance) -> T + Send + 'static,
    ) -> Result<T> {
        let mut instance = self.instance.take().context("the instance was lost when the launcher failed")?;
        let (instance, result) = self
            .launcher
            .run(move || {
                let result = action(instance.as_mut());
                (instance, result)
            })
            .await?;
        self.instance = Some(instance);
        Ok(result)
    }

    /// Gives the nanoseconds from the launch to the first good response.
    async fn launch_and_ask(&mut self, stage: &Stage, readiness: Readiness, receiver: Option<Receiver>) -> Result<u64> {
        let launched_at_unix_ns = unix_ns();
        let deadline = Instant::now() + stage.timeout;
        // Beside the launch: a sandbox may be ready before whoever starts it says that it has been started.
        let asking = receiver.map(|receiver| Asking::start(receiver, readiness, deadline));
        let cpus = stage.cpus.clone();
        let (launch_ns, launched) = self
            .on_launcher(move |instance| {
                // Only what is started here is pinned, not the threads of the agent that watch it.
                let pinned = cpus.as_ref().map(CpuList::pin).transpose();
                let launch_ns = monotonic_ns();
                (launch_ns, pinned.and_then(|_pinned| instance.launch()))
            })
            .await?;
        self.observation.launch_ns = Some(launch_ns);
        self.observation.launched_at_unix_ns = Some(launched_at_unix_ns);
        self.marker("launch", "launcher", launch_ns, None);
        launched.context("it could not be launched")?;
        let end_ns = match (readiness, asking) {
            (_, Some(asking)) => {
                let (callback, answered) = self.while_it_starts(stage, deadline, asking.answered()).await?;
                if let Some(callback) = callback {
                    self.observation.since_main_ns = callback.since_main_ns;
                    self.marker("callback", "client", callback.at_ns, None);
                }
                let Answered { exchange, address, receiver } = answered?;
                self.receiver = Some(receiver);
                self.answered(exchange, address)?
            }
            (Readiness::Line { line, address }, _) => {
                let line = self.prepared()?.console().milestone(line);
                self.on_console(stage, deadline, line, "its console ended before it said that it listens").await?;
                self.ask(stage, address, launch_ns, deadline).await?
            }
            (Readiness::Launched { address }, _) => self.ask(stage, address, launch_ns, deadline).await?,
            (Readiness::Console { done }, _) => {
                let console = self.prepared()?.console();
                let (first_byte, done) = (console.first_byte(), console.milestone(done));
                let at_ns =
                    self.on_console(stage, deadline, first_byte, "it ended without a byte on its console").await?;
                self.observation.seen_by = "console";
                self.on_console(stage, deadline, done, "it ended before it had done what it was told").await?;
                at_ns
            }
            (Readiness::Callback { .. } | Readiness::CallbackFrom { .. }, None) => {
                bail!("nobody listens for its callback")
            }
        };
        self.marker("first_response", "client", end_ns, None);
        Ok(end_ns.saturating_sub(launch_ns))
    }

    /// Sends the first request; gives the instant of its good answer.
    async fn ask(&mut self, stage: &Stage, address: SocketAddr, launch_ns: u64, deadline: Instant) -> Result<u64> {
        let request = client::get(address, FIRST_REQUEST, launch_ns, deadline);
        let exchange = self.while_it_starts(stage, deadline, request).await?;
        self.answered(exchange, address)
    }

    /// Keeps what came of the first request; gives the instant of its good answer.
    fn answered(&mut self, exchange: Exchange, address: SocketAddr) -> Result<u64> {
        self.observation.requests.push(exchange.clone());
        if !exchange.is_good() {
            bail!("{}", exchange.error.unwrap_or_else(|| "no good response".to_owned()));
        }
        self.address = Some(address);
        Ok(exchange.finished_ns)
    }

    /// Awaits an event of an instance that starts, unless it fails, the time is over or the run is interrupted. The launcher asks it
    /// meanwhile whether it has failed: this thread, on whose way to the response the start is measured, is woken by the event alone.
    ///
    /// # Errors
    /// Says which of these it was.
    async fn while_it_starts<T>(
        &mut self,
        stage: &Stage,
        deadline: Instant,
        event: impl Future<Output = T>,
    ) -> Result<T> {
        let mut instance = self.instance.take().context("the instance was lost when the launcher failed")?;
        let (stop, stopped) = mpsc::channel::<()>();
        let launcher = Arc::clone(&self.launcher);
        let mut looking = std::pin::pin!(launcher.run(move || {
            loop {
                let failure = instance.failure();
                if failure.is_some() || stopped.recv_timeout(FAILURE_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return (instance, failure);
                }
            }
        }));
        let mut event = std::pin::pin!(event);
        let came = tokio::select! {
            biased;
            value = &mut event => Some(value),
            ended = &mut looking => {
                let (instance, failure) = ended?;
                self.instance = Some(instance);
                bail!("{}", failure.unwrap_or_else(|| "nobody looked whether it fails".to_owned()));
            }
            () = stage.interrupted.cancelled() => None,
            () = tokio::time::sleep_until(deadline) => None,
        };
        drop(stop);
        self.instance = Some(looking.await?.0);
        match came {
            Some(value) => Ok(value),
            None if stage.interrupted.is_cancelled() => bail!("interrupted"),
            None => bail!(self.too_late(stage)?),
        }
    }

    fn too_late(&mut self, stage: &Stage) -> Result<String> {
        let lines = self.prepared()?.console().last_lines(5);
        let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") };
        let timeout = stage.timeout;
        Ok(format!("not ready within {timeout:?} (--timeout); the last lines of its console: {said}"))
    }

    /// Awaits an event of the instance, unless it fails, the time is over or the run is interrupted.
    ///
    /// # Errors
    /// Says which of these it was.
    pub async fn unless_it_fails<T>(
        &mut self,
        stage: &Stage,
        deadline: Instant,
        event: impl Future<Output = T>,
    ) -> Result<T> {
        let mut event = std::pin::pin!(event);
        loop {
            let again = (Instant::now() + FAILURE_INTERVAL).min(deadline);
            tokio::select! {
                biased;
                value = &mut event => return Ok(value),
                () = stage.interrupted.cancelled() => bail!("interrupted"),
                () = tokio::time::sleep_until(again) => {}
            }
            if let Some(failure) = self.prepared()?.failure() {
                bail!("{failure}");
            }
            if Instant::now() >= deadline {
                bail!(self.too_late(stage)?);
            }
        }
    }

    /// When something came on the console. If it can't come any more, that fails with what the sandbox says about its end, or else
    /// with these words.
    async fn on_console(
        &mut self,
        stage: &Stage,
        deadline: Instant,
        event: impl Future<Output = Option<u64>>,
        otherwise: &'static str,
    ) -> Result<u64> {
        if let Some(at_ns) = self.while_it_starts(stage, deadline, event).await? {
            return Ok(at_ns);
        }
        // A console ends a moment before the process that writes to it.
        for _ in 0..END_INTERVALS {
            if let Some(failure) = self.prepared()?.failure() {
                bail!("{failure}");
            }
            tokio::time::sleep(FAILURE_INTERVAL).await;
        }
        bail!(otherwise)
    }

    fn marker(&mut self, name: &'static str, source: &'static str, at_ns: u64, detail: Option<String>) {
        self.observation.markers.push(Marker { name, source, at_ns, detail });
    }
}
