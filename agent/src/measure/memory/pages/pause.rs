//! Stops processes while their memory is looked at, so that they go on whatever happens to the agent.
//!
//! Neither SIGSTOP nor the freezer of a cgroup end with who asked for them: an agent that is killed would leave its targets stopped
//! for good. A tracer's hold does: when it dies, of whatever, the kernel lets all go. So a child of the agent seizes the threads
//! (`PTRACE_SEIZE`, `PTRACE_INTERRUPT`, which send no signal), holds them until the agent closes a pipe, and dies with the agent.
//! It is a child and no thread, since the agent is the parent of most targets: within one process the parent's own waiting would
//! take the stops for ends.

use anyhow::{Context as _, Result, bail};
use rustix::{
    io::{read, retry_on_intr, write},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, waitpid},
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// Threads that can be held.
const MOST_THREADS: usize = 65_536;
/// How long one thread may take to stop: one in an uninterruptible sleep stops only after that.
const STOP_LIMIT_MS: i64 = 1000;
/// Rounds of looking for threads that were made while others were being stopped.
const ROUNDS: usize = 16;

/// Processes that are held. Dropping it lets them go on.
#[derive(Debug)]
pub struct Paused {
    guardian: i32,
    /// Closed to let go.
    orders: Option<OwnedFd>,
    answers: OwnedFd,
    since: Instant,
    /// Threads that could not be stopped, and why.
    pub running: Vec<(i32, String)>,
    /// Threads that are stopped.
    pub stopped: usize,
}

impl Paused {
    /// Stops all threads of these processes. A thread that can't be stopped is in [`Paused::running`]; so are those that somebody
    /// else traces, such as gVisor its applications.
    ///
    /// # Errors
    /// When the guardian can't be made.
    pub fn begin(pids: &[i32]) -> Result<Self> {
        let (orders_end, orders) = pipe_with(PipeFlags::CLOEXEC).context("could not make a pipe")?;
        let (answers, answers_end) = pipe_with(PipeFlags::CLOEXEC).context("could not make a pipe")?;
        let mut held: Vec<Held> = Vec::with_capacity(MOST_THREADS);
        let agent = std::process::id().cast_signed();
        // SAFETY: the child is a copy of this thread alone, so that it may only make system calls and use memory that exists
        // already: that is all that `guard` does, and it never returns.
        let guardian = unsafe { libc::fork() };
        match guardian {
            -1 => return Err(io::Error::last_os_error()).context("could not make a process to hold the target"),
            0 => guard(agent, orders_end.as_raw_fd(), answers_end.as_raw_fd(), orders.as_raw_fd(), &mut held),
            _ => {}
        }
        drop((orders_end, answers_end));
        let mut paused =
            Self { guardian, orders: Some(orders), answers, since: Instant::now(), running: Vec::new(), stopped: 0 };
        paused.stop_all(pids)?;
        Ok(paused)
    }

    fn stop_all(&mut self, pids: &[i32]) -> Result<()> {
        let mut seen = BTreeSet::new();
        // Until no thread is new: one that runs may make another.
        for _ in 0..ROUNDS {
            let threads = pids.iter().flat_map(|&pid| threads_of(pid)).filter(|tid| !seen.contains(tid));
            let new: Vec<i32> = threads.collect();
            if new.is_empty() {
                return Ok(());
            }
            for tid in new {
                seen.insert(tid);
                match self.order(tid)? {
                    0 => self.stopped += 1,
                    libc::ESRCH => (),
                    error => self.running.push((tid, reason(tid, error))),
                }
            }
        }
        bail!("threads appear faster than they can be stopped")
    }

    /// Has one thread stopped; returns 0 or the error's number.
    fn order(&self, tid: i32) -> Result<i32> {
        let orders = self.orders.as_ref().context("the target goes on already")?;
        retry_on_intr(|| write(orders, &tid.to_ne_bytes())).context("the process that holds the target is gone")?;
        let mut answer = [0; 4];
        let length = retry_on_intr(|| read(&self.answers, &mut answer)).context("could not read an answer")?;
        if length != answer.len() {
            bail!("the process that holds the target is gone");
        }
        Ok(i32::from_ne_bytes(answer))
    }

    /// Lets all go on; tells for how long they were held.
    pub fn end(mut self) -> Duration {
        self.release();
        self.since.elapsed()
    }

    fn release(&mut self) {
        if self.orders.take().is_none() {
            return;
        }
        // Nobody else waits for it. It can't fail but for that.
        let _ = retry_on_intr(|| waitpid(Pid::from_raw(self.guardian), WaitOptions::empty()));
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.release();
    }
}

fn threads_of(pid: i32) -> Vec<i32> {
    let tasks = procfs::process::Process::new(pid).and_then(|process| process.tasks());
    // One that has ended has none.
    tasks.into_iter().flatten().flatten().map(|task| task.tid).collect()
}

