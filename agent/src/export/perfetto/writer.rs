//! Turns tracks and events into the packets of a trace.

use super::schema::{
    BuiltinClock, ChildTracksOrdering, Clock, ClockSnapshot, CounterDescriptor, Data, DebugAnnotation, EventType,
    INCREMENTAL_STATE_CLEARED, Trace, TracePacket, TrackDescriptor, TrackEvent, Unit,
};
use prost::Message as _;

/// All packets are of one sequence: one writer.
const SEQUENCE: u32 = 1;

/// A track of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track(u64);

/// More about an event: a name with a text or a number.
pub enum More {
    /// A text.
    Text(&'static str, String),
    /// A number.
    Number(&'static str, i64),
}

/// A trace that is being written.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    tracks: u64,
    flows: u64,
}

impl Writer {
    /// Begins a trace whose times are `CLOCK_MONOTONIC`, with one instant in both clocks, if it is known.
    pub fn new(monotonic_ns: i64, unix_ns: Option<i64>) -> Self {
        let mut writer = Self::default();
        let clock = |clock: BuiltinClock, at_ns: i64| Clock {
            clock_id: Some(clock as u32),
            timestamp: Some(at_ns.unsigned_abs()),
        };
        let clocks = std::iter::once(clock(BuiltinClock::Monotonic, monotonic_ns))
            .chain(unix_ns.map(|at_ns| clock(BuiltinClock::Realtime, at_ns)))
            .collect();
        let snapshot = ClockSnapshot { clocks, primary_trace_clock: Some(BuiltinClock::Monotonic as i32) };
        writer.packet(TracePacket {
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            data: Some(Data::ClockSnapshot(snapshot)),
            ..TracePacket::default()
        });
        writer
    }

    /// The whole trace.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn packet(&mut self, packet: TracePacket) {
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        // A sequence of traces is a trace, so that only one packet is held twice.
        self.bytes.append(&mut Trace { packet: vec![packet] }.encode_to_vec());
    }

    /// Adds a track below its parent and after its siblings.
    pub fn track(&mut self, parent: Option<Track>, name: impl Into<String>) -> Track {
        self.describe(parent, name.into(), None)
    }

    /// The same for a number.
    pub fn counter_track(&mut self, parent: Track, name: impl Into<String>, unit: &str) -> Track {
        let unit = match unit {
            "ns" => Unit::TimeNs,
            "bytes" => Unit::SizeBytes,
            "count" => Unit::Count,
            _ => Unit::Unspecified,
        };
        self.describe(Some(parent), name.into(), Some(CounterDescriptor { unit: Some(unit as i32) }))
    }

    fn describe(&mut self, parent: Option<Track>, name: String, counter: Option<CounterDescriptor>) -> Track {
        // Zero is no identifier.
        self.tracks += 1;
        let descriptor = TrackDescriptor {
            uuid: Some(self.tracks),
            parent_uuid: parent.map(|Track(uuid)| uuid),
            name: Some(name),
            counter,
            child_ordering: Some(ChildTracksOrdering::Explicit as i32),
            sibling_order_rank: i32::try_from(self.tracks).ok(),
        };
        self.packet(TracePacket { data: Some(Data::TrackDescriptor(descriptor)), ..TracePacket::default() });
        Track(self.tracks)
    }

    /// A number that ties two events together.
    pub fn flow(&mut self) -> u64 {
        self.flows += 1;
        self.flows
    }

    fn event(&mut self, at_ns: i64, kind: EventType, Track(uuid): Track, event: TrackEvent) {
        let event = TrackEvent { r#type: Some(kind as i32), track_uuid: Some(uuid), ..event };
        self.packet(TracePacket {
            // Uptimes are positive.
            timestamp: Some(at_ns.unsigned_abs()),
            timestamp_clock_id: Some(BuiltinClock::Monotonic as u32),
            data: Some(Data::TrackEvent(event)),
            ..TracePacket::default()
        });
    }

    /// A stretch of time. Those of one track must not overlap and must come in order.
    pub fn slice(&mut self, track: Track, (start_ns, end_ns): (i64, i64), event: Event) {
        self.event(start_ns, EventType::SliceBegin, track, event.encode());
        self.event(end_ns, EventType::SliceEnd, track, TrackEvent::default());
    }

    /// An instant.
    pub fn instant(&mut self, track: Track, at_ns: i64, event: Event) {
        self.event(at_ns, EventType::Instant, track, event.encode());
    }

    /// A number from an instant on.
    pub fn count(&mut self, track: Track, at_ns: i64, value: i64) {
        self.event(
            at_ns,
            EventType::Counter,
            track,
            TrackEvent { counter_value: Some(value), ..TrackEvent::default() },
        );
    }
}

/// What an event says.
#[derive(Default)]
pub struct Event {
    /// Shown on it.
    pub name: String,
    /// What it can be filtered by.
    pub category: String,
    /// Shown when it is clicked on.
    pub more: Vec<More>,
    /// Arrows that begin here.
    pub begins: Vec<u64>,
    /// Arrows that end here.
    pub ends: Vec<u64>,
}

impl Event {
    fn encode(self) -> TrackEvent {
        let annotation = |more| match more {
            More::Text(name, text) => {
                DebugAnnotation { name: Some(name.to_owned()), string_value: Some(text), ..DebugAnnotation::default() }
            }
            More::Number(name, number) => {
                DebugAnnotation { name: Some(name.to_owned()), int_value: Some(number), ..DebugAnnotation::default() }
            }
        };
        TrackEvent {
            name: Some(self.name),
            categories: vec![self.category],
            debug_annotations: self.more.into_iter().map(annotation).collect(),
            flow_ids: self.begins,
            terminating_flow_ids: self.ends,
            ..TrackEvent::default()
        }
    }
}
