//! The workload that runs inside a sandbox: a small HTTP server that does one kind of work per endpoint and reports by
//! a callback that it is ready.
//!
//! The contract that it shares with the workloads in other languages is in `workloads/README.md`.

mod arguments;
mod callback;
mod compute;
mod endpoint;
mod memory;
mod parameter;
mod server;
mod static_file;
mod unzip;

use arguments::{Arguments, Command, USAGE};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

/// Exit code for a command line that can't be followed.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(arguments)) => arguments,
        Ok(Command::Help) => {
            print(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            note(format_args!("{reason}\n{USAGE}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(arguments, start) {
        Ok(never) => match never {},
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, start: Instant) -> anyhow::Result<std::convert::Infallible> {
    end_on_signals()?;
    raise_limit_of_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(endpoint::MAX_CONCURRENT_WORK)
        .build()?;
    runtime.block_on(async {
        let listener = server::listen(arguments.port)?;
        let since_main = start.elapsed();
        print(format_args!("listening on {}", listener.local_addr()?));
        if let Some(url) = arguments.callback {
            tokio::spawn(async move {
                if let Err(error) = callback::send(&url, since_main).await {
                    note(format_args!("the callback to {url} failed: {error:#}"));
                }
            });
        }
        Ok(server::serve(listener, arguments.files).await)
    })
}

/// As process 1 of a container nothing but an installed handler ends the process on these signals.
///
/// The handler itself ends the process, so that neither running work nor an open connection can delay it.
fn end_on_signals() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// The usual soft limit of 1024 would leave no room for 1024 connections. When the hard limit is no higher, connections
/// beyond it wait in the listen queue.
fn raise_limit_of_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        note(format_args!("the limit of open files stays as it is: {error}"));
    }
}

/// Writes a line to standard output. A sandbox may have closed it, which is no reason to stop serving.
fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes a line to standard error, with the same forbearance.
fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
