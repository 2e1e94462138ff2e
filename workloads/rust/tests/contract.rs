//! The contract of `workloads/README.md`, held against the workload in every language.
//!
//! The Rust one is the binary that cargo has built for this test. The Go one is the file that the environment variable
//! `SANDSCOPE_WORKLOAD_GO` names; without it, its tests pass, and one line on standard error says that they did
//! nothing.

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
#[path = "contract/process.rs"]
mod process;
#[path = "contract/server.rs"]
mod server;

use server::Program;
use std::{io::Write, path::Path, sync::Once, time::Duration};

/// Longest time that one check may take, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(120);

/// Environment variable with the path of the Go workload.
const GO: &str = "SANDSCOPE_WORKLOAD_GO";

fn rust_program() -> Option<Program> {
    Some(Program::new(Path::new(env!("CARGO_BIN_EXE_sandscope-workload"))))
}

fn go_program() -> Option<Program> {
    static TELL: Once = Once::new();
    let Some(path) = std::env::var_os(GO) else {
        #[allow(clippy::explicit_write, reason = "what `eprintln!` says in a test that passes is not shown")]
        TELL.call_once(|| writeln!(std::io::stderr(), "SKIP contract(go): {GO} is not set").unwrap());
        return None;
    };
    Some(Program::new(Path::new(&path)))
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
    process: usage, mistaken_callbacks, busy_port, signals, closed_outputs;
}
