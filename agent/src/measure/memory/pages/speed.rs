//! How fast pages could be looked at at best: what one core of this machine copies and hashes when nothing else is to be done.

use super::{entry::Hasher, reader::Buffer};
use rustix::param::page_size;
use std::time::{Duration, Instant};

/// Memory that is copied at once, as in a scan.
const BATCH: usize = 256 << 10;
/// Memory that is copied in all: more than any cache holds.
const BYTES: usize = 64 << 20;
/// Rounds, which together take about as long as looking at some hundred MiB: the best of shorter moments would be one that nothing
/// disturbed, which longer ones never are.
const ROUNDS: usize = 3;

/// Bytes per second that one core copies within one process and hashes page by page.
pub fn limit_bytes_per_s() -> f64 {
    let size = page_size();
    let (mut source, mut buffer) = (Buffer::new(BYTES / size), Buffer::new(BATCH / size));
    let (source, buffer) = (source.pages(BYTES / size), buffer.pages(BATCH / size));
    source.iter_mut().enumerate().for_each(|(place, byte)| *byte = (place >> 5) as u8);
    let hasher = Hasher::new(size);
    let time: Duration = (0..ROUNDS).map(|_| round(source, buffer, &hasher)).sum();
    (ROUNDS * BYTES) as f64 / time.as_secs_f64()
}

fn round(source: &[u8], buffer: &mut [u8], hasher: &Hasher) -> Duration {
    let start = Instant::now();
    for batch in source.chunks_exact(buffer.len()) {
        buffer.copy_from_slice(batch);
        for page in buffer.chunks_exact(page_size()) {
            std::hint::black_box(hasher.of(page));
        }
    }
    start.elapsed()
}
