//! Takes the records out of the ring buffer while an experiment runs, without being woken by them.
//!
//! A thread drains on a timer and only copies; decoding waits until the instance is over, so that it does not take CPU time
//! from what is measured.

use super::{log::Said, record::Record};
use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use bytemuck::try_pod_read_unaligned;
use sandscope_ebpf::event::{Header, Kind};
use std::{
    collections::BTreeMap,
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
    /// What is missing among them.
    pub lost: Lost,
}

/// Records that were lost: the ring had no room, or this program kept no more. And runs of programs that the kernel skipped, so that
/// nobody knows what they would have written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// By scope and kind. Scope 0 stands for those of which nobody knows whose they were.
    pub records: BTreeMap<(u16, u16), u64>,
    /// Runs of programs that the kernel skipped.
    pub skipped_runs: u64,
}

impl Lost {
    /// Lost records of all scopes and kinds.
    pub fn all(&self) -> u64 {
        self.records.values().sum()
    }

    /// Records of this kind that a scope has lost, or may have.
    pub fn of(&self, scope: u16, kind: Kind) -> u64 {
        [scope, 0].iter().filter_map(|&scope| self.records.get(&(scope, kind as u16))).sum()
    }

    /// Adds what was lost besides.
    pub fn add(&mut self, other: &Self) {
        for (&key, count) in &other.records {
            *self.records.entry(key).or_default() += count;
        }
        self.skipped_runs += other.skipped_runs;
    }

    /// What was lost since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let difference = |(&key, &count): (&(u16, u16), &u64)| {
            let since = count.saturating_sub(before.records.get(&key).copied().unwrap_or(0));
            (since > 0).then_some((key, since))
        };
        let records = self.records.iter().filter_map(difference).collect();
        Self { records, skipped_runs: self.skipped_runs.saturating_sub(before.skipped_runs) }
    }
}

/// Raw records, back to back.
struct Raw {
    /// Most that is kept.
    max_bytes: usize,
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    refused: Lost,
}

impl Raw {
    fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: Vec::new(), lengths: Vec::new(), refused: Lost::default() }
    }

    fn push(&mut self, record: &[u8]) {
        let length = u16::try_from(record.len()).ok().filter(|_| self.bytes.len() + record.len() <= self.max_bytes);
        match length {
            Some(length) => {
                self.bytes.extend_from_slice(record);
                self.lengths.push(length);
            }
            None => {
                // What has no header is nobody's.
                let header =
                    record.get(..size_of::<Header>()).and_then(|head| try_pod_read_unaligned::<Header>(head).ok());
                let key = header.map_or((0, 0), |header| (header.scope, u16::from(header.kind)));
                *self.refused.records.entry(key).or_default() += 1;
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
    pub(super) fn start(ring: RingBuf<MapData>, said: Option<Said>) -> Result<Self> {
        let (requests, receiver) = sync_channel(1);
        let kept = Arc::new(AtomicUsize::new(0));
        let of_thread = Arc::clone(&kept);
        let thread = std::thread::Builder::new()
            .name("ring".to_owned())
            .spawn(move || drain(ring, said, &receiver, &of_thread))
            .context("can't start the thread that drains the ring buffer")?;
        Ok(Self { kept, requests: Some(requests), thread: Some(thread) })
    }

    /// Bytes of records that wait to be taken, about.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Everything since the last call, decoded and in order of time; `lost` is what the kernel's half lost in the same span.
    pub(super) fn take(&self, lost: Lost) -> Result<Recording> {
        let (reply, answer) = sync_channel(1);
        let requests = self.requests.as_ref().context("the collector has ended")?;
        requests.send(reply).context("the thread that drains the ring buffer has ended")?;
        let raw = answer.recv().context("the thread that drains the ring buffer has ended")?;
        let mut recording = Recording { records: Vec::with_capacity(raw.lengths.len()), lost };
        let mut rest = raw.bytes.as_slice();
        for length in raw.lengths {
            let (record, after) = rest.split_at(usize::from(length));
            recording.records.push(Record::decode(record)?);
            rest = after;
        }
        recording.lost.add(&raw.refused);
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

fn drain(mut ring: RingBuf<MapData>, mut said: Option<Said>, requests: &Receiver<SyncSender<Raw>>, kept: &AtomicUsize) {
    let mut raw = Raw::new(MAX_BYTES);
    loop {
        let request = requests.recv_timeout(DRAIN_INTERVAL);
        while let Some(record) = ring.next() {
            raw.push(&record);
        }
        if let Some(said) = &mut said {
            said.pass_on();
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
        (entry.header.kind, entry.header.scope) = (Kind::KvmEntry as u8, 7);
        let mut raw = Raw::new(size_of::<KvmEntry>() + 1);
        raw.push(bytes_of(&entry));
        raw.push(bytes_of(&entry));
        assert_eq!(raw.lengths.len(), 1);
        assert_eq!((raw.refused.of(7, Kind::KvmEntry), raw.refused.of(8, Kind::KvmEntry)), (1, 0));
    }
}
