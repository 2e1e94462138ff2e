//! Processes and threads as real hosts have them: that come and go by the thousand, that outlive their first thread, that join a control
//! group, that spin without ever sleeping. Each tells what is right by the kernel's own count.

use anyhow::{Context, Result, ensure};
use rustix::{
    event::epoll,
    io::Errno,
    process::{WaitOptions, getpid, waitpid},
    time::{ClockId, clock_gettime},
};
use std::{
    fs,
    io::{BufRead as _, Write as _, stdin, stdout},
    thread,
    time::Duration,
};

/// Makes so many children, one after the other, each of which uses its CPU for so long, once a line has come. Prints the CPU time of
/// all of them and of itself meanwhile in nanoseconds, and stays until its input ends.
pub(super) fn children(count: u32, microseconds: u64) -> Result<()> {
    writeln!(stdout(), "ready")?;
    stdin().lock().read_line(&mut String::new())?;
    let before = used_ns()?;
    for _ in 0..count {
        // SAFETY: there is one thread, so that the child may do whatever this process may.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            spin(ClockId::ProcessCPUTime, microseconds * 1000);
            // SAFETY: ends the child without running what the parent has registered for its own end.
            unsafe { libc::_exit(0) };
        }
        let pid = rustix::process::Pid::from_raw(pid).filter(|_| pid > 0).context("can't fork")?;
        while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
    writeln!(stdout(), "{}", used_ns()? - before)?;
    while stdin().lock().read_line(&mut String::new())? > 0 {}
    Ok(())
}

/// Lets the first thread end while another one spins for so long.
pub(super) fn first_ends(time: Duration) -> Result<()> {
    thread::spawn(move || {
        spin(ClockId::Monotonic, time.as_nanos() as u64);
        std::process::exit(0);
    });
    // SAFETY: `exit` ends this thread alone and never returns; nothing of the other thread is on its stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

/// So many threads, each asleep for a second at a time. Says when all are there.
pub(super) fn threads(count: usize) -> Result<()> {
    for _ in 0..count {
        let sleeper = thread::Builder::new().stack_size(16 << 10);
        sleeper.spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        })?;
    }
    writeln!(stdout(), "ready")?;
    thread::sleep(Duration::from_secs(3600));
    Ok(())
}

/// Waits, moves itself to the control group with this file, uses a CPU for so much CPU time, and prints how much of it that was in
/// nanoseconds; with `back`, moves itself there and spins for as long again, which is not printed.
pub(super) fn join(file: &str, wait: Duration, time: Duration, back: Option<&str>) -> Result<()> {
    let own = getpid().as_raw_pid().to_string();
    thread::sleep(wait);
    fs::write(file, &own).with_context(|| format!("can't join {file}"))?;
    let before = now_ns(ClockId::ProcessCPUTime);
    spin(ClockId::ProcessCPUTime, time.as_nanos() as u64);
    let used_ns = now_ns(ClockId::ProcessCPUTime) - before;
    if let Some(back) = back {
        fs::write(back, &own).with_context(|| format!("can't join {back}"))?;
        spin(ClockId::ProcessCPUTime, time.as_nanos() as u64);
    }
    writeln!(stdout(), "{used_ns}")?;
    Ok(())
}

/// Waits for events of a pipe that nobody writes to any more, which is one event without end.
pub(super) fn poll_spin() -> Result<()> {
    let (read, write) = rustix::pipe::pipe()?;
    drop(write);
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, &read, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(1);
    loop {
        events.clear();
        let count = epoll::wait(&poller, rustix::buffer::spare_capacity(&mut events), None)?;
        ensure!(count == 1, "the pipe is open again");
    }
}

fn spin(clock: ClockId, ns: u64) {
    let end = now_ns(clock) + ns;
    while now_ns(clock) < end {}
}

fn now_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CPU time of this process and of its children that have ended.
fn used_ns() -> Result<u64> {
    let mut total_ns = 0;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: a structure of integers, for which zeros are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes to the structure alone.
        ensure!(unsafe { libc::getrusage(who, &raw mut usage) } == 0, "can't read the CPU time");
        for time in [usage.ru_utime, usage.ru_stime] {
            total_ns += time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
        }
    }
    Ok(total_ns)
}
