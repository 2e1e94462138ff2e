//! Waits for a timer before it serves, while a thread beside it computes, and another wakes up again and again: neither of these is why
//! the start takes long.

use std::{
    thread,
    time::{Duration, Instant},
};

const WAIT: Duration = Duration::from_millis(120);
const BESIDE: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    thread::spawn(|| scenes::compute(BESIDE));
    thread::spawn(move || {
        while start.elapsed() < BESIDE {
            thread::sleep(Duration::from_millis(1));
        }
    });
    thread::sleep(WAIT);
    match scenes::serve(start)? {}
}
