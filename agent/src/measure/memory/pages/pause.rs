//! Stops processes while their memory is looked at, so that they go on whatever happens to the agent.
//!
//! Neither SIGSTOP nor the freezer of a cgroup end with who asked for them: an agent that is killed would leave its targets stopped
//! for good. A tracer's hold does: when it dies, of whatever, the kernel lets all go. So a child of the agent seizes the threads
//! (`PTRACE_SEIZE`, `PTRACE_INTERRUPT`, which send no signal), holds them until the agent closes a pipe, and dies with the agent.
//! It is a child and no thread, since the agent is the parent of most targets: within one process the parent's own waiting would
//! take the stops for ends.
//!
//! An agent that hangs does not die. So the child lets all go by itself after [`LONGEST`], whatever the agent does, and the agent then
//! learns of it. The agent itself and those without whom it can't go on are never stopped (see [`super::kin`]).

use super::kin;
use crate::measure::memory::living;
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
/// How long all of them together may: thousands that wait for a disk must not take thousands of seconds.
const STOP_LIMIT_OF_ALL_MS: i64 = 10_000;
/// Rounds of looking for threads that were made while others were being stopped.
const ROUNDS: usize = 16;
/// For how long anybody is held at most. Tens of GiB are looked at in this time; what waits for a process longer than that gives up.
pub const LONGEST: Duration = Duration::from_secs(60);
/// How the guardian ends when it has let go by itself.
const TIME_IS_OVER: i32 = 3;

/// Processes that are held. Dropping it lets them go on.
#[derive(Debug)]
pub struct Paused {
    guardian: i32,
    /// Closed to let go.
    orders: Option<OwnedFd>,
    answers: OwnedFd,
    since: Instant,
    limit: Duration,
    /// Threads that could not be stopped, and why.
    pub running: Vec<(i32, String)>,
    /// Threads that are stopped.
    pub stopped: usize,
    /// Processes that were not stopped, since the agent can't go on without them.
    pub spared: BTreeSet<i32>,
}

/// For how long processes were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The time.
    pub time: Duration,
    /// Whether they were let go before that was asked for, as it took too long.
    pub was_cut_short: bool,
}

impl Paused {
    /// Stops all threads of these processes, but never those of the agent's own lineage. A thread that can't be stopped is in
    /// [`Paused::running`]; so are those that somebody else traces, such as gVisor its applications. When `is_cancelled` says so, no
    /// more are stopped.
    ///
    /// # Errors
    /// When the guardian can't be made, or there are more threads than can be held.
    pub fn begin(pids: &[i32], is_cancelled: &dyn Fn() -> bool) -> Result<Self> {
        Self::for_at_most(LONGEST, pids, is_cancelled)
    }

    fn for_at_most(limit: Duration, pids: &[i32], is_cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let lineage = kin::lineage();
        let (spared, pids): (BTreeSet<i32>, BTreeSet<i32>) = pids.iter().partition(|pid| lineage.contains(pid));
        let (orders_end, orders) = pipe_with(PipeFlags::CLOEXEC).context("could not make a pipe")?;
        let (answers, answers_end) = pipe_with(PipeFlags::CLOEXEC).context("could not make a pipe")?;
        let mut held: Vec<Stopped> = Vec::with_capacity(MOST_THREADS);
        let agent = std::process::id().cast_signed();
        let since = Instant::now();
        // SAFETY: the child is a copy of this thread alone, so that it may only make system calls and use memory that exists
        // already: that is all that `guard` does, and it never returns.
        let guardian = unsafe { libc::fork() };
        match guardian {
            -1 => return Err(io::Error::last_os_error()).context("could not make a process to hold the target"),
            0 => {
                let pipes = Pipes { orders: orders_end.as_raw_fd(), answers: answers_end.as_raw_fd() };
                guard(agent, pipes, [orders.as_raw_fd(), answers.as_raw_fd()], since + limit, &mut held)
            }
            _ => {}
        }
        drop((orders_end, answers_end));
        let (orders, running) = (Some(orders), Vec::new());
        let mut paused = Self { guardian, orders, answers, since, limit, running, stopped: 0, spared };
        paused.stop_all(&pids, is_cancelled)?;
        Ok(paused)
    }

