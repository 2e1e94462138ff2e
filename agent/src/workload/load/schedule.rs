//! The instants at which requests of an open loop are due, by a timer of the kernel: the runtime's own timers are a millisecond
//! apart, which would put a floor under every latency.

use crate::host::clock::monotonic_ns;
use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    os::fd::OwnedFd,
};
use tokio::{io::unix::AsyncFd, sync::Notify};

/// Requests that are due and have no connection yet.
#[derive(Default)]
pub(super) struct Due {
    waiting: RefCell<VecDeque<u64>>,
    closed: Cell<bool>,
    more: Notify,
}

impl Due {
    /// Waits for the next request; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<u64> {
        loop {
            if let Some(due_ns) = self.waiting.borrow_mut().pop_front() {
                return Some(due_ns);
            }
            if self.closed.get() {
                return None;
            }
            self.more.notified().await;
        }
    }

    fn push(&self, due_ns: u64) {
        self.waiting.borrow_mut().push_back(due_ns);
        self.more.notify_one();
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.more.notify_waiters();
    }

    /// Requests due from an instant on that no connection has taken.
    pub(super) fn left(&self, since_ns: u64) -> u64 {
        self.waiting.borrow().iter().filter(|&&due_ns| due_ns >= since_ns).count() as u64
    }
}

/// Makes requests due at a constant rate from `first_ns` until `end_ns`: as many as arithmetic says, however late this begins.
pub(super) async fn run(due: &Due, rate: f64, first_ns: u64, end_ns: u64) -> Result<()> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
        .context("can't make a timer")?;
    // SAFETY: an `OwnedFd` stays open and the same descriptor until it is dropped, with the registration.
    let timer = unsafe { AsyncFd::register(timer) }.context("can't watch a timer")?;
    let interval_ns = 1e9 / rate;
    let mut number = 0_u64;
    loop {
        // By multiplication: a sum of rounded intervals would drift.
        let next_ns = first_ns + (number as f64 * interval_ns) as u64;
        if next_ns >= end_ns {
            return Ok(());
        }
        if next_ns > monotonic_ns() {
            wait_until(&timer, next_ns).await?;
        }
        due.push(next_ns);
        number += 1;
    }
}

async fn wait_until(timer: &AsyncFd<OwnedFd>, at_ns: u64) -> Result<()> {
    const NS: u64 = 1_000_000_000;
    let at = Timespec { tv_sec: (at_ns / NS).cast_signed(), tv_nsec: (at_ns % NS).cast_signed() };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once).context("can't set a timer")?;
    let mut expirations = [0; 8];
    loop {
        let mut ready = timer.readable().await.context("can't wait for a timer")?;
        // A timer that was read before is taken for readable until a read says that it is not: that is no expiration yet.
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)) {
            return read.map(drop).context("can't read a timer");
        }
    }
}
