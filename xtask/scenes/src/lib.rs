//! What the scenes have in common: as much of the contract of workloads (`workloads/README.md`) as a start needs, by so little code that
//! nothing is in such a start but what its scene puts there.

use anyhow::{Context, Result};
use std::{
    convert::Infallible,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// How long a program that has much to initialise does so.
pub const INITIALISATION: Duration = Duration::from_millis(40);

/// What is longer than this is no request of ours.
const MAX_HEAD: usize = 16 << 10;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\nHello from sandscope\n";

/// Listens, calls back, and answers whatever is asked, one connection after the other. `start` is when the program began.
///
/// # Errors
/// When the command line is not that of a workload, its port is taken or nobody answers the callback.
pub fn serve(start: Instant) -> Result<Infallible> {
    let mut arguments = std::env::args().skip(1);
    let (mut callback, mut port) = (None, 8080);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("http://") {
            Some(url) => callback = Some(url.to_owned()),
            None if argument == "--port" => port = arguments.next().context("--port without one")?.parse()?,
            // Names of files, which no scene serves.
            None => {}
        }
    }
    let listener = TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("can't listen on port {port}"))?;
    if let Some(url) = callback {
        call_back(&url, start.elapsed()).with_context(|| format!("the callback to {url} failed"))?;
    }
    loop {
        let (mut stream, _) = listener.accept()?;
        // Who goes away in the middle is asked no more.
        let _ = answer(&mut stream);
    }
}

fn call_back(url: &str, since_main: Duration) -> Result<()> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let mut stream = TcpStream::connect(authority.parse::<SocketAddrV4>()?)?;
    let since_main = since_main.as_nanos();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nsandscope-since-main-ns: {since_main}\r\n\r\n")?;
    head(&mut stream)?;
    Ok(())
}

fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    while head(stream)? {
        stream.write_all(ANSWER)?;
    }
    Ok(())
}

/// Reads up to the end of a head; `false` when there is none any more.
fn head(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut read = Vec::new();
    let mut part = [0; 1024];
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let bytes = stream.read(&mut part)?;
        if bytes == 0 {
            return Ok(false);
        }
        read.extend_from_slice(&part[..bytes]);
        if read.len() > MAX_HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    Ok(true)
}

/// Keeps a CPU busy with its own code.
pub fn compute(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
