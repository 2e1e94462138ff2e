//! Turns what was observed of an instance into the rows of the dataset.

use super::{
    io_rows,
    observation::{Observation, Recorded},
    step_rows,
    timeline::{Material, Timeline},
    window::activity,
};
use crate::{
    correlate::{
        Account, Category, Histories, History, Marker, Names, Phase, Share, Span, attribute, calls, exits, faults,
        markers_of_records, phases, threads, undelay, wakeups,
    },
    probe::{Record, device_name, error_code},
    record::{Dataset, Error, tables},
};
use sandscope_ebpf::event::{Direction, Kind};
use std::ops::Range;

/// What an observation says, in the terms of the dataset.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The phases of the start, in order.
    pub phases: Vec<Phase>,
    /// Where its time went; empty without probes.
    pub shares: Vec<Share>,
    markers: Vec<Marker>,
    exits: Vec<tables::Exit>,
    sched: Vec<tables::Sched>,
    wakeups: Vec<tables::Wakeup>,
    syscalls: Vec<tables::Syscall>,
    faults: Vec<tables::Fault>,
    block: Vec<tables::Block>,
    net: Vec<tables::Net>,
    events: Vec<tables::EventCount>,
    timeline: Option<Timeline>,
    activity: Vec<tables::Activity>,
    file_latencies: Vec<tables::FileLatency>,
    block_latencies: Vec<tables::BlockLatency>,
}

/// Explains an observation: markers and phases of every instance that was launched, and, where probes saw it, where its time
/// went and what its threads did.
pub fn explain(observation: &mut Observation, names: &mut Names) -> Explanation {
    let (before, steps) = observation.digest.take().map(|digest| (digest.explanation, digest.steps)).unzip();
    explain_recording(before, observation, observation.recorded.as_ref(), steps.unwrap_or(0), names)
}

/// Explains what was recorded since `before` was made, which has so many of the steps; without one, since the launch.
pub(super) fn explain_recording(
    before: Option<Explanation>,
    observation: &Observation,
    recorded: Option<&Recorded>,
    steps: usize,
    names: &mut Names,
) -> Explanation {
    let Some(launch_ns) = observation.launch_ns else { return Explanation::default() };
    let read = recorded.map(|recorded| {
        names.learn(&recorded.recording.records);
        names.threads = recorded.threads.iter().map(|thread| (thread.tid, thread.clone())).collect();
        (recorded, Reading::of(recorded, launch_ns, names))
    });
    let is_first = before.is_none();
    let mut explanation = before.unwrap_or_else(|| {
        explain_start(observation, launch_ns, read.as_ref().map(|(recorded, read)| (*recorded, read)), names)
    });
    if let Some((recorded, read)) = &read {
        let start = is_first.then_some(0);
        let windows: Vec<_> =
            io_rows::windows(observation).filter(|(step, _)| start == Some(*step) || *step as usize > steps).collect();
        explanation.add(recorded, read, names, &windows);
    }
    explanation
}

/// Explains the start, and sums up what the threads did until the recording ends.
fn explain_start(
    observation: &Observation,
    launch_ns: u64,
    read: Option<(&Recorded, &Reading)>,
    names: &Names,
) -> Explanation {
    let mut explanation = Explanation { markers: observation.markers.clone(), ..Explanation::default() };
    if let Some((recorded, read)) = read {
        let of_records = markers_of_records(&recorded.recording.records, recorded.scope, &read.histories);
        undelay(&mut explanation.markers, &of_records);
        explanation.markers.extend(of_records);
        explanation.markers.sort_by_key(|marker| marker.at_ns);
        let mut account = Account::default();
        if let Ok(wall_ns) = observation.outcome {
            let end_ns = launch_ns + wall_ns;
            explanation.phases = phases(&explanation.markers, launch_ns, end_ns);
            let spans: Vec<_> = read.histories.tasks.iter().map(|task| task.spans(launch_ns, end_ns)).collect();
            let records = &recorded.recording.records;
            account = attribute(&read.histories, &spans, records, &explanation.phases, names);
        }
        read.fill(&mut explanation, recorded, names);
        if observation.timeline {
            let (histories, markers) = (&read.histories, &explanation.markers);
            let (spans, end_ns) = read.spans(recorded);
            let (spans, account) = (&spans, &account);
            let material =
                Material { observation, recorded, histories, spans, account, markers, names, launch_ns, end_ns };
            explanation.timeline = Some(Timeline::of(&material));
        }
        explanation.shares = account.shares;
    } else if let Ok(wall_ns) = observation.outcome {
        explanation.phases = phases(&explanation.markers, launch_ns, launch_ns + wall_ns);
    }
    explanation
}

