//! Starts and serves, and nothing else: nothing is to be found.

use std::time::Instant;

fn main() -> anyhow::Result<()> {
    match scenes::serve(Instant::now())? {}
}
