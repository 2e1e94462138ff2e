//! Computes for as long as an initialisation takes, once; the scene `restarts` does so twice.

use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    scenes::compute(scenes::INITIALISATION);
    match scenes::serve(start)? {}
}
