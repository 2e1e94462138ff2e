//! `sandscope-test-subject`: does one thing a known number of times, so that a test knows what the probes must see of it.
//!
//! A program of its own rather than a script: an interpreter makes thousands of system calls and page faults before it comes to
//! the thing itself, and is not everywhere.

mod crowd;
mod mounts;
mod pages;
mod race;
mod scan;
mod shape;
mod tap;

use anyhow::{Context, Result, bail};
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous},
    process::getppid,
    thread::{Timespec, clock_nanosleep_relative},
    time::ClockId,
};
use sandscope::measure::memory::pages::pause::Paused;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

const PAGE: usize = 4096;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sleep", times, milliseconds] => sleep(times.parse()?, milliseconds.parse()?),
        ["spin", milliseconds] => spin(Duration::from_millis(milliseconds.parse()?)),
        ["touch", mapped, touched] => touch(mapped.parse()?, touched.parse()?),
        ["listen"] => listen(),
        ["answer", port, milliseconds, bytes] => {
            answer(port.parse()?, Duration::from_millis(milliseconds.parse()?), bytes.parse()?)
        }
        ["tap"] => tap::take(),
        ["getppid", times] => call(times.parse()?),
        ["read", path] => read(path),
        ["write", path, pages] => write(path, pages.parse()?),
        ["pages", kind, zero, within, across, unique] => {
            pages::pages(kind, zero.parse()?, within.parse()?, across.parse()?, unique.parse()?)
        }
        ["leaderless", zero, within, across, unique] => {
            shape::leaderless([zero.parse()?, within.parse()?, across.parse()?, unique.parse()?])
        }
        ["forked", zero, within, across, unique, rewritten] => {
            shape::forked([zero.parse()?, within.parse()?, across.parse()?, unique.parse()?], rewritten.parse()?)
        }
        ["map", path] => shape::map(path),
        ["noise", count, skipped] => pages::noise(count.parse()?, skipped.parse()?),
        ["scan", pid] => scan::scan(pid.parse()?),
        ["mounts", count, threads] => mounts::storm(count.parse()?, threads.parse()?),
        ["race", beside, main] => race::race(beside, main),
        ["hold", pid] => hold(pid.parse()?),
        ["children", count, microseconds] => crowd::children(count.parse()?, microseconds.parse()?),
        ["first-ends", milliseconds] => crowd::first_ends(Duration::from_millis(milliseconds.parse()?)),
        ["threads", count] => crowd::threads(count.parse()?),
        ["join", file, wait, time, ref back @ ..] => crowd::join(
            file,
            Duration::from_millis(wait.parse()?),
            Duration::from_millis(time.parse()?),
            back.first().copied(),
        ),
        ["poll-spin"] => crowd::poll_spin(),
        _ => bail!("{arguments:?}: nothing that it can do"),
    }
}

/// Sleeps so many times, each in one system call.
fn sleep(times: u32, milliseconds: i64) -> Result<()> {
    let request = Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    for _ in 0..times {
        let slept = clock_nanosleep_relative(ClockId::Monotonic, &request);
        if !matches!(slept, rustix::thread::NanosleepRelativeResult::Ok) {
            bail!("a sleep was interrupted");
        }
    }
    Ok(())
}

/// Keeps a CPU busy with its own code.
fn spin(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Maps so many pages of memory of its own and writes to the first of them, each once.
fn touch(mapped: usize, touched: usize) -> Result<()> {
    if touched > mapped {
        bail!("{touched} pages of {mapped} can't be touched");
    }
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let memory = unsafe {
        mmap_anonymous(std::ptr::null_mut(), mapped * PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }?;
    // SAFETY: the range is the mapping, and this advice changes no content. A huge page would be one fault for 512 pages.
    unsafe { madvise(memory, mapped * PAGE, Advice::LinuxNoHugepage) }?;
    for page in 0..touched {
        // SAFETY: inside of the mapping.
        let address = unsafe { memory.cast::<u8>().add(page * PAGE) };
        // SAFETY: inside of the mapping, which is writable and which nobody else refers to.
        unsafe { address.write_volatile(1) };
    }
    Ok(())
}

/// Holds a process as the agent does while it looks at its memory, says so, and never lets it go by itself.
fn hold(pid: i32) -> Result<()> {
    let held = Paused::begin(&[pid], &|| false)?;
    writeln!(std::io::stdout(), "ready")?;
    std::thread::sleep(Duration::from_secs(3600));
    drop(held);
    Ok(())
}

/// Listens on a free port and prints it.
fn listen() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    Ok(())
}

/// Answers whatever comes in one piece over TCP after so long, with so many bytes, one connection after the other. Takes what
/// comes to the same port over UDP and says nothing.
fn answer(port: u16, after: Duration, bytes: usize) -> Result<()> {
    let _sink = UdpSocket::bind(("0.0.0.0", port))?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut request = [0; 4096];
        while stream.read(&mut request)? > 0 {
            std::thread::sleep(after);
            stream.write_all(&vec![b'x'; bytes])?;
        }
    }
}

/// Makes so many system calls that do nothing.
fn call(times: u32) -> Result<()> {
    for _ in 0..times {
        let _ = getppid();
    }
    Ok(())
}

/// Writes so many pages to the end of a file, each in one system call.
fn write(path: &str, pages: usize) -> Result<()> {
    let mut file = File::options().append(true).open(path).with_context(|| path.to_owned())?;
    for _ in 0..pages {
        file.write_all(&[7; PAGE])?;
    }
    Ok(())
}

/// Reads a file to its end.
fn read(path: &str) -> Result<()> {
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let mut buffer = vec![0; 16 * PAGE];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}
