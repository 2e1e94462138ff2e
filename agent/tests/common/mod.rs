//! What the integration tests of the probes share: loading them once per test, and threads that are in a scope from their
//! first instruction.

use sandscope::probe::{Options, Probes};
use sandscope_ebpf::map::Membership;
use std::process::{Child, Command, ExitStatus};

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

/// Starts a command as a member of `scope`, as the launcher does: the calling thread is a bystander while it forks.
pub fn spawn_in_scope(probes: &Probes, scope: u16, command: &mut Command) -> Child {
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    probes.mark(tid, Membership::bystander(scope));
    let child = command.spawn();
    probes.mark(tid, Membership::NONE);
    child.unwrap_or_else(|error| panic!("can't start {command:?}: {error}"))
}

/// Runs a command to its end as a member of `scope`.
pub fn run_in_scope(probes: &Probes, scope: u16, command: &mut Command) -> (u32, ExitStatus) {
    let mut child = spawn_in_scope(probes, scope, command);
    let pid = child.id();
    (pid, child.wait().expect("a child can be waited for once"))
}
