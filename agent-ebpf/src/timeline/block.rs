//! Block requests of threads in scope, from the submitter to the completion.
//!
//! The submitter is known only where the request is queued; the driver may issue it from a kernel worker and completes it in
//! an interrupt. So the request is remembered by disk and first sector. A request that was merged into another one keeps no
//! record of its own: the merged request starts at the sector of one of them. Those left behind age out of the LRU map. What is
//! too long for the device is split on its way, and only its first part was ever queued: the rest is remembered when that
//! happens.
//!
//! Raw tracepoints: a program on a classic one is skipped when its event interrupts another such program, as completions do. And
//! the disk is the key, not the device number, because what is queued to a partition is completed by the disk.

use crate::ring::send;
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{map, raw_tracepoint},
    maps::LruHashMap,
    programs::RawTracePointContext,
};
use sandscope_ebpf::{
    event::{Block, Header, Kind},
    kernel::{current_tid, now_ns, offsets, read_field, scope},
    map::{BlockKey, BlockPending},
};

#[map]
static BLOCK_PENDING: LruHashMap<BlockKey, BlockPending> = LruHashMap::with_max_entries(16_384, 0);

offsets! {
    BIO_DEVICE BIO_SECTOR BIO_SIZE BIO_OPERATION BLOCK_DEVICE_DISK
    REQUEST_QUEUE REQUEST_SECTOR QUEUE_DISK
    DISK_MAJOR DISK_FIRST_MINOR
}

const SECTOR_SHIFT: u32 = 9;
/// `MINORBITS` of `include/linux/kdev_t.h`.
const MINOR_BITS: u32 = 20;
/// `op_is_write` of `include/linux/blk_types.h`: operations that send data to the device have odd numbers.
const IS_WRITE: u32 = 1;

/// Where a `struct bio` begins.
#[inline(always)]
fn place_of_bio(bio: *const u8) -> Option<BlockKey> {
    let device = read_field::<u64>(bio, &BIO_DEVICE)? as *const u8;
    Some(BlockKey { sector: read_field(bio, &BIO_SECTOR)?, disk: read_field(device, &BLOCK_DEVICE_DISK)? })
}

/// Where a `struct request` begins.
#[inline(always)]
fn place_of_request(request: *const u8) -> Option<BlockKey> {
    let queue = read_field::<u64>(request, &REQUEST_QUEUE)? as *const u8;
    Some(BlockKey { sector: read_field(request, &REQUEST_SECTOR)?, disk: read_field(queue, &QUEUE_DISK)? })
}

#[raw_tracepoint(tracepoint = "block_bio_queue")]
pub fn block_bio_queue(context: RawTracePointContext) -> i32 {
    let tid = current_tid(&context);
    let membership = scope::of(tid);
    if membership.is_recorded() {
        let bio: *const u8 = context.arg(0);
        let Some(key) = place_of_bio(bio) else { return 0 };
        let operation: u32 = read_field(bio, &BIO_OPERATION).unwrap_or(0);
        let pending = BlockPending {
            queued_ns: now_ns(),
            issued_ns: 0,
            tid,
            scope: membership.scope(),
            write: (operation & IS_WRITE) as u16,
        };
        let _ = BLOCK_PENDING.insert(key, pending, u64::from(BPF_ANY));
    }
    0
}

/// The first part of what was split; the second begins where it ends.
#[raw_tracepoint(tracepoint = "block_split")]
pub fn block_split(context: RawTracePointContext) -> i32 {
    let bio: *const u8 = context.arg(0);
    let Some(first) = place_of_bio(bio) else { return 0 };
    // SAFETY: nobody else touches a request between its queueing and its issue.
    if let Some(pending) = unsafe { BLOCK_PENDING.get(first) } {
        let pending = *pending;
        let bytes: u32 = read_field(bio, &BIO_SIZE).unwrap_or(0);
        let rest = BlockKey { sector: first.sector + u64::from(bytes >> SECTOR_SHIFT), ..first };
        let _ = BLOCK_PENDING.insert(rest, pending, u64::from(BPF_ANY));
    }
    0
}

#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn block_rq_issue(context: RawTracePointContext) -> i32 {
    if let Some(key) = place_of_request(context.arg(0))
        && let Some(pending) = BLOCK_PENDING.get_ptr_mut(key)
    {
        // SAFETY: the map gives a valid pointer; a request is issued once at a time.
        unsafe { (*pending).issued_ns = now_ns() };
    }
    0
}

#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn block_rq_complete(context: RawTracePointContext) -> i32 {
    let Some(key) = place_of_request(context.arg(0)) else { return 0 };
    // SAFETY: nobody else touches a request between its issue and its completion.
    let Some(pending) = (unsafe { BLOCK_PENDING.get(key) }) else {
        return 0;
    };
    let pending = *pending;
    let disk = key.disk as *const u8;
    let major: u32 = read_field(disk, &DISK_MAJOR).unwrap_or(0);
    let minor: u32 = read_field(disk, &DISK_FIRST_MINOR).unwrap_or(0);
    let header = Header {
        at_ns: now_ns(),
        tid: pending.tid,
        scope: pending.scope,
        kind: Kind::Block as u8,
        flags: pending.write as u8,
    };
    send(
        Kind::Block,
        header.scope,
        Block {
            header,
            sector: key.sector,
            queued_ns: pending.queued_ns,
            issued_ns: pending.issued_ns,
            bytes: context.arg(2),
            device: major << MINOR_BITS | minor,
            error: context.arg(1),
            padding: 0,
        },
    );
    let _ = BLOCK_PENDING.remove(key);
    0
}
