//! Turns what was observed of an instance into the rows of the dataset.

use super::instance::{Observation, Recorded};
use crate::{
    correlate::{
        Category, Histories, History, Marker, Names, Phase, Share, attribute, calls, exits, faults, markers_of_records,
        phases, threads, wakeups,
    },
    probe::{Record, device_name},
    record::{Dataset, Error, tables},
};
use sandscope_ebpf::event::{Direction, Kind};

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
}

/// Explains an observation: markers and phases of every instance that was launched, and, where probes saw it, where its time
/// went and what its threads did.
pub fn explain(observation: &Observation, names: &mut Names) -> Explanation {
    let Some(launch_ns) = observation.launch_ns else { return Explanation::default() };
    let mut explanation = Explanation { markers: observation.markers.clone(), ..Explanation::default() };
    if let Some(recorded) = &observation.recorded {
        names.learn(&recorded.recording.records);
        let read = Reading::of(recorded, launch_ns, names);
        explanation.markers.extend(markers_of_records(&recorded.recording.records, recorded.scope, &read.histories));
        explanation.markers.sort_by_key(|marker| marker.at_ns);
        if let Ok(wall_ns) = observation.outcome {
            let end_ns = launch_ns + wall_ns;
            explanation.phases = phases(&explanation.markers, launch_ns, end_ns);
            let spans: Vec<_> = read.histories.tasks.iter().map(|task| task.spans(launch_ns, end_ns)).collect();
            let records = &recorded.recording.records;
            explanation.shares = attribute(&read.histories, &spans, records, &explanation.phases, names);
        }
        read.fill(&mut explanation, recorded, names);
    } else if let Ok(wall_ns) = observation.outcome {
        explanation.phases = phases(&explanation.markers, launch_ns, launch_ns + wall_ns);
    }
    explanation
}

impl Explanation {
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
        dataset.append(id, request_rows(observation, launch_ns))?;
        dataset.append(id, [instance_row(observation, unattributed_ns)])
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

    fn fill(&self, explanation: &mut Explanation, recorded: &Recorded, names: &Names) {
        let records = &recorded.recording.records;
        let end_ns = records.last().map_or(self.launch_ns, |record| record.header().at_ns);
        let spans: Vec<_> = self.histories.tasks.iter().map(|task| task.spans(self.launch_ns, end_ns)).collect();
        explanation.exits = exits(records, recorded.scope, &self.histories, names).into_iter().map(exit_row).collect();
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
            })
            .collect();
        explanation.syscalls = calls(&self.histories, &spans)
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
                error_code: block.error,
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
        bucket_floor_ns: buckets.iter().map(|bucket| floor(bucket.value_iterated_to())).collect(),
        bucket_count: buckets.iter().map(|bucket| bucket.count_at_value()).collect(),
    }
}

/// An instant relative to the launch.
fn since(launch_ns: u64, at_ns: u64) -> i64 {
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

fn request_rows(observation: &Observation, launch_ns: u64) -> Vec<tables::Request> {
    (0..)
        .zip(&observation.requests)
        .map(|(position, exchange)| tables::Request {
            position,
            started_ns: since(launch_ns, exchange.started_ns),
            connected_ns: exchange.connected_ns.map(|at| since(launch_ns, at)),
            first_byte_ns: exchange.first_byte_ns.map(|at| since(launch_ns, at)),
            finished_ns: Some(since(launch_ns, exchange.finished_ns)),
            status: exchange.status,
            attempts_count: exchange.attempts,
            body_bytes: exchange.body_bytes,
            error: exchange.error.clone(),
        })
        .collect()
}

fn instance_row(observation: &Observation, unattributed_ns: Option<u64>) -> tables::Instance {
    tables::Instance {
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
        conditions_json: serde_json::Value::from_iter(observation.conditions.clone()).to_string(),
    }
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
