//! What the integration tests of the probes share: loading them once per test, and threads that are in a scope from their
//! first instruction.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

pub mod bench;
pub mod dataset;
pub mod disturbance;
pub mod explained;
pub mod former;
pub mod guest_files;
pub mod program;

use sandscope::{
    correlate::{Bystander, Duty, Histories, Names, Source},
    probe::{Aggregate, Limits, Options, Probes, Recording},
};
use sandscope_ebpf::map::Membership;
use std::process::{Child, Command};

/// The probes, or a reported skip.
pub fn probes(test: &str, options: Options) -> Option<Probes> {
    match Probes::load(options) {
        Ok(probes) => Some(probes),
        Err(error) => {
            sandscope::testing::skip(test, "bpf", error);
            None
        }
    }
}

/// The aggregate probes, or a reported skip.
pub fn aggregate(test: &str, limits: Limits) -> Option<Aggregate> {
    match Aggregate::load(limits) {
        Ok(probes) => Some(probes),
        Err(error) => {
            sandscope::testing::skip(test, "bpf", error);
            None
        }
    }
}

/// A program that does one thing a known number of times; `src/bin/test-subject/main.rs` says which things.
pub fn subject(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope-test-subject"));
    command.args(words.split(' '));
    command
}

/// Starts a command as a member of `scope`, as the launcher does: the calling thread is a bystander while it forks.
pub fn spawn_in_scope(probes: &Probes, scope: u16, command: &mut Command) -> Child {
    spawn_marked(&|tid, membership| probes.mark(tid, membership), scope, command)
}

/// The same for whatever probes `mark` belongs to.
pub fn spawn_marked(mark: &dyn Fn(u32, Membership), scope: u16, command: &mut Command) -> Child {
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    mark(tid, Membership::bystander(scope));
    let child = command.spawn();
    mark(tid, Membership::NONE);
    child.unwrap_or_else(|error| panic!("can't start {command:?}: {error}"))
}

/// The histories of what this thread has started in the scope of `source`, until it was done with that, and the names for them.
pub fn histories(recording: &Recording, source: Source, spawned_ns: u64, probes: &Probes) -> (Histories, Names) {
    let mut names = Names::of_running_kernel();
    names.learn(&recording.records);
    let launcher = Bystander {
        tid: rustix::thread::gettid().as_raw_nonzero().get() as u32,
        tgid: std::process::id(),
        role: "launcher".to_owned(),
        duty: Duty::Acts,
        until_ns: Some(spawned_ns),
    };
    let source = Source { bystanders: vec![launcher], untimed_fault_ns: probes.untimed_fault_ns(), ..source };
    (Histories::of(&recording.records, source, &[]), names)
}
