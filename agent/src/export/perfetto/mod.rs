//! Traces for the Perfetto viewer (<https://ui.perfetto.dev>): every event of an instance on one time axis.
//!
//! Each instance is a track with these below it: its phases, the account of its time, markers, requests, what it printed,
//! counters, one track per vCPU and one per source of exits, and one per thread with arrows for who woke whom.
//! Times are `CLOCK_MONOTONIC`, so that instances of one run come in the order in which they ran.

mod schema;
mod writer;

use super::{Chosen, Error, rows};
use crate::{
    record::tables,
    results::{Of, PathElement, Run},
};
use std::collections::{BTreeMap, HashMap};
use writer::{Event, More, Track, Writer};

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// The trace.
    pub bytes: Vec<u8>,
    /// Instances in it.
    pub instances: usize,
    /// Those of them with single events.
    pub with_timeline: usize,
}

/// Writes a trace of some instances.
///
/// # Errors
/// When a table can't be read.
pub fn trace(chosen: &[Chosen<'_>]) -> Result<Exported, Error> {
    let first = chosen.iter().flat_map(|chosen| &chosen.instances).next();
    let instant = first.and_then(|row| Some((row.launched_at_monotonic_ns?, row.launched_at_unix_ns)));
    let (monotonic_ns, unix_ns) = instant.unwrap_or_default();
    let mut writer = Writer::new(monotonic_ns, unix_ns);
    let (mut instances, mut with_timeline) = (0, 0);
    for Chosen { run, instances: rows } in chosen {
        for row in rows {
            let Some(launch_ns) = row.launched_at_monotonic_ns else { continue };
            let mut instance = Instance { writer: &mut writer, run, row, launch_ns };
            instances += 1;
            with_timeline += usize::from(instance.write()?);
        }
    }
    Ok(Exported { bytes: writer.finish(), instances, with_timeline })
}

/// One instance, being written.
struct Instance<'a> {
    writer: &'a mut Writer,
    run: &'a Run,
    row: &'a Of<tables::Instance>,
    launch_ns: i64,
}

/// A name with what is more to say, if anything.
fn titled(name: &str, detail: Option<&str>) -> String {
    detail.map_or_else(|| name.to_owned(), |detail| format!("{name}: {detail}"))
}

fn text(name: &'static str, text: Option<&String>) -> Option<More> {
    text.map(|text| More::Text(name, text.clone()))
}

