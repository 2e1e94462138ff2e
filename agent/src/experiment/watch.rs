//! What the probes are told about an instance: who works for it, and which device is its own.

use super::{
    observation::{Observation, Recorded},
    stage::Stage,
};
use crate::{
    correlate::{Bystander, Duty, Source},
    explain::Explainer,
    host::clock::monotonic_ns,
    measure::threads,
    probe::{DeviceCounts, DeviceProbe, FileSums, Probes, Recording},
    role::ThreadRule,
    sandbox::{Daemon, Device, Instance},
    workload::Content,
};
use anyhow::Result;
use sandscope_ebpf::map::Membership;
use std::{collections::BTreeSet, path::PathBuf};

/// An instance that the probes see.
pub(super) struct Watch {
    scope: u16,
    device: Option<(String, DeviceProbe)>,
    daemons: Vec<Daemon>,
    thread_roles: &'static [ThreadRule],
    explainer: Explainer,
}

/// An instance that they see no more.
pub(super) struct Watched {
    device: Option<(String, DeviceCounts)>,
    thread_roles: &'static [ThreadRule],
    explainer: Explainer,
}

impl Watch {
    /// Makes attached probes see an instance that is about to be launched from the thread `launcher`. The bystanders of `source` are
    /// found here.
    pub(super) fn start(probes: &mut Probes, instance: &dyn Instance, source: Source, launcher: u32) -> Result<Self> {
        let scope = source.scope;
        let device = match instance.device() {
            Some(Device { name, index }) => probes.watch_device(&name, index, scope)?.map(|probe| (name, probe)),
            None => None,
        };
        probes.watch_files(scope)?;
        let client = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let console = instance.console().reader_tid();
        let tgid = std::process::id();
        let mut bystanders =
            [(launcher, "launcher", Duty::Acts), (client, "client", Duty::Acts), (console, "console", Duty::Listens)]
                .map(|(tid, role, duty)| Bystander { tid, tgid, role: role.to_owned(), duty, until_ns: None })
                .to_vec();
        for bystander in &bystanders {
            probes.mark(bystander.tid, Membership::bystander(scope));
        }
        let daemons = instance.daemons();
        for daemon in &daemons {
            let threads = mark_threads(|tid| probes.mark(tid, Membership::bystander(scope)), daemon.pid);
            let role = daemon.role.to_owned();
            let bystander = |tid| Bystander {
                tid,
                tgid: daemon.pid.cast_unsigned(),
                role: role.clone(),
                duty: Duty::Serves,
                until_ns: None,
            };
            bystanders.extend(threads.into_iter().map(bystander));
        }
        let explainer = Explainer::new(Source { bystanders, ..source });
        Ok(Self { scope, device, daemons, thread_roles: instance.thread_roles(), explainer })
    }

    /// What it has done with files so far; `None` where that can't be watched.
    pub(super) fn files(&self, probes: &Probes) -> Result<Option<FileSums>> {
        probes.file_sums(self.scope)
    }

    /// What has passed its device so far; `None` when it has none, or none that can be watched.
    pub(super) fn traffic(&self, probes: &mut Probes) -> Result<Option<DeviceCounts>> {
        self.device.as_ref().map(|(_, probe)| probes.device_counts(probe)).transpose()
    }

    /// Sums up what was recorded of it since the last time.
    pub(super) fn sum_up(&mut self, stage: &mut Stage, observation: &Observation) -> Result<()> {
        let Some(probes) = &mut stage.probes else { return Ok(()) };
        let recording = probes.take()?;
        let threads = threads::named(&recording.records, self.thread_roles);
        self.explainer.feed(recording, &threads, &observation.course(), &mut stage.names);
        Ok(())
    }

    /// Makes them forget it; to be called before the recording is taken.
    pub(super) fn end(self, stage: &mut Stage) -> Result<Watched> {
        let Self { device, daemons, thread_roles, mut explainer, .. } = self;
        let Some(probes) = &mut stage.probes else { return Ok(Watched { device: None, thread_roles, explainer }) };
        let now_ns = monotonic_ns();
        let mut bystanders = explainer.source().bystanders.clone();
        for bystander in &mut bystanders {
            probes.mark(bystander.tid, Membership::NONE);
            bystander.until_ns = Some(now_ns);
        }
        explainer.forget_bystanders(&bystanders);
        for daemon in daemons {
            // Also the threads that it made meanwhile.
            mark_threads(|tid| probes.mark(tid, Membership::NONE), daemon.pid);
        }
        let device = match device {
            Some((name, probe)) => Some((name, probes.unwatch_device(probe)?)),
            None => None,
        };
        Ok(Watched { device, thread_roles, explainer })
    }
}

impl Watched {
    /// Where its records come from.
    pub(super) fn source(&self) -> &Source {
        self.explainer.source()
    }

    /// What was recorded of it and of nobody else; while it lives, since its threads' names are looked up.
    pub(super) fn recorded(self, recording: Recording) -> Recorded {
        let Self { device, thread_roles, explainer } = self;
        let threads = threads::named(&recording.records, thread_roles);
        Recorded { explainer, recording, threads, device }
    }
}

/// Marks all threads of a process; returns them. A thread that is made meanwhile is what its maker is.
pub(super) fn mark_threads(mark: impl Fn(u32), pid: i32) -> BTreeSet<u32> {
    let mut marked = BTreeSet::new();
    loop {
        let tasks = procfs::process::Process::new(pid).and_then(|process| process.tasks());
        // A daemon that ended has no threads.
        let threads = tasks.into_iter().flatten().flatten().map(|task| task.tid.cast_unsigned());
        let new: Vec<u32> = threads.filter(|tid| !marked.contains(tid)).collect();
        if new.is_empty() {
            return marked;
        }
        for tid in new {
            mark(tid);
            marked.insert(tid);
        }
    }
}

/// Programs that an instance executes, as it calls them, with where they are on the host.
pub(super) fn programs(instance: &dyn Instance, content: &Content) -> Vec<(String, PathBuf)> {
    let as_on_host = instance.files().into_iter().map(|file| (file.display().to_string(), file));
    // A program in a root file system of its own needs others for its functions than this one.
    let inside = match content {
        Content::Executable(file) => content.command().into_iter().next().map(|name| (name, file.clone())),
        Content::Root(_) => None,
    };
    as_on_host.chain(inside).collect()
}