impl Explanation {
    /// Adds what was recorded in these windows, each with the number of its step.
    fn add(&mut self, recorded: &Recorded, read: &Reading, names: &Names, windows: &[(u32, Range<u64>)]) {
        let (records, scope) = (&recorded.recording.records, recorded.scope);
        let steps = windows.iter().filter(|(step, _)| *step > 0);
        self.activity
            .extend(steps.flat_map(|(step, window)| activity(records, scope, &read.histories, names, *step, window)));
        self.file_latencies.extend(io_rows::file_latencies(&read.histories, windows));
        self.block_latencies.extend(io_rows::block_latencies(recorded, windows));
        self.block.extend(read.block_rows(records));
        // These are of all that was recorded so far.
        self.net = read.net_rows(recorded);
        self.events = event_rows(recorded);
    }

    /// Time that no category claims; `None` without probes.
    pub fn unattributed_ns(&self) -> Option<u64> {
        let unattributed = self.shares.iter().filter(|share| share.category == Category::Unattributed);
        (!self.shares.is_empty()).then(|| unattributed.map(|share| share.time_ns).sum())
    }

    /// Appends all rows about the instance to the dataset, its own row last.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn append(self, observation: &Observation, dataset: &mut Dataset) -> Result<(), Error> {
        let id = &observation.id;
        let launch_ns = observation.launch_ns.unwrap_or(0);
        let unattributed_ns = self.unattributed_ns();
        dataset.append(id, self.markers.into_iter().map(|marker| marker_row(marker, launch_ns)))?;
        dataset.append(id, self.phases.iter().map(|phase| phase_row(phase, launch_ns)))?;
        dataset.append(id, self.shares.into_iter().map(attribution_row))?;
        dataset.append(id, self.exits)?;
        dataset.append(id, self.sched)?;
        dataset.append(id, self.wakeups)?;
        dataset.append(id, self.syscalls)?;
        dataset.append(id, self.faults)?;
        dataset.append(id, self.block)?;
        dataset.append(id, self.net)?;
        dataset.append(id, self.events)?;
        dataset.append(id, self.activity)?;
        dataset.append(id, step_rows::steps(observation))?;
        dataset.append(id, step_rows::latencies(observation))?;
        dataset.append(id, step_rows::answers(observation))?;
        dataset.append(id, step_rows::traffic(observation))?;
        dataset.append(id, step_rows::responses(observation))?;
        dataset.append(id, step_rows::pickups(observation))?;
        dataset.append(id, io_rows::files(observation))?;
        dataset.append(id, self.file_latencies)?;
        dataset.append(id, io_rows::offloads(observation))?;
        dataset.append(id, self.block_latencies)?;
        dataset.append(id, step_rows::requests(observation))?;
        let mut row = instance_row(observation, unattributed_ns);
        if let Some(timeline) = self.timeline {
            row.conditions_json = conditions_json(observation, Some(timeline.condition()));
            timeline.append(id, dataset)?;
        }
        dataset.append(id, [row])
    }
}

/// The recording, sorted out by task.
struct Reading {
    histories: Histories,
    launch_ns: u64,
}

impl Reading {
    fn of(recorded: &Recorded, launch_ns: u64, names: &Names) -> Self {
        let Recorded { recording, scope, bystanders, roles, .. } = recorded;
        Self { histories: Histories::of(&recording.records, *scope, bystanders, roles, names), launch_ns }
    }

    /// Role of a thread at an instant; thread numbers are used again, so the instant matters.
    fn role(&self, tid: u32, at_ns: u64) -> String {
        let lives = |task: &&History| task.tid == tid && task.lives_at(at_ns);
        self.histories.tasks.iter().find(lives).map_or("unknown", |task| task.role_at(at_ns)).to_owned()
    }

    /// What each thread did from the launch to the end of the recording, and that end.
    fn spans(&self, recorded: &Recorded) -> (Vec<Vec<Span>>, u64) {
        let end_ns = recorded.recording.records.last().map_or(self.launch_ns, |record| record.header().at_ns);
        (self.histories.tasks.iter().map(|task| task.spans(self.launch_ns, end_ns)).collect(), end_ns)
    }