    fn stop_all(&mut self, pids: &BTreeSet<i32>, is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let mut seen = BTreeSet::new();
        // Until no thread is new: one that runs may make another.
        for _ in 0..ROUNDS {
            let threads = pids.iter().flat_map(|&pid| threads_of(pid)).filter(|tid| !seen.contains(tid));
            let new: Vec<i32> = threads.collect();
            if new.is_empty() {
                return Ok(());
            }
            for tid in new {
                if is_cancelled() {
                    return Ok(());
                }
                seen.insert(tid);
                match self.order(tid)? {
                    0 => self.stopped += 1,
                    libc::ESRCH => (),
                    error => self.running.extend(reason(tid, error).map(|reason| (tid, reason))),
                }
            }
        }
        bail!("threads appear faster than they can be stopped: --no-pause looks at the pages while they go on")
    }

    /// Has one thread stopped; returns 0 or the error's number.
    fn order(&self, tid: i32) -> Result<i32> {
        let orders = self.orders.as_ref().context("the target goes on already")?;
        retry_on_intr(|| write(orders, &tid.to_ne_bytes())).context("the process that holds the target is gone")?;
        let mut answer = [0; 4];
        let length = retry_on_intr(|| read(&self.answers, &mut answer)).context("could not read an answer")?;
        if length != answer.len() {
            let limit = self.limit.as_secs();
            bail!(
                "the process that holds the target is gone, or it took longer than {limit} s to stop all its threads: --no-pause \
                 looks at the pages while they go on"
            );
        }
        Ok(i32::from_ne_bytes(answer))
    }

    /// Lets all go on; tells for how long they were held.
    pub fn end(mut self) -> Held {
        let was_cut_short = self.release();
        let time = self.since.elapsed();
        Held { time: if was_cut_short { time.min(self.limit) } else { time }, was_cut_short }
    }

