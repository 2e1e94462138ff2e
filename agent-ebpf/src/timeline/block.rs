//! Block requests of threads in scope, from the submitter to the completion.
//!
//! The submitter is known only where the request is queued; the driver may issue it from a kernel worker and completes it in
//! an interrupt. So the request is remembered by device and first sector. A request that was merged into another one keeps no
//! record of its own: the merged request starts at the sector of one of them. Those left behind age out of the LRU map. What is
//! too long for the device is split on its way, and only its first part was ever queued: the rest is remembered when that
//! happens.

use crate::ring::send;
use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    macros::{map, tracepoint},
    maps::LruHashMap,
    programs::TracePointContext,
};
use sandscope_ebpf::{
    event::{Block, Header, Kind},
    kernel::{current_tid, now_ns, scope},
    map::{BlockKey, BlockPending},
};

#[map]
static BLOCK_PENDING: LruHashMap<BlockKey, BlockPending> = LruHashMap::with_max_entries(16_384, 0);

macro_rules! offsets {
    ($($name:ident)*) => { $(#[unsafe(no_mangle)] static $name: Global<u32> = Global::new(0);)* };
}
offsets! {
    BIO_QUEUE_DEV BIO_QUEUE_SECTOR BIO_QUEUE_RWBS
    SPLIT_DEV SPLIT_SECTOR SPLIT_NEW_SECTOR
    RQ_ISSUE_DEV RQ_ISSUE_SECTOR
    RQ_COMPLETE_DEV RQ_COMPLETE_SECTOR RQ_COMPLETE_NR_SECTOR RQ_COMPLETE_ERROR
}

const SECTOR_BYTES: u32 = 512;

/// Field of a tracepoint's record; its type's zero when it can't be read.
#[inline(always)]
fn field<T: Default>(context: &TracePointContext, offset: &Global<u32>) -> T {
    // SAFETY: the helper reads the record at any offset and fails outside of memory.
    unsafe { context.read_at(offset.load() as usize) }.unwrap_or_default()
}

#[inline(always)]
fn key(context: &TracePointContext, device: &Global<u32>, sector: &Global<u32>) -> BlockKey {
    BlockKey { sector: field(context, sector), device: field(context, device), padding: 0 }
}

#[tracepoint(category = "block", name = "block_bio_queue")]
pub fn block_bio_queue(context: TracePointContext) -> u32 {
    let tid = current_tid(&context);
    let membership = scope::of(tid);
    if membership.is_recorded() {
        // The first letter of `rwbs` that is not F (a flush before) tells the direction.
        let rwbs: [u8; 2] = field(&context, &BIO_QUEUE_RWBS);
        let letter = if rwbs[0] == b'F' { rwbs[1] } else { rwbs[0] };
        let pending = BlockPending {
            queued_ns: now_ns(),
            issued_ns: 0,
            tid,
            scope: membership.scope(),
            write: u16::from(letter == b'W'),
        };
        let _ = BLOCK_PENDING.insert(key(&context, &BIO_QUEUE_DEV, &BIO_QUEUE_SECTOR), pending, u64::from(BPF_ANY));
    }
    1
}

#[tracepoint(category = "block", name = "block_split")]
pub fn block_split(context: TracePointContext) -> u32 {
    let first = key(&context, &SPLIT_DEV, &SPLIT_SECTOR);
    // SAFETY: nobody else touches a request between its queueing and its issue.
    if let Some(pending) = unsafe { BLOCK_PENDING.get(first) } {
        let pending = *pending;
        let rest = BlockKey { sector: field(&context, &SPLIT_NEW_SECTOR), ..first };
        let _ = BLOCK_PENDING.insert(rest, pending, u64::from(BPF_ANY));
    }
    1
}

#[tracepoint(category = "block", name = "block_rq_issue")]
pub fn block_rq_issue(context: TracePointContext) -> u32 {
    if let Some(pending) = BLOCK_PENDING.get_ptr_mut(key(&context, &RQ_ISSUE_DEV, &RQ_ISSUE_SECTOR)) {
        // SAFETY: the map gives a valid pointer; a request is issued once at a time.
        unsafe { (*pending).issued_ns = now_ns() };
    }
    1
}

#[tracepoint(category = "block", name = "block_rq_complete")]
pub fn block_rq_complete(context: TracePointContext) -> u32 {
    let key = key(&context, &RQ_COMPLETE_DEV, &RQ_COMPLETE_SECTOR);
    // SAFETY: nobody else touches a request between its issue and its completion.
    let Some(pending) = (unsafe { BLOCK_PENDING.get(key) }) else {
        return 1;
    };
    let pending = *pending;
    let sectors: u32 = field(&context, &RQ_COMPLETE_NR_SECTOR);
    let header = Header {
        at_ns: now_ns(),
        tid: pending.tid,
        scope: pending.scope,
        kind: Kind::Block as u8,
        flags: pending.write as u8,
    };
    send(
        Kind::Block,
        Block {
            header,
            sector: key.sector,
            queued_ns: pending.queued_ns,
            issued_ns: pending.issued_ns,
            bytes: sectors.wrapping_mul(SECTOR_BYTES),
            device: key.device,
            error: field(&context, &RQ_COMPLETE_ERROR),
            padding: 0,
        },
    );
    let _ = BLOCK_PENDING.remove(key);
    1
}