    fn fill(&self, explanation: &mut Explanation, recorded: &Recorded, names: &Names) {
        let records = &recorded.recording.records;
        let (spans, _) = self.spans(recorded);
        let all = 0..u64::MAX;
        explanation.exits =
            exits(records, recorded.scope, &self.histories, names, &all).into_iter().map(exit_row).collect();
        explanation.sched = self
            .histories
            .tasks
            .iter()
            .zip(threads(&self.histories, &spans))
            .map(|(task, totals)| tables::Sched {
                tid: task.tid,
                tgid: task.tgid,
                comm: task.comm.clone(),
                role: task.role().to_owned(),
                on_cpu_ns: totals.on_cpu_ns,
                user_ns: totals.user_ns,
                kernel_ns: totals.kernel_ns,
                guest_ns: totals.guest_ns,
                exit_ns: totals.exit_ns,
                kvm_run_ns: totals.kvm_run_ns,
                runnable_ns: totals.runnable_ns,
                blocked_ns: totals.blocked_ns,
                switches_count: totals.switches,
                preemptions_count: totals.preemptions,
                sleeps_count: totals.sleeps,
                wakeups_count: totals.wakeups,
                migrations_count: totals.migrations,
            })
            .collect();
        explanation.wakeups = wakeups(&self.histories, &spans)
            .into_iter()
            .map(|wakeup| tables::Wakeup {
                tid: wakeup.tid,
                role: wakeup.role,
                waker: (wakeup.cause == "task").then_some(wakeup.waker),
                cause: wakeup.cause.to_owned(),
                detail: Some(wakeup.detail).filter(|detail| !detail.is_empty()),
                count: wakeup.count,
                waited_ns: wakeup.waited_ns,
                waker_tid: None,
                waker_inside: None,
                on_cpu_after_ns: None,
            })
            .collect();
        explanation.syscalls = calls(&self.histories, &spans, &all)
            .into_iter()
            .map(|call| tables::Syscall {
                role: call.role,
                syscall: call.call,
                count: call.count,
                time_ns: call.time_ns,
                on_cpu_ns: call.on_cpu_ns,
            })
            .collect();
        explanation.faults = faults(&self.histories, &explanation.phases)
            .into_iter()
            .map(|count| tables::Fault {
                tid: count.tid,
                role: count.role,
                phase: count.phase.to_owned(),
                read_count: count.faults.read.into(),
                write_count: count.faults.write.into(),
                exec_count: count.faults.exec.into(),
                unknown_count: count.faults.unknown.into(),
            })
            .collect();
        explanation.block = self.block_rows(records);
        explanation.net = self.net_rows(recorded);
        explanation.events = event_rows(recorded);
    }

    fn block_rows(&self, records: &[Record]) -> Vec<tables::Block> {
        let rows = records.iter().filter_map(|record| match record {
            Record::Block(block) => Some(tables::Block {
                tid: block.header.tid,
                role: self.role(block.header.tid, block.queued_ns),
                device: device_name(block.device),
                sector: block.sector,
                size_bytes: block.bytes.into(),
                write: block.header.flags == 1,
                queued_ns: since(self.launch_ns, block.queued_ns),
                issued_ns: (block.issued_ns != 0).then(|| since(self.launch_ns, block.issued_ns)),
                completed_ns: since(self.launch_ns, block.header.at_ns),
                error_code: error_code(block.error),
            }),
            _ => None,
        });
        rows.collect()
    }

    fn net_rows(&self, recorded: &Recorded) -> Vec<tables::Net> {
        let Some((device, counts)) = &recorded.device else { return Vec::new() };
        let row = |way: Direction, direction: &str| tables::Net {
            device: device.clone(),
            direction: direction.to_owned(),
            frames_count: counts.frames[way as usize],
            size_bytes: counts.bytes[way as usize],
            first_frame_ns: recorded.recording.records.iter().find_map(|record| match record {
                Record::Frame(frame) if frame.header.flags == way as u8 => {
                    Some(since(self.launch_ns, frame.header.at_ns))
                }
                _ => None,
            }),
        };
        vec![row(Direction::FromSandbox, "from_sandbox"), row(Direction::ToSandbox, "to_sandbox")]
    }
}

fn event_rows(recorded: &Recorded) -> Vec<tables::EventCount> {
    let counters = &recorded.recording.counters;
    let row = |kind: Kind| tables::EventCount {
        kind: snake_case(&format!("{kind:?}")),
        seen_count: counters.seen[kind as usize],
        lost_count: counters.lost[kind as usize],
    };
    Kind::ALL.into_iter().map(row).collect()
}

