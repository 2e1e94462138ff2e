//! `sandscope attach --pages` holds its target: never what it needs itself to go on, and never longer than it lives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crate::common::{aggregate, dataset::rows, subject};
use rustix::process::{Pid, Signal, kill_process};
use sandscope::probe::Limits;
use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const SANDSCOPE: &str = env!("CARGO_BIN_EXE_sandscope");

/// Ended when a test is over, however, with all that it has started.
struct Running(Child);

impl Running {
    /// Starts a command in a session of its own.
    fn start(command: &mut Command) -> Self {
        let new_session = || {
            rustix::process::setsid()?;
            Ok(())
        };
        // SAFETY: the call only makes a session, which is allowed between fork and exec.
        let command = unsafe { command.pre_exec(new_session) };
        Self(command.spawn().unwrap())
    }

    /// Memory of so many pages of which each is its own, when they are there.
    fn with_pages(count: usize) -> Self {
        let mut command = subject(&format!("pages anonymous 0 0 0 {count}"));
        let mut running = Self::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        running
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Its exit code, when it ends in time.
    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn is_stopped(pid: i32) -> bool {
    procfs::process::Process::new(pid).unwrap().stat().unwrap().state == 't'
}

/// Whether this host can attach; says so when not.
fn can_attach(test: &str) -> bool {
    aggregate(test, Limits { threads: 8, vcpus: 1, exits: 8 }).is_some()
}

fn attach(target: &str, out: &Path) -> String {
    format!("{SANDSCOPE} attach {target} --for 100ms --pages --out {}", out.display())
}

#[test]
fn a_target_with_the_own_shell_is_looked_at_and_the_shell_goes_on() {
    const TEST: &str = "a_target_with_the_own_shell_is_looked_at_and_the_shell_goes_on";
    if !can_attach(TEST) {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    // Another child of the shell is the target's too, and no kin of sandscope.
    let script = format!("sleep 100 & {}; code=$?; kill $!; exit $code", attach("pid:$$", out.path()));
    let mut shell = Running::start(Command::new("sh").args(["-c", &script]).stdout(Stdio::null()));
    assert_eq!(shell.code(), Some(0));
    let scans = rows(out.path(), "page_scans");
    assert_eq!(scans[0].number("spared_processes_count"), Some(1), "the shell; sandscope itself is no part of it");
    assert!(scans[0].number("paused_ns").is_some(), "the other child stood still");
    assert_eq!(
        scans[0].number("mapped_pages_count"),
        scans[0].number("kernel_pages_count"),
        "of those that stood still"
    );
}

#[test]
fn an_interruption_lets_the_target_go_and_ends_sandscope() {
    const TEST: &str = "an_interruption_lets_the_target_go_and_ends_sandscope";
    if !can_attach(TEST) {
        return;
    }
    let target = Running::with_pages(100_000);
    for signal in [Signal::INT, Signal::TERM] {
        assert!(interrupted(&target, signal), "{signal:?}: it was never seen to hold its target");
    }
}

/// Sends a signal to sandscope while it holds the target. `false` if it was too fast, several times.
fn interrupted(target: &Running, signal: Signal) -> bool {
    for _ in 0..5 {
        let out = tempfile::tempdir().unwrap();
        let command = attach(&format!("pid:{}", target.pid()), out.path());
        let mut sandscope =
            Running::start(Command::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()));
        while !is_stopped(target.pid()) && sandscope.0.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        // Fails for one that has ended.
        let _ = kill_process(Pid::from_child(&sandscope.0), signal);
        let code = sandscope.code();
        assert!(!is_stopped(target.pid()), "{signal:?}");
        if code == Some(130) {
            return true;
        }
    }
    false
}

#[test]
fn the_target_goes_on_when_sandscope_is_killed() {
    const TEST: &str = "the_target_goes_on_when_sandscope_is_killed";
    if !can_attach(TEST) {
        return;
    }
    let target = Running::with_pages(100_000);
    let out = tempfile::tempdir().unwrap();
    let command = attach(&format!("pid:{}", target.pid()), out.path());
    let mut sandscope =
        Running::start(Command::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()));
    while !is_stopped(target.pid()) && sandscope.0.try_wait().unwrap().is_none() {
        thread::yield_now();
    }
    sandscope.0.kill().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while is_stopped(target.pid()) {
        assert!(Instant::now() < deadline, "it stays held");
        thread::sleep(Duration::from_millis(1));
    }
}
