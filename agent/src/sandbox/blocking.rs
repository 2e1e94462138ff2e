//! Work that needs a thread of its own: because it changes the thread's namespaces, or because it is asynchronous and its caller
//! does not know whether it is inside a runtime.

use anyhow::{Context as _, Result, anyhow};

/// Runs the work on a thread of its own, which gets this name, and which it may change for good.
///
/// # Errors
/// Those of the work, and when the process is out of threads.
pub fn on_a_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
        let result = thread.with_context(|| format!("could not start the thread {name}"))?.join();
        result.unwrap_or_else(|_| Err(anyhow!("the thread {name} panicked")))
    })
}

/// Runs asynchronous work on a thread and a runtime of their own.
///
/// # Errors
/// As [`on_a_thread`].
pub fn wait<T: Send>(name: &str, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.with_context(|| format!("could not start a runtime for the thread {name}"))?.block_on(work())
    })
}
