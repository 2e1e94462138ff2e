//! Block requests of the sandbox, for waits that one of them ends.

use crate::probe::Record;

/// The completion wakes the thread before the tracepoint that tells of it, or shortly after.
const COMPLETION_NS: u64 = 100_000;

/// When block requests completed, and whose they were.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Completion, beginning, submitting thread and device; in order of completion.
    all: Vec<Request>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    completed_ns: u64,
    queued_ns: u64,
    tid: u32,
    device: u32,
}

impl Requests {
    pub(super) fn of(records: &[Record]) -> Self {
        let requests = records.iter().filter_map(|record| match record {
            Record::Block(block) => Some(Request {
                completed_ns: block.header.at_ns,
                queued_ns: block.queued_ns,
                tid: block.header.tid,
                device: block.device,
            }),
            _ => None,
        });
        let mut all: Vec<_> = requests.collect();
        all.sort_unstable_by_key(|request| request.completed_ns);
        Self { all }
    }

    /// The device of the request whose completion ended a wait: one that this thread submitted, or where `any` is set, one that
    /// another thread did (a page that is read already is waited for by all).
    pub(super) fn ended(&self, tid: u32, (start_ns, end_ns): (u64, u64), any: bool) -> Option<u32> {
        let from = self.all.partition_point(|request| request.completed_ns + COMPLETION_NS < end_ns);
        let near = self.all[from..].iter().take_while(|request| request.completed_ns < end_ns + COMPLETION_NS);
        let during = near.filter(|request| request.queued_ns < end_ns && request.completed_ns > start_ns);
        let mut others = None;
        for request in during {
            if request.tid == tid {
                return Some(request.device);
            }
            others = others.or(Some(request.device));
        }
        others.filter(|_| any)
    }
}
