//! The command as people meet it: what it says to a wrong request, and what it leaves when it is stopped in the middle.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod bucket;

use crate::common::dataset::{parts, rows, sum};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Signal, geteuid, kill_process},
};
use sandscope::{probe::Options, testing::skip};
use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn sandscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    sandscope(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Everything that instances leave on a host while they live. Others may have some there: what a test left is in it and was not
/// before the test.
fn traces() -> Vec<String> {
    let interfaces = fs::read_dir("/sys/class/net").unwrap().flatten().map(|entry| entry.file_name());
    let mut found: Vec<String> = interfaces
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("ss") && name.len() > 5)
        .collect();
    let runs = fs::read_dir("/run/sandscope").into_iter().flatten().flatten();
    found.extend(runs.filter(|entry| entry.path().is_dir()).map(|entry| entry.path().display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains("/run/sandscope/")).map(str::to_owned));
    found
}

/// What was not there before.
fn traces_since(before: &[String]) -> Vec<String> {
    traces().into_iter().filter(|trace| !before.contains(trace)).collect()
}

/// Needs namespaces.
fn is_root(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        skip(test, "privilege", "this needs root");
    }
    root
}

#[test]
fn what_can_not_be_done_is_refused_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let text = home.path().join("notes.txt");
    fs::write(&text, "not a program").unwrap();
    let file = home.path().join("file");
    fs::write(&file, "precious").unwrap();
    let config = home.path().join("sandboxes.toml");
    fs::write(&config, "[sandbox.mine]\nkind = \"kvm-floor\"\npoi = 3\n").unwrap();
    let [out_text, text, file, config] = [&out, &text, &file, &config].map(|path| path.to_str().unwrap());
    let cases: &[(&[&str], &[&str])] = &[
        (&["--sandbox", "rnuc"], &["rnuc", "did you mean `runc`?"]),
        (&["--sandbox", "process", "--workload", "rusty"], &["rusty", "rust"]),
        (&["--sandbox", "process", "--workload", text], &["notes.txt", "not executable"]),
        (&["--sandbox", "process", "--workload", "/nowhere/app"], &["/nowhere/app", "can't find"]),
        (&["--sandbox", "mine", "--config", config], &["sandboxes.toml:3:1", "`poi`", "did you mean `pio`?"]),
        (&["--sandbox", "process", "--memory", "12Q"], &["12Q", "K, M or G"]),
        (&["--sandbox", "process", "--cpus", "3-1"], &["3-1"]),
        (&["--sandbox", "process", "--cpus", "900"], &["900", "online"]),
        (&["--sandbox", "process", "-n", "0"], &["0", "1"]),
        (&["--sandbox", "process", "--timeout", "-1"], &["seconds"]),
        (&["--sandbox", "process", "--ring-buffer-bytes", "1000"], &["power of two"]),
        (&["--sandbox", "process", "--callback-port", "0"], &["0"]),
        (&["--sandbox", "process", "--cache", "warm"], &["warm", "primed"]),
        (&["--sandbox", "process", "--out", file], &["a file where a directory has to be"]),
    ];
    for (arguments, expected) in cases {
        let mut all = vec!["run", "cold-start", "--network", "host", "--no-probes"];
        if !arguments.contains(&"--out") {
            all.extend(["--out", out_text]);
        }
        all.extend(*arguments);
        let output = run(&all);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
        assert!(!out.exists(), "{arguments:?} wrote something");
    }
    let output = run(&["run", "warm-start"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn without_privileges_it_measures_what_it_can_and_says_what_is_missing() {
    const TEST: &str = "without_privileges_it_measures_what_it_can_and_says_what_is_missing";
    const NOBODY: u32 = 65534;
    if !is_root(TEST) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // A place that this user can reach, with all that the command needs.
    let place = home.path().canonicalize().unwrap();
    std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = place.join("sandscope");
    fs::copy(env!("CARGO_BIN_EXE_sandscope"), &program).unwrap();
    let workloads = place.join("workloads/rust");
    fs::create_dir_all(&workloads).unwrap();
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads/rust/app");
    fs::copy(built, workloads.join("app")).expect("`cargo xtask workloads` builds the workload");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).current_dir(&place).env("TMPDIR", &place);
        command.env("SANDSCOPE_WORKLOADS", place.join("workloads")).env_remove("XDG_RUNTIME_DIR");
        command.args(arguments).output().unwrap()
    };
    let output = as_nobody(&["run", "cold-start", "--sandbox", "process", "--network", "host", "-n", "2"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2 ok, 0 failed") && text.contains("without probes"), "{text}");
    let out = place.join("results");
    assert_eq!(sum(&rows(&out, "instances"), "ok"), 2);
    assert!(rows(&out, "attribution").is_empty());
    let runs = rows(&out, "runs");
    assert_eq!(runs[0].number("probes_available"), Some(0));
    assert!(!runs[0].text("probes_missing").is_empty());

    let output = as_nobody(&["run", "cold-start", "--sandbox", "runc"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = as_nobody(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let examination: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let features = examination["features"].as_array().unwrap();
    let privilege = features.iter().find(|feature| feature["name"] == "privilege").unwrap();
    assert_eq!(privilege["verdict"], "unsupported");
    assert!(privilege["remedy"].as_str().unwrap().contains("root"));
}

#[test]
fn a_port_that_is_taken_is_a_row_with_its_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let mut arguments =
        vec!["run", "cold-start", "--sandbox", "process", "--network", "host", "--no-probes", "-n", "1"];
    arguments.extend(["--callback-port", &port, "--out", out.to_str().unwrap()]);
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let instances = rows(&out, "instances");
    assert_eq!((instances.len(), instances[0].number("ok")), (1, Some(0)));
    let error = instances[0].text("error");
    assert!(error.contains(&port) && error.contains("--callback-port"), "{error}");
}

#[test]
fn a_workload_that_never_answers_is_a_row_and_the_run_goes_on() {
    const TEST: &str = "a_workload_that_never_answers_is_a_row_and_the_run_goes_on";
    if !is_root(TEST) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let before = traces();
    // It keeps the contract of no workload: it waits for a guest that has nothing to do.
    let silent = fs::canonicalize("/bin/busybox").or_else(|_| fs::canonicalize("/usr/bin/busybox"));
    let Ok(silent) = silent else { return skip(TEST, "busybox", "there is no static program to misuse") };
    let mut arguments = vec!["run", "cold-start", "--sandbox", "process", "-n", "2", "--no-probes", "--timeout", "5"];
    arguments.extend(["--workload", silent.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let instances = rows(&out, "instances");
    assert_eq!(instances.len(), 2);
    assert!(
        instances.iter().all(|row| row.text("error").contains("applet not found")),
        "{}",
        instances[0].text("error")
    );
    assert_eq!(traces_since(&before), [""; 0]);
}

#[test]
fn a_full_disk_ends_the_run_with_its_reason() {
    const TEST: &str = "a_full_disk_ends_the_run_with_its_reason";
    if !is_root(TEST) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let before = traces();
    // Enough for the empty tables and some rows, not for all.
    mount("tmpfs", home.path(), "tmpfs", MountFlags::empty(), c"size=176k").unwrap();
    let out = home.path().join("results");
    let mut arguments =
        vec!["run", "cold-start", "--sandbox", "process", "-n", "500", "--no-probes", "--network", "host"];
    arguments.extend(["--out", out.to_str().unwrap()]);
    let output = run(&arguments);
    let readable = rows(&out, "instances").len();
    unmount(home.path(), UnmountFlags::DETACH).unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left") && text.contains("kept"), "{text}");
    assert!(readable > 0 && readable < 500, "{readable}");
    assert_eq!(traces_since(&before), [""; 0]);
}

#[test]
fn records_that_found_no_room_are_counted_written_and_shown() {
    const TEST: &str = "records_that_found_no_room_are_counted_written_and_shown";
    if crate::common::probes(TEST, Options::default()).is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let mut arguments = vec!["run", "cold-start", "--sandbox", "process", "-n", "1", "--no-observer-effect"];
    arguments.extend(["--ring-buffer-bytes", "4096", "--out", out.to_str().unwrap()]);
    let output = run(&arguments);
    let text = said(&output);
    assert!(output.status.success() && text.contains("records were lost"), "{text}");
    let lost = sum(&rows(&out, "events"), "lost_count");
    assert!(lost > 0);
    assert_eq!(rows(&out, "runs").last().unwrap().number("lost_events_count"), Some(lost));
    assert_eq!(rows(&out, "instances")[0].number("lost_events_count"), Some(lost));
}

/// Starts a long run and waits until it has written the rows of some instances.
fn start_long_run(out: &Path) -> Child {
    let mut arguments = vec!["run", "cold-start", "--sandbox", "process,runc", "-n", "10000", "--no-probes"];
    arguments.extend(["--out", out.to_str().unwrap()]);
    let child = sandscope(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while parts(out, "instances").is_empty() || rows(out, "instances").len() < 3 {
        assert!(Instant::now() < deadline, "no rows after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Whether what this test starts can be started.
fn has_runc(test: &str) -> bool {
    let support = sandscope::sandbox::find("runc").unwrap().support();
    if !support.is_usable() {
        skip(test, "runc", support.evidence());
    }
    support.is_usable()
}

#[test]
fn an_interrupted_run_keeps_its_rows_and_leaves_nothing() {
    if !has_runc("an_interrupted_run_keeps_its_rows_and_leaves_nothing") {
        return;
    }
    for signal in [Signal::INT, Signal::TERM] {
        let before = traces();
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("results");
        let child = start_long_run(&out);
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains("interrupted"), "{text}");
        assert_eq!(traces_since(&before), [""; 0]);
        let runs = rows(&out, "runs");
        // It did not come to its end, and the instance that was cut short is no failure of the sandbox.
        assert!(
            runs.iter().all(|run| run.number("finished_at_unix_ns").is_none() && run.number("failed_count") == Some(0))
        );
        let instances = rows(&out, "instances");
        assert!(instances.len() >= 3 && instances.iter().all(|instance| instance.number("ok") == Some(1)));
        assert_eq!(runs[0].number("instances_count"), Some(instances.len() as i128));
        assert!(!text.contains("FAILED") && !text.contains(" 1 failed"), "{text}");
    }
}

#[test]
fn a_killed_run_keeps_its_rows_and_is_cleaned_up_after() {
    if !has_runc("a_killed_run_keeps_its_rows_and_is_cleaned_up_after") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let before = traces();
    let mut child = start_long_run(&out);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let left = traces_since(&before);
    assert!(!left.is_empty(), "a run that is killed can't tidy up");
    assert!(rows(&out, "instances").len() >= 3);
    let output = run(&["clean"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("removed"), "{}", said(&output));
    assert_eq!(traces_since(&before), [""; 0], "of {left:?}");
    let output = run(&["clean"]);
    assert!(said(&output).contains("nothing to remove"), "{}", said(&output));
}

#[test]
fn the_summary_for_machines_is_json_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let mut arguments =
        vec!["run", "cold-start", "--sandbox", "process", "--network", "host", "--no-probes", "-n", "3"];
    arguments.extend(["--seed", "5", "--json", "--out", out.to_str().unwrap()]);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["sandboxes"][0]["ok_count"], 3);
    assert!(summary["sandboxes"][0]["wall_median_ns"].as_f64().unwrap() > 0.0);
    assert_eq!(summary["run_id"], rows(&out, "runs")[0].text("run_id"));
    assert_eq!(rows(&out, "runs")[0].number("seed"), Some(5));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = sandscope(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}
