//! Load on a workload: as many requests as its connections can carry, or a constant rate whatever the workload does.
//!
//! ```text
//! closed:  each connection asks again as soon as it was answered ──────────────► Tally (histogram, statuses, errors)
//! open:    schedule (timer of its own) ─► due (instants) ─► connection that is free ─► Tally
//! ```
//!
//! The latency of an open-loop request counts from the instant at which it was *due*, not from the one at which a connection was
//! free for it: so a workload that stalls can't hide how many requests would have come meanwhile ("coordinated omission",
//! Tene 2013). Everything runs on one thread of its own, which can be pinned to a CPU that the sandbox does not use.

mod connection;
mod schedule;
mod tally;

pub use tally::{Failure, Tally};

use crate::{host::clock::monotonic_ns, sandbox::resources::CpuList};
use anyhow::{Context, Result, ensure};
use connection::Connection;
use schedule::Due;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

/// Most connections: beyond that one thread does not keep up.
pub const MAX_CONNECTIONS: u32 = 4096;

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As soon as the one before on the connection was answered.
    Closed,
    /// The same, until so many were sent over all connections; then the window ends with the last answer.
    Count {
        /// Requests.
        requests: u64,
    },
    /// So many per second over all connections, evenly spaced.
    Open {
        /// Requests per second.
        rate: f64,
    },
}

/// Load to be put on a workload.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is asked for, such as `/hello`.
    pub path: String,
    /// Connections, at most [`MAX_CONNECTIONS`].
    pub connections: u32,
    /// Whether a connection serves one request after the other; else each has a connection of its own.
    pub keep_alive: bool,
    /// When requests are sent.
    pub pace: Pace,
    /// Time before the window whose requests do not count.
    pub warm_up: Duration,
    /// Length of the window.
    pub window: Duration,
    /// Time after which a request has failed.
    pub timeout: Duration,
    /// CPUs of the thread; `None`: all.
    pub cpus: Option<CpuList>,
}

impl Load {
    fn check(&self) -> Result<()> {
        ensure!(
            (1..=MAX_CONNECTIONS).contains(&self.connections),
            "{} connections: choose from 1 to {MAX_CONNECTIONS}",
            self.connections
        );
        if let Pace::Open { rate } = self.pace {
            ensure!(
                rate > 0.0 && rate <= 1e7,
                "a rate of {rate} requests per second: choose one above 0, at most 10000000"
            );
        }
        if let Pace::Count { requests } = self.pace {
            ensure!(requests > 0, "a load of 0 requests");
        }
        ensure!(self.path.starts_with('/'), "the path `{}` does not start with /", self.path);
        ensure!(!self.window.is_zero(), "the window of a load is empty");
        Ok(())
    }

    /// Puts it on the workload, on a thread of its own, until the window is over or it is interrupted.
    ///
    /// # Errors
    /// When it makes no sense, or there is no thread for it. A workload that does not answer is no error: its failures are in
    /// the tally.
    pub async fn run(self, interrupted: CancellationToken) -> Result<Tally> {
        self.check()?;
        let (send, receive) = tokio::sync::oneshot::channel();
        let work = move || {
            // Nobody waits any more when the receiver is gone.
            let _ = send.send(self.on_this_thread(interrupted));
        };
        std::thread::Builder::new()
            .name("load".into())
            .spawn(work)
            .context("can't start the thread that makes load")?;
        receive.await.context("the thread that makes load panicked")?
    }

    fn on_this_thread(self, interrupted: CancellationToken) -> Result<Tally> {
        let _pinned = self.cpus.as_ref().map(CpuList::pin).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.drive(interrupted))
    }

    async fn drive(self, interrupted: CancellationToken) -> Result<Tally> {
        let first_ns = monotonic_ns();
        let start_ns = first_ns + nanoseconds(self.warm_up);
        let end_ns = start_ns + nanoseconds(self.window);
        let shared = Rc::new(Shared {
            tally: RefCell::new(Tally::new(start_ns, end_ns)?),
            due: Due::default(),
            over: Cell::new(false),
            left: Cell::new(match self.pace {
                Pace::Count { requests } => requests,
                Pace::Closed | Pace::Open { .. } => u64::MAX,
            }),
            load: self,
        });
        let mut tasks = JoinSet::new();
        for _ in 0..shared.load.connections {
            tasks.spawn_local(serve(Rc::clone(&shared)));
        }
        if let Pace::Open { rate } = shared.load.pace {
            let shared = Rc::clone(&shared);
            tasks.spawn_local(async move {
                let outcome = schedule::run(&shared.due, rate, first_ns, end_ns).await;
                if let Err(error) = outcome {
                    shared.tally.borrow_mut().failed(&Failure::Schedule(error.to_string()), monotonic_ns());
                }
                shared.due.close();
            });
        }
        let left = Duration::from_nanos(end_ns.saturating_sub(monotonic_ns()));
        let counted = matches!(shared.load.pace, Pace::Count { .. });
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = interrupted.cancelled() => {}
            () = async { while tasks.join_next().await.is_some() {} }, if counted => {}
        }
        // In a closed loop the end cuts requests off; in an open loop those that were due are still answered, or time out.
        shared.over.set(true);
        if !matches!(shared.load.pace, Pace::Open { .. }) || interrupted.is_cancelled() {
            tasks.abort_all();
        }
        let grace = tokio::time::timeout(shared.load.timeout, async { while tasks.join_next().await.is_some() {} });
        let _ = grace.await;
        drop(tasks);
        let mut tally = shared.tally.replace(Tally::new(start_ns, end_ns)?);
        tally.ended(monotonic_ns().min(end_ns), shared.due.left(start_ns));
        Ok(tally)
    }
}

/// What the tasks of a load have in common.
struct Shared {
    load: Load,
    tally: RefCell<Tally>,
    due: Due,
    over: Cell<bool>,
    /// Requests that may still be sent.
    left: Cell<u64>,
}

/// One connection: requests, one after the other, until there are no more.
async fn serve(shared: Rc<Shared>) {
    /// After a failure, so that a workload that refuses connections is not asked in a busy loop.
    const PAUSE: Duration = Duration::from_millis(1);
    let mut connection = None;
    loop {
        let due_ns = match shared.load.pace {
            Pace::Closed | Pace::Count { .. } if shared.over.get() || shared.left.get() == 0 => return,
            Pace::Closed | Pace::Count { .. } => {
                shared.left.set(shared.left.get() - 1);
                monotonic_ns()
            }
            Pace::Open { .. } => match shared.due.next().await {
                Some(due_ns) => due_ns,
                None => return,
            },
        };
        let outcome = tokio::time::timeout(shared.load.timeout, request(&shared.load, &mut connection)).await;
        let now_ns = monotonic_ns();
        match outcome.unwrap_or(Err(Failure::Timeout)) {
            Ok(answer) => {
                shared.tally.borrow_mut().answered(answer.status, answer.body_bytes, due_ns, now_ns);
                if !shared.load.keep_alive || !answer.keeps_alive {
                    connection = None;
                }
            }
            Err(failure) => {
                shared.tally.borrow_mut().failed(&failure, due_ns);
                connection = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn request(load: &Load, connection: &mut Option<Connection>) -> Result<connection::Answer, Failure> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(load.address, &load.path, load.keep_alive).await?),
    };
    open.ask().await
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
