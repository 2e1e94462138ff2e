//! `sandscope attach` on what real hosts have: processes that join a control group or leave it, that outlive their first thread, that
//! come and go by the thousand, that a CPU limit holds back. The right figures are the kernel's own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{aggregate, dataset::rows, subject};
use sandscope::{probe::Limits, testing::skip};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Ended when a test is over, however.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group of a test's own. Removed when it is dropped, with what is in it.
struct Group(PathBuf);

impl Group {
    /// In each of these hierarchies that this host has.
    fn make(name: &str, roots: &[&str]) -> Vec<Self> {
        let roots = roots.iter().map(Path::new).filter(|root| root.join("cgroup.procs").exists());
        let made = roots.map(|root| root.join(format!("sandscope-{name}-{}", std::process::id())));
        made.filter(|path| fs::create_dir(path).is_ok()).map(Self).collect()
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn target(&self) -> String {
        format!("cgroup:{}", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of a group a moment after its last process has ended.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Hierarchies of both versions, as hosts mount them.
const ROOTS: [&str; 4] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"];

fn can_count(test: &str) -> bool {
    aggregate(test, Limits { threads: 8, vcpus: 1, exits: 8 }).is_some()
}

fn attach(target: &str, time: &str, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.args(["attach", target, "--for", time, "--json", "--out"]).arg(out);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn summary(output: &Output) -> Value {
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    all[0].clone()
}

fn cpu_ns(output: &Output) -> f64 {
    summary(output)["cost"]["cpu_ns"].as_f64().unwrap()
}

/// The findings of the run.
fn explained(out: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sandscope")).arg("explain").arg(out).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A subject that has said that it is ready.
fn ready(words: &str) -> (Running, BufReader<std::process::ChildStdout>) {
    let mut child = subject(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (Running(child), output)
}

/// Waits until an agent has its probes attached, and a moment longer until its window is open.
fn await_window(agent: &mut Running) {
    let descriptors = format!("/proc/{}/fd", agent.0.id());
    let attached = || {
        let links =
            fs::read_dir(&descriptors).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("bpf_link")).count()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    // More than one at a time: each is tried first.
    while attached() < 4 {
        assert!(agent.0.try_wait().unwrap().is_none(), "it ended before");
        assert!(Instant::now() < deadline, "no probes");
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_secs(1));
}

#[test]
fn who_joins_a_control_group_is_counted_from_then_on_and_who_leaves_it_no_more() {
    const TEST: &str = "who_joins_a_control_group_is_counted_from_then_on_and_who_leaves_it_no_more";
    if !can_count(TEST) {
        return;
    }
    let groups = Group::make("join", &ROOTS);
    if groups.is_empty() {
        return skip(TEST, "cgroup", "no hierarchy of control groups in which a group can be made");
    }
    for group in groups {
        let inside = Running(subject("sleep 100000 1000").spawn().unwrap());
        fs::write(group.file("cgroup.procs"), inside.0.id().to_string()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut agent = Running(attach(&group.target(), "6s", out.path()));
        await_window(&mut agent);
        let root = group.0.parent().unwrap().join("cgroup.procs");
        let words = format!("join {} 10 700 {}", group.file("cgroup.procs"), root.display());
        let joined = subject(&words).stdout(Stdio::piped()).output().unwrap();
        let right: f64 = String::from_utf8_lossy(&joined.stdout).trim().parse().unwrap();
        let Running(child) = &mut agent;
        let output = Output {
            status: child.wait().unwrap(),
            stdout: read(child.stdout.take()),
            stderr: read(child.stderr.take()),
        };
        assert!(output.status.success(), "{output:?}");
        let seen = cpu_ns(&output);
        // What the host's own hypervisor takes is in the one and not in the other.
        assert!((right * 0.97..right * 1.25).contains(&seen), "{}: {seen} ns of {right}", group.0.display());
    }
}

fn read(from: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_process_lives_as_long_as_any_of_its_threads() {
    const TEST: &str = "a_process_lives_as_long_as_any_of_its_threads";
    if !can_count(TEST) {
        return;
    }
    let child = Running(subject("first-ends 60000").spawn().unwrap());
    thread::sleep(Duration::from_millis(200));
    let state = procfs::process::Process::new(child.0.id() as i32).unwrap().stat().unwrap().state;
    assert_eq!(state, 'Z', "the first thread has ended");
    let out = tempfile::tempdir().unwrap();
    let output = finished(attach(&format!("pid:{}", child.0.id()), "1s", out.path()));
    assert!(cpu_ns(&output) > 0.2e9, "{output:?}");
}

#[test]
fn processes_that_come_and_go_by_the_thousand_are_counted_to_the_last() {
    const TEST: &str = "processes_that_come_and_go_by_the_thousand_are_counted_to_the_last";
    if !can_count(TEST) {
        return;
    }
    // More than there are places for threads.
    const CHILDREN: u32 = 20_000;
    let (mut child, mut output) = ready(&format!("children {CHILDREN} 100"));
    let out = tempfile::tempdir().unwrap();
    let mut agent = Running(attach(&format!("pid:{}", child.0.id()), "10m", out.path()));
    await_window(&mut agent);
    let mut input = child.0.stdin.take().unwrap();
    writeln!(input, "go").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let right: f64 = line.trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(agent.0.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    agent.0.wait().unwrap();
    let threads = rows(out.path(), "threads");
    let sum = |column: &str| threads.iter().filter_map(|row| row.number(column)).sum::<i128>();
    let seen = sum("on_cpu_ns") as f64;
    println!("{seen} ns seen, {right} ns by getrusage, in {} rows", threads.len());
    // The end of each child is after the kernel's account of it, some microseconds; and what the host's hypervisor takes.
    assert!((right * 0.99..right * 1.25).contains(&seen), "{seen} of {right}");
    assert!((CHILDREN.into()..=i128::from(CHILDREN) + 1).contains(&sum("threads_count")), "{}", sum("threads_count"));
    let window = &rows(out.path(), "windows")[0];
    assert_eq!((window.number("unrecorded_count"), window.text("doubts")), (Some(0), ""));
}

#[test]
fn thousands_of_threads_are_attached_to_in_a_moment() {
    const TEST: &str = "thousands_of_threads_are_attached_to_in_a_moment";
    if !can_count(TEST) {
        return;
    }
    let (child, _output) = ready("threads 8000");
    let out = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let output = finished(attach(&format!("pid:{}", child.0.id()), "2s", out.path()));
    let took = start.elapsed();
    let summary = summary(&output);
    println!("{took:?} for a window of {}", summary["seconds"]);
    assert_eq!(summary["unrecorded_count"], 0, "{summary:#}");
    assert_eq!(rows(out.path(), "threads").len(), 8001);
    // Each wakes up once a second, later where CPUs are rare; at its ends a window may hold one wake-up more of all of them.
    let [wakeups, seconds] = ["wakeups_per_s", "seconds"].map(|name| summary[name].as_f64().unwrap());
    let most = 8000.0 * (seconds.floor() + 1.0) / seconds;
    assert!((4000.0..most * 1.01).contains(&wakeups), "{wakeups} of {most} at most");
    assert!(
        took < Duration::from_secs(20),
        "reading all of a process for each of its threads takes a minute: {took:?}"
    );
}

#[test]
fn a_cpu_limit_is_told_with_the_time_of_the_kernel() {
    const TEST: &str = "a_cpu_limit_is_told_with_the_time_of_the_kernel";
    if !can_count(TEST) {
        return;
    }
    let mut limited = None;
    for group in Group::make("limit", &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"]) {
        let set = fs::write(group.file("cpu.max"), "20000 100000")
            .or_else(|_| fs::write(group.file("cpu.cfs_quota_us"), "20000"));
        if set.is_ok() {
            limited = Some(group);
            break;
        }
    }
    let Some(group) = limited else {
        return skip(TEST, "cgroup-cpu", "no hierarchy in which a CPU limit can be set");
    };
    let throttled_ns = || {
        let stat = fs::read_to_string(group.file("cpu.stat")).unwrap();
        let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value("throttled_time ").or_else(|| Some(value("throttled_usec ")? * 1000.0)).unwrap()
    };
    let child = Running(subject("spin 120000").spawn().unwrap());
    fs::write(group.file("cgroup.procs"), child.0.id().to_string()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let before = throttled_ns();
    let output = finished(attach(&group.target(), "3s", out.path()));
    let whole = throttled_ns() - before;
    let window = &rows(out.path(), "windows")[0];
    let told = window.number("throttled_ns").unwrap() as f64;
    // The window is a part of the time between the two.
    assert!(told > 0.5e9 && told <= whole, "{told} of {whole}: {output:?}");
    assert!(explained(out.path()).contains("throttled by its CPU limit"), "{}", explained(out.path()));
    drop(child);
}

#[test]
fn a_whole_host_uses_no_more_than_its_cpus_and_the_agent_is_no_part_of_it() {
    const TEST: &str = "a_whole_host_uses_no_more_than_its_cpus_and_the_agent_is_no_part_of_it";
    if !can_count(TEST) {
        return;
    }
    let cpus = thread::available_parallelism().unwrap().get();
    let _busy: Vec<_> = (0..cpus + 1).map(|_| Running(subject("spin 60000").spawn().unwrap())).collect();
    for target in ["pid:1", "cgroup:/"] {
        let out = tempfile::tempdir().unwrap();
        let agent = attach(target, "1s", out.path());
        let own = i128::from(agent.id());
        let output = finished(agent);
        let summary = summary(&output);
        let share = summary["cost"]["cpu_ns"].as_f64().unwrap() / 1e9 / summary["seconds"].as_f64().unwrap();
        assert!(share > 0.5 * cpus as f64 && share < 1.02 * cpus as f64, "{target}: {share} CPUs of {cpus}");
        let threads = rows(out.path(), "threads");
        assert!(threads.iter().all(|row| row.number("tgid") != Some(own)), "{target}: the agent is in its own figures");
        for row in &threads {
            let time = ["on_cpu_ns", "runnable_ns", "blocked_ns"].map(|column| row.number(column).unwrap());
            let span = rows(out.path(), "windows")[0].number("span_ns").unwrap();
            let several = row.number("threads_count") != Some(1);
            assert!(several || time.iter().sum::<i128>() <= span + span / 50 + 5_000_000, "{}", row.text("comm"));
        }
    }
}

#[test]
fn a_loop_that_never_sleeps_is_told_by_its_call() {
    const TEST: &str = "a_loop_that_never_sleeps_is_told_by_its_call";
    if !can_count(TEST) {
        return;
    }
    let child = Running(subject("poll-spin").spawn().unwrap());
    let out = tempfile::tempdir().unwrap();
    finished(attach(&format!("pid:{}", child.0.id()), "1s", out.path()));
    let threads = rows(out.path(), "threads");
    assert!(threads[0].text("found_in").contains("epoll_"), "{}", threads[0].text("found_in"));
    let text = explained(out.path());
    assert!(text.contains("it spins in `epoll_"), "{text}");
}

#[test]
fn inside_of_a_pid_namespace_nothing_is_counted_that_others_did() {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(env!("CARGO_BIN_EXE_sandscope"));
    let output = command.args(["attach", "pid:1", "--for", "1s", "--out"]).arg(out.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        return skip("inside_of_a_pid_namespace_nothing_is_counted_that_others_did", "pid-namespace", said);
    }
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!out.path().join("windows").exists());
}

#[test]
fn a_thread_and_the_agent_itself_are_no_targets() {
    let out = tempfile::tempdir().unwrap();
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    assert_ne!(tid, std::process::id() as i32, "tests have threads of their own");
    let output = attach(&format!("pid:{tid}"), "1s", out.path()).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("is a thread of process {}", std::process::id())), "{said}");
    // A shell that becomes the agent keeps its number.
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(r#"exec "$0" attach pid:$$ --for 1s --out "$1""#);
    shell.arg(env!("CARGO_BIN_EXE_sandscope")).arg(out.path()).process_group(0);
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("sandscope itself"), "{said}");
}
