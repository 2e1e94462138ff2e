//! The contract of `workloads/README.md`, held against the workload in every language.
//!
//! The Rust one is the binary that cargo has built for this test. The others are named by environment variables: the
//! program in `SANDSCOPE_WORKLOAD_GO`, the main scripts in `SANDSCOPE_WORKLOAD_NODE` and `SANDSCOPE_WORKLOAD_PYTHON`,
//! whose interpreters are `node` and `python3` unless `SANDSCOPE_NODE` and `SANDSCOPE_PYTHON` name others. Without its
//! variable, the tests of a language pass, and one line on standard error says that they did nothing.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "contract/archives.rs"]
mod archives;
#[path = "contract/callbacks.rs"]
mod callbacks;
#[path = "contract/client.rs"]
mod client;
#[path = "contract/connections.rs"]
mod connections;
#[path = "contract/endpoints.rs"]
mod endpoints;
#[path = "contract/idle.rs"]
mod idle;
#[path = "contract/process.rs"]
mod process;
#[path = "contract/server.rs"]
mod server;

use server::{Program, Speed};
use std::{ffi::OsString, io::Write, path::Path, sync::Once, time::Duration};

/// Longest time that one check may take, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(120);

fn rust_program() -> Option<Program> {
    Some(Program::compiled(Path::new(env!("CARGO_BIN_EXE_sandscope-workload"))))
}

fn go_program() -> Option<Program> {
    static TELL: Once = Once::new();
    Some(Program::compiled(Path::new(&named_by("SANDSCOPE_WORKLOAD_GO", &TELL)?)))
}

fn node_program() -> Option<Program> {
    static TELL: Once = Once::new();
    let script = named_by("SANDSCOPE_WORKLOAD_NODE", &TELL)?;
    Some(Program::interpreted(interpreter("SANDSCOPE_NODE", "node"), Path::new(&script), Speed::Compiled))
}

fn python_program() -> Option<Program> {
    static TELL: Once = Once::new();
    let script = named_by("SANDSCOPE_WORKLOAD_PYTHON", &TELL)?;
    Some(Program::interpreted(interpreter("SANDSCOPE_PYTHON", "python3"), Path::new(&script), Speed::Interpreted))
}

/// The value of an environment variable that names a workload. Its absence is told once.
fn named_by(variable: &str, tell: &'static Once) -> Option<OsString> {
    let value = std::env::var_os(variable);
    if value.is_none() {
        #[allow(clippy::explicit_write, reason = "what `eprintln!` says in a test that passes is not shown")]
        tell.call_once(|| writeln!(std::io::stderr(), "SKIP contract: {variable} is not set").unwrap());
    }
    value
}

fn interpreter(variable: &str, default: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| default.into())
}

fn run<F: Future<Output = ()>>(program: Option<Program>, check: impl FnOnce(Program) -> F) {
    let Some(program) = program else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, check(program)).await })
        .expect("the check should not take that long");
}

/// Makes a test of each check for each language.
macro_rules! contract {
    ($($module:ident: $($check:ident),+;)+) => {
        contract!(@language rust rust_program $($module: $($check),+;)+);
        contract!(@language go go_program $($module: $($check),+;)+);
        contract!(@language node node_program $($module: $($check),+;)+);
        contract!(@language python python_program $($module: $($check),+;)+);
    };
    (@language $language:ident $program:ident $($module:ident: $($check:ident),+;)+) => {
        mod $language {
            $($(
                #[test]
                fn $check() {
                    super::run(super::$program(), super::$module::$check);
                }
            )+)+
        }
    };
}

contract! {
    endpoints: hello, fib, fft, matrix, read, static_file, alloc, alloc_refused, unknown_paths, other_methods;
    archives: unzip, unzip_of_what_is_no_archive, unzip_of_hostile_archives, unzip_spares_what_it_needs;
    connections: keep_alive, many_connections, large_heads, answers_during_work;
    callbacks: callback_after_listening, one_callback_whatever_the_answer, callback_refused, callback_unanswered;
    idle: no_wake_ups;
    process: usage, mistaken_callbacks, busy_port, signals, closed_outputs;
}