fn reason(tid: i32, error: i32) -> String {
    let tracer = procfs::process::Process::new(tid).and_then(|process| process.status()).map(|status| status.tracerpid);
    match tracer {
        Ok(tracer) if tracer != 0 && error == libc::EPERM => format!("process {tracer} traces it"),
        _ if error == libc::ETIMEDOUT => format!("it did not stop within {STOP_LIMIT_MS} ms: it may wait for a disk"),
        _ => io::Error::from_raw_os_error(error).to_string(),
    }
}

/// A thread that is held, and the signal that it was about to get, which it gets when it goes on.
struct Held {
    tid: i32,
    signal: i32,
}

/// What the guardian does until its orders end. It allocates nothing and locks nothing: another thread of the agent may have held
/// any lock when it was copied.
fn guard(agent: i32, orders: RawFd, answers: RawFd, own_end: RawFd, held: &mut Vec<Held>) -> ! {
    // SAFETY: closing the copy of the agent's end, so that the orders end with the agent; nobody else in this process uses it.
    unsafe { libc::close(own_end) };
    // SAFETY: asks for a signal when the thread that made this process ends; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: asks for the parent's number; no memory is involved.
    let parent = unsafe { libc::getppid() };
    // Otherwise the agent had ended before it was asked for the signal.
    if parent == agent {
        obey(orders, answers, held);
    }
    for Held { tid, signal } in held.iter() {
        // Who has ended meanwhile can't be let go, and need not be.
        // SAFETY: detaching takes no memory: the last argument is the number of a signal.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, *tid, 0, i64::from(*signal)) };
    }
    // SAFETY: ends this process without running what the agent has registered for its own end.
    unsafe { libc::_exit(0) }
}

/// Seizes the threads that the agent names, until it names no more.
fn obey(orders: RawFd, answers: RawFd, held: &mut Vec<Held>) {
    loop {
        let mut order = [0_u8; 4];
        // SAFETY: the buffer has as many bytes as are asked for.
        let length = unsafe { libc::read(orders, order.as_mut_ptr().cast(), order.len()) };
        if length == -1 && errno() == libc::EINTR {
            continue;
        }
        if length != 4 {
            break;
        }
        let tid = i32::from_ne_bytes(order);
        let answer = if held.len() < held.capacity() { seize(tid, held) } else { libc::ENOSPC };
        let answer = answer.to_ne_bytes();
        // SAFETY: the buffer has as many bytes as are written.
        if unsafe { libc::write(answers, answer.as_ptr().cast(), answer.len()) } != 4 {
            break;
        }
    }
}

/// Seizes a thread and waits until it has stopped; returns 0 or the error's number.
fn seize(tid: i32, held: &mut Vec<Held>) -> i32 {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: both requests take no memory.
        if unsafe { libc::ptrace(request, tid, 0, 0) } == -1 {
            return errno();
        }
    }
    for _ in 0..STOP_LIMIT_MS {
        let mut status = 0;
        // SAFETY: the status is ours to write to.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if waited == -1 {
            return errno();
        }
        if waited == tid {
            if !libc::WIFSTOPPED(status) {
                return libc::ESRCH;
            }
            // `PTRACE_EVENT_STOP` is our own; otherwise a signal was about to be delivered.
            let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
            held.push(Held { tid, signal });
            return 0;
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: the time is ours, and nobody wants to know what is left of it.
        unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
    }
    libc::ETIMEDOUT
}

fn errno() -> i32 {
    // Reads a variable of the thread, and no more.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn state(pid: i32) -> char {
        procfs::process::Process::new(pid).unwrap().stat().unwrap().state
    }

    #[test]
    fn who_is_held_stands_still_and_goes_on_after() {
        let mut child = sleeper();
        let pid = child.id().cast_signed();
        let paused = Paused::begin(&[pid]).unwrap();
        assert_eq!((paused.stopped, &paused.running), (1, &Vec::new()));
        assert_eq!(state(pid), 't');
        // The parent's own waiting does not see it.
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(paused.end() > Duration::ZERO);
        assert_ne!(state(pid), 't');
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nobody_stays_held_when_the_guardian_is_killed() {
        let mut child = sleeper();
        let pid = child.id().cast_signed();
        let paused = Paused::begin(&[pid]).unwrap();
        assert_eq!(state(pid), 't');
        rustix::process::kill_process(Pid::from_raw(paused.guardian).unwrap(), rustix::process::Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while state(pid) == 't' {
            assert!(Instant::now() < deadline, "it stays held");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(paused);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_is_gone_is_no_error() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let paused = Paused::begin(&[child.id().cast_signed()]).unwrap();
        assert_eq!((paused.stopped, &paused.running), (0, &Vec::new()));
    }
}
