//! Serves, and wakes up every millisecond for nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

const PERIOD: Duration = Duration::from_millis(1);

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    thread::spawn(move || {
        // From the beginning on, so that being late does not make it rarer.
        for beat in 1.. {
            thread::sleep((start + beat * PERIOD).saturating_duration_since(Instant::now()));
        }
    });
    match scenes::serve(start)? {}
}