fn exit_row(exit: crate::correlate::ExitCount) -> tables::Exit {
    let buckets: Vec<_> = exit.times.iter().flat_map(|times| times.iter_recorded()).collect();
    let floor = |value: u64| exit.times.as_ref().map_or(value, |times| times.lowest_equivalent(value));
    tables::Exit {
        vcpu: exit.vcpu,
        source: exit.source.to_owned(),
        reason: exit.reason,
        detail: exit.detail,
        count: exit.count,
        time_ns: exit.time_ns,
        kernel_ns: None,
        vmm_ns: None,
        blocked_ns: None,
        polled_ns: None,
        runnable_ns: None,
        bucket_floor_ns: buckets.iter().map(|bucket| floor(bucket.value_iterated_to())).collect(),
        bucket_count: buckets.iter().map(|bucket| bucket.count_at_value()).collect(),
    }
}

/// An instant relative to the launch.
pub(super) fn since(launch_ns: u64, at_ns: u64) -> i64 {
    // Both are uptimes: their difference fits by centuries.
    at_ns.cast_signed() - launch_ns.cast_signed()
}

fn marker_row(marker: Marker, launch_ns: u64) -> tables::Marker {
    tables::Marker {
        marker: marker.name.to_owned(),
        source: marker.source.to_owned(),
        at_ns: since(launch_ns, marker.at_ns),
        detail: marker.detail,
    }
}

fn phase_row(phase: &Phase, launch_ns: u64) -> tables::Phase {
    tables::Phase {
        phase: phase.name.to_owned(),
        start_ns: since(launch_ns, phase.start_ns),
        end_ns: since(launch_ns, phase.end_ns),
        time_ns: phase.end_ns - phase.start_ns,
    }
}

fn attribution_row(share: Share) -> tables::Attribution {
    tables::Attribution {
        phase: share.phase.to_owned(),
        category: share.category.name().to_owned(),
        role: share.role,
        detail: share.detail,
        time_ns: share.time_ns,
    }
}

fn instance_row(observation: &Observation, unattributed_ns: Option<u64>) -> tables::Instance {
    tables::Instance {
        experiment: observation.part.experiment.clone(),
        variant: observation.part.variant.clone(),
        repetition: observation.part.repetition,
        sandbox: observation.sandbox.clone(),
        workload: observation.workload.clone(),
        position: observation.position,
        probes: observation.probes,
        ok: observation.outcome.is_ok(),
        error: observation.outcome.as_ref().err().cloned(),
        wall_ns: observation.outcome.as_ref().ok().copied(),
        launched_at_monotonic_ns: observation.launch_ns.map(u64::cast_signed),
        launched_at_unix_ns: observation.launched_at_unix_ns,
        cache: observation.cache.name().to_owned(),
        cache_pages_count: observation.residency.map(|residency| residency.pages),
        cache_resident_pages_count: observation.residency.map(|residency| residency.resident),
        network: observation.network.to_owned(),
        lost_events_count: observation.lost(),
        unattributed_ns,
        conditions_json: conditions_json(observation, None),
    }
}

/// The further conditions of an instance; `timeline` is one when its single events are written.
fn conditions_json(observation: &Observation, timeline: Option<String>) -> String {
    let timeline = timeline.map(|condition| ("timeline".to_owned(), condition));
    serde_json::Value::from_iter(observation.conditions.clone().into_iter().chain(timeline)).to_string()
}

/// `TaskNew` becomes `task_new`.
fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// Every table exists, also when there is nothing to say in it: readers can tell "nothing seen" from "not looked at".
pub(super) fn declare(dataset: &mut Dataset) -> Result<(), Error> {
    dataset.declare::<tables::Instance>()?;
    dataset.declare::<tables::Marker>()?;
    dataset.declare::<tables::Phase>()?;
    dataset.declare::<tables::Attribution>()?;
    dataset.declare::<tables::Request>()?;
    dataset.declare::<tables::Step>()?;
    dataset.declare::<tables::Latency>()?;
    dataset.declare::<tables::Answer>()?;
    dataset.declare::<tables::Traffic>()?;
    dataset.declare::<tables::Response>()?;
    dataset.declare::<tables::Pickup>()?;
    dataset.declare::<tables::File>()?;
    dataset.declare::<tables::BlockLatency>()?;
    dataset.declare::<tables::FileLatency>()?;
    dataset.declare::<tables::Offload>()?;
    dataset.declare::<tables::Activity>()?;
    dataset.declare::<tables::Outlier>()?;
    dataset.declare::<tables::Exit>()?;
    dataset.declare::<tables::Sched>()?;
    dataset.declare::<tables::Wakeup>()?;
    dataset.declare::<tables::Syscall>()?;
    dataset.declare::<tables::Fault>()?;
    dataset.declare::<tables::Block>()?;
    dataset.declare::<tables::Net>()?;
    dataset.declare::<tables::EventCount>()?;
    dataset.flush()?;
    Ok(())
}
