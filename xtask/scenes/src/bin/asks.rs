//! Asks somebody outside of the sandbox before it serves, and waits for the answer.

use anyhow::Context;
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Instant,
};

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let path = std::env::current_exe()?.with_file_name("somebody");
    let mut stream = UnixStream::connect(&path).with_context(|| format!("nobody listens on {}", path.display()))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    match scenes::serve(start)? {}
}
