//! Serves, and polls a pipe whose other end is closed: each poll returns at once.

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::pipe,
};
use std::{thread, time::Instant};

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let (reader, writer) = pipe()?;
    drop(writer);
    thread::spawn(move || {
        loop {
            let _ = poll(&mut [PollFd::new(&reader, PollFlags::IN)], None);
        }
    });
    match scenes::serve(start)? {}
}
