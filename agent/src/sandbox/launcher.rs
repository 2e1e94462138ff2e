//! The thread that starts sandboxes, and nothing else.
//!
//! It lives as long as the agent, because children die with the thread that started them (see `child.rs`). And it is one
//! thread whose number is known, so that the probes can tell "the launcher forked a child" from all else the agent does.

use anyhow::{Context as _, Result};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::JoinHandle,
};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs closures in the order in which they come. Dropping it waits for those that are left; then the thread
/// ends, and with it every child that it started.
#[derive(Debug)]
pub struct Launcher {
    tid: u32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Launcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the process is out of threads.
    pub fn spawn() -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (send_tid, tid) = mpsc::channel();
        let run = move || {
            // It is received right below.
            let _ = send_tid.send(rustix::thread::gettid().as_raw_pid().cast_unsigned());
            queue.into_iter().for_each(|job| job());
        };
        let thread = std::thread::Builder::new().name("launcher".into()).spawn(run);
        let thread = thread.context("could not start the launcher thread")?;
        Ok(Self { tid: tid.recv().context("the launcher thread ended")?, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Thread number, as the pid namespace of the agent numbers it.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// Runs the closure on the thread and returns what it returned.
    ///
    /// # Errors
    /// When the closure panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (send, receive) = oneshot::channel();
        let job = move || {
            // The thread outlives a panic, since the sandboxes that it started would die with it. The closure owns what it
            // uses, so nobody sees what the panic left half done.
            if let Ok(value) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody waits any more: dropping the value is all that is left to do.
                let _ = send.send(value);
            }
        };
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(Box::new(job)).ok())
            .context("the launcher thread ended: it can't start anything")?;
        receive.await.context("what was to run on the launcher thread panicked")
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_runs_on_the_one_thread_also_after_a_panic() {
        let launcher = Launcher::spawn().unwrap();
        let tid = || rustix::thread::gettid().as_raw_pid().cast_unsigned();
        assert_eq!(launcher.run(tid).await.unwrap(), launcher.tid());
        let error = launcher.run(|| -> () { panic!("on purpose") }).await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(launcher.run(tid).await.unwrap(), launcher.tid());
        assert_ne!(launcher.tid(), tid());
    }
}