impl Instance<'_> {
    /// Writes all tracks; tells whether there are single events.
    fn write(&mut self) -> Result<bool, Error> {
        let row = self.row;
        let outcome = row.error.as_ref().map_or_else(String::new, |error| format!(" (failed: {error})"));
        let probes = if row.probes { "" } else { ", without probes" };
        let name = format!("{} {} #{}{probes}{outcome}", row.sandbox, row.workload, row.position);
        let parent = self.writer.track(None, name);
        self.phases(parent)?;
        self.account(parent)?;
        self.markers(parent)?;
        self.requests(parent)?;
        self.console(parent)?;
        self.vcpus(parent)?;
        let threads = self.threads(parent)?;
        self.counters(parent)?;
        Ok(threads)
    }

    fn at(&self, since_launch_ns: i64) -> i64 {
        self.launch_ns + since_launch_ns
    }

    /// The rows of a table about this instance.
    fn rows<R: crate::record::Row + Clone>(&self) -> Result<Vec<R>, Error> {
        let tables = rows::<R>(self.run)?;
        Ok(tables.iter().flat_map(|table| table.of(&self.row.instance_id)).cloned().collect())
    }

    /// A track below the instance's, if there is something to put on it.
    fn track(&mut self, parent: Track, name: &str, is_empty: bool) -> Option<Track> {
        (!is_empty).then(|| self.writer.track(Some(parent), name))
    }

    fn phases(&mut self, parent: Track) -> Result<(), Error> {
        let rows = self.rows::<tables::Phase>()?;
        let Some(track) = self.track(parent, "phases", rows.is_empty()) else { return Ok(()) };
        for row in rows {
            let event = Event { name: row.phase, category: "phase".to_owned(), ..Event::default() };
            self.writer.slice(track, (self.launch_ns + row.start_ns, self.launch_ns + row.end_ns), event);
        }
        Ok(())
    }

    fn account(&mut self, parent: Track) -> Result<(), Error> {
        let rows = self.rows::<tables::AttributionSlice>()?;
        let Some(track) = self.track(parent, "critical path", rows.is_empty()) else { return Ok(()) };
        for row in rows {
            let time = (self.at(row.start_ns), self.at(row.end_ns));
            let name = PathElement::of_slice(&row).words();
            let more = [
                text("role", row.role.as_ref()),
                text("syscall", row.syscall.as_ref()),
                text("object", row.object.as_ref()),
                text("detail", row.detail.as_ref()),
            ];
            let more = more.into_iter().flatten();
            let more = more.chain([More::Text("phase", row.phase)]).collect();
            self.writer.slice(track, time, Event { name, category: row.category, more, ..Event::default() });
        }
        Ok(())
    }

    fn markers(&mut self, parent: Track) -> Result<(), Error> {
        let mut rows = self.rows::<tables::Marker>()?;
        // These have a track of their own.
        rows.retain(|row| row.marker != "console_line");
        let Some(track) = self.track(parent, "markers", rows.is_empty()) else { return Ok(()) };
        for row in rows {
            let more = text("detail", row.detail.as_ref()).into_iter().chain([More::Text("source", row.source)]);
            let (category, more) = ("marker".to_owned(), more.collect());
            self.writer.instant(
                track,
                self.launch_ns + row.at_ns,
                Event { name: row.marker, category, more, ..Event::default() },
            );
        }
        Ok(())
    }

    fn requests(&mut self, parent: Track) -> Result<(), Error> {
        let mut rows = self.rows::<tables::Request>()?;
        rows.sort_by_key(|row| row.started_ns);
        // Requests may be on their way at the same time: each goes to the first track that is free.
        let mut tracks: Vec<(i64, Track)> = Vec::new();
        for row in rows {
            let Some(finished_ns) = row.finished_ns else { continue };
            let track = match tracks.iter_mut().find(|(busy_until_ns, _)| *busy_until_ns <= row.started_ns) {
                Some((busy_until_ns, track)) => {
                    *busy_until_ns = finished_ns;
                    *track
                }
                None => {
                    let track = self.writer.track(Some(parent), "requests");
                    tracks.push((finished_ns, track));
                    track
                }
            };
            let status = row.status.map(|status| More::Number("status", status.into()));
            let more = status.into_iter().chain(text("error", row.error.as_ref())).collect();
            let event = Event { name: "request".to_owned(), category: "request".to_owned(), more, ..Event::default() };
            self.writer.slice(track, (self.launch_ns + row.started_ns, self.launch_ns + finished_ns), event);
        }
        Ok(())
    }

    fn console(&mut self, parent: Track) -> Result<(), Error> {
        let mut tracks = BTreeMap::new();
        for row in self.rows::<tables::ConsoleLine>()? {
            let at_ns = self.at(row.at_ns);
            let writer = &mut *self.writer;
            let name = format!("console, by {}", row.source);
            let track = *tracks.entry(row.source).or_insert_with(|| writer.track(Some(parent), name));
            let event = Event { name: row.line, category: "console".to_owned(), ..Event::default() };
            writer.instant(track, at_ns, event);
        }
        Ok(())
    }

    fn counters(&mut self, parent: Track) -> Result<(), Error> {
        let mut tracks = BTreeMap::new();
        for row in self.rows::<tables::Counter>()? {
            let at_ns = self.at(row.at_ns);
            let writer = &mut *self.writer;
            let name = row.vcpu.map_or_else(|| row.counter.clone(), |vcpu| format!("{} of vCPU {vcpu}", row.counter));
            let track =
                *tracks.entry((row.counter, row.vcpu)).or_insert_with(|| writer.counter_track(parent, name, &row.unit));
            writer.count(track, at_ns, i64::try_from(row.value).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn vcpus(&mut self, parent: Track) -> Result<(), Error> {
        let mut tracks = BTreeMap::new();
        for row in self.rows::<tables::VcpuSlice>()? {
            let time = (self.at(row.start_ns), self.at(row.end_ns));
            let writer = &mut *self.writer;
            let track =
                *tracks.entry(row.vcpu).or_insert_with(|| writer.track(Some(parent), format!("vCPU {}", row.vcpu)));
            let name = titled(&row.state, row.detail.as_deref());
            writer.slice(track, time, Event { name, category: row.state, ..Event::default() });
        }
        let mut sources = BTreeMap::new();
        for row in self.rows::<tables::ExitEvent>()? {
            let at_ns = self.at(row.at_ns);
            let writer = &mut *self.writer;
            let above = tracks.get(&row.vcpu).copied().unwrap_or(parent);
            let name = format!("exits of vCPU {} by {}", row.vcpu, row.source);
            let track =
                *sources.entry((row.vcpu, row.source.clone())).or_insert_with(|| writer.track(Some(above), name));
            let time = row.time_ns.map(|time_ns| More::Number("time_ns", i64::try_from(time_ns).unwrap_or(i64::MAX)));
            let more = text("detail", row.detail.as_ref()).into_iter().chain(time).collect();
            writer.instant(track, at_ns, Event { name: row.reason, category: row.source, more, ..Event::default() });
        }
        Ok(())
    }

    fn threads(&mut self, parent: Track) -> Result<bool, Error> {
        let mut slices = self.rows::<tables::ThreadSlice>()?;
        // A thread's own come in order of time already.
        slices.sort_by_key(|slice| slice.thread);
        let begins: HashMap<(u32, i64), usize> =
            (0..).zip(&slices).map(|(index, slice)| ((slice.thread, slice.start_ns), index)).collect();
        let flows = self.rows::<tables::WakeupFlow>()?;
        let mut tracks: HashMap<u32, Track> = HashMap::new();
        // The last role names the track.
        let roles: HashMap<u32, &str> = slices.iter().map(|slice| (slice.thread, slice.role.as_str())).collect();
        for slice in &slices {
            let writer = &mut *self.writer;
            let role = roles.get(&slice.thread).copied().unwrap_or_default();
            let name = || format!("{role}: {} {}", slice.comm, slice.tid);
            tracks.entry(slice.thread).or_insert_with(|| writer.track(Some(parent), name()));
        }
        // Arrows need both ends: a waker with a track, and a slice that begins with the wake-up.
        let mut ends: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut causes: HashMap<usize, String> = HashMap::new();
        for flow in &flows {
            let Some(&woken) = begins.get(&(flow.thread, flow.at_ns)).filter(|_| flow.waited_ns.is_some()) else {
                continue;
            };
            let cause = titled(&flow.cause, flow.detail.as_deref().or(flow.waker.as_deref()));
            causes.insert(woken, cause);
            let Some(&track) = flow.waker_thread.and_then(|thread| tracks.get(&thread)) else { continue };
            let arrow = self.writer.flow();
            ends.entry(woken).or_default().push(arrow);
            let (name, category) = (format!("wakes {}", flow.role), "wakeup".to_owned());
            let event = Event { name, category, begins: vec![arrow], ..Event::default() };
            self.writer.instant(track, self.launch_ns + flow.at_ns, event);
        }
        for (index, slice) in slices.iter().enumerate() {
            let Some(&track) = tracks.get(&slice.thread) else { continue };
            let role = More::Text("role", slice.role.clone());
            let cause = causes.remove(&index).map(|cause| More::Text("woken by", cause));
            let event = Event {
                name: titled(&slice.category, slice.detail.as_deref()),
                category: slice.category.clone(),
                more: std::iter::once(role).chain(cause).collect(),
                ends: ends.remove(&index).unwrap_or_default(),
                ..Event::default()
            };
            self.writer.slice(track, (self.at(slice.start_ns), self.at(slice.end_ns)), event);
        }
        Ok(!slices.is_empty())
    }
}
