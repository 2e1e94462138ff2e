//! Takes the records out of the ring buffer while an experiment runs, without being woken by them.
//!
//! A thread drains on a timer and only copies; decoding waits until the instance is over, so that it does not take CPU time
//! from what is measured.

use super::record::Record;
use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use sandscope_ebpf::{event::Kind, map::Counters};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How often the ring is drained. A cold start makes some 10^5 records per second of 40 bytes: a hundredth of the default ring.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes kept of one recording. What comes after is counted as lost, so that an instance that runs wild can't exhaust memory.
const MAX_BYTES: usize = 1 << 30;

/// What the probes saw between two calls of [`super::Probes::take`].
#[derive(Debug, Default)]
pub struct Recording {
    /// In order of time.
    pub records: Vec<Record>,
    /// Records that each kind had to write, and those that were lost: the ring had no room, or this program kept no more.
    pub counters: Counters,
}

impl Recording {
    /// Lost records of all kinds.
    pub fn lost(&self) -> u64 {
        self.counters.lost.iter().sum()
    }
}

/// Raw records, back to back.
struct Raw {
    /// Most that is kept.
    max_bytes: usize,
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    refused: [u64; Kind::COUNT],
}

impl Raw {
    fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: Vec::new(), lengths: Vec::new(), refused: [0; Kind::COUNT] }
    }

    fn push(&mut self, record: &[u8]) {
        let length = u16::try_from(record.len()).ok().filter(|_| self.bytes.len() + record.len() <= self.max_bytes);
        match length {
            Some(length) => {
                self.bytes.extend_from_slice(record);
                self.lengths.push(length);
            }
            None => {
                // The kind is the fifteenth byte of every header.
                let kind = record.get(14).map_or(0, |&kind| usize::from(kind));
                self.refused[kind.min(Kind::COUNT - 1)] += 1;
            }
        }
    }
}

/// The draining thread.
pub(super) struct Collector {
    /// Bytes that it has.
    kept: Arc<AtomicUsize>,
    requests: Option<SyncSender<SyncSender<Raw>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub(super) fn start(ring: RingBuf<MapData>) -> Result<Self> {
        let (requests, receiver) = sync_channel(1);
        let kept = Arc::new(AtomicUsize::new(0));
        let of_thread = Arc::clone(&kept);
        let thread = std::thread::Builder::new()
            .name("ring".to_owned())
            .spawn(move || drain(ring, &receiver, &of_thread))
            .context("can't start the thread that drains the ring buffer")?;
        Ok(Self { kept, requests: Some(requests), thread: Some(thread) })
    }

    /// Bytes of records that wait to be taken, about.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Everything since the last call, decoded and in order of time; `counters` are those of the same span.
    pub(super) fn take(&self, counters: Counters) -> Result<Recording> {
        let (reply, answer) = sync_channel(1);
        let requests = self.requests.as_ref().context("the collector has ended")?;
        requests.send(reply).context("the thread that drains the ring buffer has ended")?;
        let raw = answer.recv().context("the thread that drains the ring buffer has ended")?;
        let mut recording = Recording { records: Vec::with_capacity(raw.lengths.len()), counters };
        let mut rest = raw.bytes.as_slice();
        for length in raw.lengths {
            let (record, after) = rest.split_at(usize::from(length));
            recording.records.push(Record::decode(record)?);
            rest = after;
        }
        for (lost, refused) in recording.counters.lost.iter_mut().zip(raw.refused) {
            *lost += refused;
        }
        // Each CPU takes its time before it gets its place in the ring, so neighbours can be out of order.
        recording.records.sort_by_key(|record| record.header().at_ns);
        Ok(recording)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Without a sender the thread ends.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn drain(mut ring: RingBuf<MapData>, requests: &Receiver<SyncSender<Raw>>, kept: &AtomicUsize) {
    let mut raw = Raw::new(MAX_BYTES);
    loop {
        let request = requests.recv_timeout(DRAIN_INTERVAL);
        while let Some(record) = ring.next() {
            raw.push(&record);
        }
        kept.store(raw.bytes.len(), Ordering::Relaxed);
        match request {
            // The asker may have given up; then the records are nobody's.
            Ok(reply) => drop(reply.send(std::mem::replace(&mut raw, Raw::new(MAX_BYTES)))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::{Zeroable, bytes_of};
    use sandscope_ebpf::event::KvmEntry;

    #[test]
    fn what_is_not_kept_is_counted_by_kind() {
        let mut entry = KvmEntry::zeroed();
        entry.header.kind = Kind::KvmEntry as u8;
        let mut raw = Raw::new(size_of::<KvmEntry>() + 1);
        raw.push(bytes_of(&entry));
        raw.push(bytes_of(&entry));
        assert_eq!(raw.lengths.len(), 1);
        assert_eq!(raw.refused[Kind::KvmEntry as usize], 1);
    }
}