    /// Returns whether they had been let go already.
    fn release(&mut self) -> bool {
        if self.orders.take().is_none() {
            return false;
        }
        // Nobody else waits for it. It can't fail but for that.
        let ended = retry_on_intr(|| waitpid(Pid::from_raw(self.guardian), WaitOptions::empty()));
        ended.ok().flatten().is_some_and(|(_, status)| status.exit_status() == Some(TIME_IS_OVER) || status.signaled())
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

/// Why a thread could not be stopped; `None`: it has ended, as the first thread of a process may long before the others.
fn reason(tid: i32, error: i32) -> Option<String> {
    let process = procfs::process::Process::new(tid);
    let has_ended = process.as_ref().is_ok_and(|process| process.stat().is_ok_and(|stat| !living::lives(stat.state)));
    let tracer = process.and_then(|process| process.status()).map(|status| status.tracerpid);
    match tracer {
        _ if has_ended => None,
        Ok(tracer) if tracer != 0 && error == libc::EPERM => Some(format!("process {tracer} traces it")),
        _ if error == libc::ETIMEDOUT => {
            Some(format!("it did not stop within {STOP_LIMIT_MS} ms: it may wait for a disk"))
        }
        _ => Some(io::Error::from_raw_os_error(error).to_string()),
    }
}

/// A thread that is held, and the signal that it was about to get, which it gets when it goes on.
struct Stopped {
    tid: i32,
    signal: i32,
}

/// The guardian's ends.
struct Pipes {
    orders: RawFd,
    answers: RawFd,
}

/// What the guardian does until its orders end or the time is over. It allocates nothing and locks nothing: another thread of the
/// agent may have held any lock when it was copied.
fn guard(agent: i32, pipes: Pipes, own_ends: [RawFd; 2], deadline: Instant, held: &mut Vec<Stopped>) -> ! {
    for end in own_ends {
        // SAFETY: closing the copy of the agent's end, so that the orders end with the agent; nobody else in this process uses it.
        unsafe { libc::close(end) };
    }
    // SAFETY: asks for a signal when the thread that made this process ends; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // In a group of its own: what the terminal's keys stop or end is the agent, and this must go on to let go.
    // SAFETY: changes what group this process is in; no memory is involved.
    unsafe { libc::setpgid(0, 0) };
    // SAFETY: asks for the parent's number; no memory is involved.
    let parent = unsafe { libc::getppid() };
    // Otherwise the agent had ended before it was asked for the signal.
    let is_over = parent == agent && obey(&pipes, deadline, held);
    for Stopped { tid, signal } in held.iter() {
        // Who has ended meanwhile can't be let go, and need not be.
        // SAFETY: detaching takes no memory: the last argument is the number of a signal.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, *tid, 0, i64::from(*signal)) };
    }
    // SAFETY: ends this process without running what the agent has registered for its own end.
    unsafe { libc::_exit(if is_over { TIME_IS_OVER } else { 0 }) }
}

/// Seizes the threads that the agent names, until it names no more; returns whether the time was over before that.
fn obey(pipes: &Pipes, deadline: Instant, held: &mut Vec<Stopped>) -> bool {
    let mut patience_ms = STOP_LIMIT_OF_ALL_MS;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut waited = libc::pollfd { fd: pipes.orders, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which is ours.
        let ready = unsafe { libc::poll(&raw mut waited, 1, left_ms) };
        match ready {
            0 => return true,
            -1 if errno() == libc::EINTR => continue,
            -1 => return false,
            _ => {}
        }
        let mut order = [0_u8; 4];
        // SAFETY: the buffer has as many bytes as are asked for.
        let length = unsafe { libc::read(pipes.orders, order.as_mut_ptr().cast(), order.len()) };
        if length == -1 && errno() == libc::EINTR {
            continue;
        }
        if length != 4 {
            return false;
        }
        let tid = i32::from_ne_bytes(order);
        let answer = if held.len() < held.capacity() { seize(tid, held, &mut patience_ms) } else { libc::ENOSPC };
        let answer = answer.to_ne_bytes();
        // SAFETY: the buffer has as many bytes as are written.
        if unsafe { libc::write(pipes.answers, answer.as_ptr().cast(), answer.len()) } != 4 {
            return false;
        }
    }
}

/// Seizes a thread and waits until it has stopped; returns 0 or the error's number. What the wait takes is taken off the patience.
fn seize(tid: i32, held: &mut Vec<Stopped>, patience_ms: &mut i64) -> i32 {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: both requests take no memory.
        if unsafe { libc::ptrace(request, tid, 0, 0) } == -1 {
            return errno();
        }
    }
    for _ in 0..=STOP_LIMIT_MS.min(*patience_ms) {
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
            held.push(Stopped { tid, signal });
            return 0;
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: the time is ours, and nobody wants to know what is left of it.
        unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
        *patience_ms = (*patience_ms - 1).max(0);
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
        let paused = Paused::begin(&[pid], &|| false).unwrap();
        assert_eq!((paused.stopped, &paused.running), (1, &Vec::new()));
        assert_eq!(state(pid), 't');
        // The parent's own waiting does not see it.
        assert_eq!(child.try_wait().unwrap(), None);
        let held = paused.end();
        assert!(held.time > Duration::ZERO && !held.was_cut_short);
        assert_ne!(state(pid), 't');
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nobody_stays_held_when_the_guardian_is_killed() {
        let mut child = sleeper();
        let pid = child.id().cast_signed();
        let paused = Paused::begin(&[pid], &|| false).unwrap();
        assert_eq!(state(pid), 't');
        rustix::process::kill_process(Pid::from_raw(paused.guardian).unwrap(), rustix::process::Signal::KILL).unwrap();
        wait_until_it_goes_on(pid);
        drop(paused);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_is_gone_is_no_error() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let paused = Paused::begin(&[child.id().cast_signed()], &|| false).unwrap();
        assert_eq!((paused.stopped, &paused.running), (0, &Vec::new()));
    }

    fn wait_until_it_goes_on(pid: i32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while state(pid) == 't' {
            assert!(Instant::now() < deadline, "it stays held");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nobody_is_held_longer_than_the_limit_though_the_agent_does_nothing() {
        let mut child = sleeper();
        let pid = child.id().cast_signed();
        let limit = Duration::from_millis(200);
        let paused = Paused::for_at_most(limit, &[pid], &|| false).unwrap();
        assert_eq!(state(pid), 't');
        // The agent neither closes the pipe nor ends.
        wait_until_it_goes_on(pid);
        assert_eq!(paused.end(), Held { time: limit, was_cut_short: true });
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_agent_and_its_parents_are_never_held() {
        let mut child = sleeper();
        let (pid, own) = (child.id().cast_signed(), std::process::id().cast_signed());
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let paused = Paused::begin(&[own, parent, pid, 1], &|| false).unwrap();
        assert_eq!((paused.spared.clone(), paused.stopped), ([1, own, parent].into(), 1));
        assert!(state(parent) != 't' && state(pid) == 't');
        drop(paused);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nobody_is_held_once_it_is_cancelled() {
        let mut child = sleeper();
        let pid = child.id().cast_signed();
        let paused = Paused::begin(&[pid], &|| true).unwrap();
        assert_eq!(paused.stopped, 0);
        drop(paused);
        assert_ne!(state(pid), 't');
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
