//! Serves, and wakes up every millisecond for nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(1));
        }
    });
    match scenes::serve(start)? {}
}
