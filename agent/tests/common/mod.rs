//! What the integration tests of the probes share: loading them once per test, and threads that are in a scope from their
//! first instruction.

use sandscope::probe::{Options, Probes};
use sandscope_ebpf::map::Membership;
use std::{
    process::{Child, Command},
    sync::LazyLock,
};

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

/// A program that does what Python says, and little else. The interpreter is started by its real path: what is called
/// `python3` may be a shell script that looks for it.
pub fn python(code: &str) -> Command {
    static INTERPRETER: LazyLock<String> = LazyLock::new(|| {
        let asked = Command::new("python3").args(["-I", "-c", "import sys; print(sys.executable)"]).output();
        let asked = asked.unwrap_or_else(|error| panic!("these tests need python3: {error}"));
        String::from_utf8(asked.stdout).expect("a path in UTF-8").trim().to_owned()
    });
    let mut command = Command::new(&*INTERPRETER);
    command.args(["-I", "-S", "-c", code]);
    command
}

/// Starts a command as a member of `scope`, as the launcher does: the calling thread is a bystander while it forks.
pub fn spawn_in_scope(probes: &Probes, scope: u16, command: &mut Command) -> Child {
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    probes.mark(tid, Membership::bystander(scope));
    let child = command.spawn();
    probes.mark(tid, Membership::NONE);
    child.unwrap_or_else(|error| panic!("can't start {command:?}: {error}"))
}
