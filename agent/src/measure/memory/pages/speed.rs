//! How fast pages could be looked at at best: what one core of this machine copies and hashes when nothing else is to be done, and
//! when it need not ask the kernel for them.

use super::{entry::Hasher, reader::Buffer};
use rustix::param::page_size;
use std::{hint::black_box, time::Instant};

/// Pages that are copied at once: 256 KiB stay in the second-level cache until they are hashed.
const BATCH: usize = 64;

/// Bytes per second that one core copies and hashes, page by page, of this memory of the own process. It has to be more than any cache
/// holds, and that which is looked at: how fast memory is depends on where its frames are.
pub fn limit_bytes_per_s(memory: &[u8]) -> f64 {
    let size = page_size();
    let mut buffer = Buffer::new(BATCH);
    let hasher = Hasher::new(size);
    let start = Instant::now();
    for batch in memory.chunks(BATCH * size) {
        let copy = buffer.pages(batch.len() / size);
        copy.copy_from_slice(batch);
        for page in copy.chunks_exact(size) {
            black_box(hasher.of(page));
        }
    }
    memory.len() as f64 / start.elapsed().as_secs_f64()
}
