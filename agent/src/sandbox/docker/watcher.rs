//! Follows a container from the outside: what it prints, and how it ends.
//!
//! A thread of its own, since whoever asks whether an instance has failed must not wait for an answer. It begins when the
//! container was started: until then the daemon does nothing but start it.

use crate::sandbox::console::Console;
use anyhow::{Context as _, Result};
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{InspectContainerOptions, LogsOptionsBuilder, WaitContainerOptions},
};
use futures_util::StreamExt as _;
use std::{
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended.
    Exited {
        /// Its exit code; above 128 a signal's number.
        code: i64,
        /// Whether the kernel ended it for want of memory.
        out_of_memory: bool,
        /// What the daemon says of it, if anything.
        error: String,
    },
    /// The daemon does not tell any more.
    Lost(String),
}

/// The thread. Dropping it ends it.
pub struct Watcher {
    begin: Option<oneshot::Sender<()>>,
    stop: CancellationToken,
    end: Arc<Mutex<Option<End>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread for a container that does not exist yet; what that will print goes to the console, if it is to have
    /// one.
    ///
    /// # Errors
    /// When the process is out of threads or descriptors.
    pub fn new(client: Docker, container: String, prints: bool) -> Result<(Self, Console)> {
        let (console, output) = Console::new()?;
        let output = prints.then(|| File::from(output));
        let (begin, begun) = oneshot::channel();
        let (stop, end) = (CancellationToken::new(), Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("could not start a runtime for Docker")?;
        let run = {
            let (stop, end) = (stop.clone(), Arc::clone(&end));
            move || {
                let follow = async {
                    if begun.await.is_ok() {
                        tokio::join!(print(&client, &container, output), wait(&client, &container, &end));
                    }
                };
                // What it waits for may never come.
                let _ = runtime.block_on(stop.run_until_cancelled(follow));
            }
        };
        let thread = std::thread::Builder::new().name("docker".into()).spawn(run);
        let thread = Some(thread.context("could not start a thread for Docker")?);
        Ok((Self { begin: Some(begin), stop, end, thread }, console))
    }

    /// The container was started.
    pub fn begin(&mut self) {
        if let Some(begin) = self.begin.take() {
            // Nobody waits any more when the thread was stopped.
            let _ = begin.send(());
        }
    }

    /// How the container ended, if it did.
    pub fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies what the container prints to the console, which drains it at once and keeps its tail.
async fn print(client: &Docker, container: &str, output: Option<File>) {
    let Some(mut output) = output else { return };
    let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
    let mut log = client.logs(container, Some(options));
    while let Some(Ok(chunk)) = log.next().await {
        if output.write_all(chunk.as_ref()).is_err() {
            break;
        }
    }
}

async fn wait(client: &Docker, container: &str, end: &Mutex<Option<End>>) {
    let ended = match client.wait_container(container, None::<WaitContainerOptions>).next().await {
        Some(Ok(response)) => exited(client, container, response.status_code, String::new()).await,
        Some(Err(Error::DockerContainerWaitError { error, code })) => exited(client, container, code, error).await,
        Some(Err(error)) => End::Lost(format!("the Docker daemon does not tell of it any more: {error}")),
        None => End::Lost("the Docker daemon does not tell of it any more".to_owned()),
    };
    *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
}

async fn exited(client: &Docker, container: &str, code: i64, error: String) -> End {
    let state = client.inspect_container(container, None::<InspectContainerOptions>).await;
    let state = state.ok().and_then(|container| container.state);
    let out_of_memory = state.as_ref().and_then(|state| state.oom_killed).unwrap_or(false);
    let told = state.and_then(|state| state.error).filter(|told| !told.is_empty());
    End::Exited { code, out_of_memory, error: told.unwrap_or(error) }
}
