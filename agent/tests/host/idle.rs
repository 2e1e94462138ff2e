//! `sandscope run idle` and `sandscope attach` as a person types them, on subjects whose right figures are known beforehand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crate::common::{aggregate, bench::workload_executable, subject};
use sandscope::{probe::Limits, testing::skip};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const FLOOR: &str = env!("CARGO_BIN_EXE_sandscope-kvm-floor");

/// Ended when a test is over, however.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sandscope(arguments: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.args(arguments).arg("--out").arg(out).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Whether this host can count; says so when not.
fn can_count(test: &str) -> bool {
    aggregate(test, Limits { threads: 8, vcpus: 1, exits: 8 }).is_some()
}

/// Waits until a VMM that was started has made the vCPU of its VM.
fn await_vcpu(vmm: &Running) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let files = format!("/proc/{}/fd", vmm.0.id());
    let has_vcpu = || {
        let files = std::fs::read_dir(&files).unwrap().flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|to| to.to_string_lossy().contains("kvm-vcpu"))
    };
    while !has_vcpu() {
        assert!(Instant::now() < deadline, "the VMM has made no vCPU");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has_kvm(test: &str) -> bool {
    if !cfg!(target_arch = "x86_64") {
        skip(test, "x86_64", "the guest of the floor is for x86-64 only");
        return false;
    }
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &device {
        skip(test, "kvm", format!("/dev/kvm: {error}"));
    }
    device.is_ok()
}

fn floor(options: &str) -> Running {
    let mut command = Command::new(FLOOR);
    command.args(options.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

/// The row of a summary about the timer of the guest.
fn guest_timer(summary: &Value) -> Option<&Value> {
    let causes = summary["causes"].as_array().unwrap();
    causes.iter().find(|cause| cause["detail"].as_str().unwrap().contains("apic_timer_fn") && cause["role"] == "vcpu")
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_process_that_ran_before_is_watched_where_it_is() {
    const TEST: &str = "a_process_that_ran_before_is_watched_where_it_is";
    if !can_count(TEST) {
        return;
    }
    // 50 times per second for as long as anybody looks.
    let child = Running(subject("sleep 100000 20").spawn().unwrap());
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", &format!("pid:{}", child.0.id()), "--for", "3s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let summaries = json(&output);
    let summary = &summaries[0];
    let (seconds, wakeups) = (float(&summary["seconds"]), float(&summary["wakeups_per_s"]));
    assert!((2.9..10.0).contains(&seconds), "{seconds}");
    // Each takes 20 ms and a little: a loaded host makes it fewer, never more.
    assert!((25.0..=50.5).contains(&wakeups), "{summary:#}");
    let cause = &summary["causes"][0];
    assert_eq!((cause["cause"].as_str(), cause["detail"].as_str()), (Some("hrtimer"), Some("hrtimer_wakeup")));
    assert!((float(&cause["per_s"]) - wakeups).abs() < 0.5, "{summary:#}");
    assert!(float(&summary["cost"]["ratio"]) < 0.2, "{summary:#}");
    for table in ["windows", "threads", "wakeups", "perf_counters", "instances"] {
        assert!(out.path().join(table).is_dir(), "{table} is missing");
    }
}

#[test]
fn a_busy_thread_is_seen_though_nothing_switches() {
    const TEST: &str = "a_busy_thread_is_seen_though_nothing_switches";
    if !can_count(TEST) {
        return;
    }
    let child = Running(subject("spin 60000").spawn().unwrap());
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", &format!("pid:{}", child.0.id()), "--for", "2s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let summary = &json(&output)[0];
    let stat = procfs::process::Process::new(child.0.id() as i32).unwrap().stat().unwrap();
    let used = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    // The process has used that much in its whole life, the window is a part of it.
    let counted = float(&summary["cost"]["cpu_ns"]) / 1e9;
    assert!(counted > 0.3 && counted < used + 0.1, "{counted} s counted of {used} s");
}

#[test]
fn a_target_that_ends_meanwhile_is_reported_with_what_it_did() {
    const TEST: &str = "a_target_that_ends_meanwhile_is_reported_with_what_it_did";
    if !can_count(TEST) {
        return;
    }
    let mut child = Running(subject("sleep 800 20").spawn().unwrap());
    let pid = child.0.id();
    let watcher = std::thread::spawn(move || child.0.wait().unwrap());
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", &format!("pid:{pid}"), "--for", "60s", "--json"], out.path());
    assert!(watcher.join().unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ended after"), "{output:?}");
    assert!(float(&json(&output)[0]["wakeups_per_s"]) > 0.0);
}

#[test]
fn what_can_not_be_attached_to_is_refused_before_anything_starts() {
    let out = tempfile::tempdir().unwrap();
    for (target, complaint) in [
        ("pid:2147483646", "there is no process 2147483646"),
        ("pid:x", "no process number"),
        ("nonsense", "names no target"),
        ("cgroup:/no/such/group", "no hierarchy of control groups has"),
        ("firecracker:no-such-vm", "no firecracker process"),
        ("qemu:no-such-vm", "no qemu-system process"),
    ] {
        let output = sandscope(&["attach", target], out.path());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{target}: {errors}");
        assert!(errors.contains(complaint), "{target}: {errors}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn a_vm_that_ran_before_is_found_and_watched() {
    const TEST: &str = "a_vm_that_ran_before_is_found_and_watched";
    if !can_count(TEST) {
        return;
    }
    if !has_kvm(TEST) {
        return;
    }
    let floor = floor("--hlt 100000 --hlt-interval-ns 20000000");
    await_vcpu(&floor);
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", "all-vms", "--for", "3s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let summaries = json(&output);
    let name = format!(":{}", floor.0.id());
    let summary = summaries.as_array().unwrap().iter().find(|vm| vm["target"].as_str().unwrap().ends_with(&name));
    let summary = summary.unwrap_or_else(|| panic!("{summaries:#}"));
    let halts = summary["exits"].as_array().unwrap().iter().find(|exit| exit["reason"] == "halt").unwrap();
    assert!((20.0..=51.0).contains(&float(&halts["per_s"])), "{summary:#}");
    assert!(guest_timer(summary).is_some(), "{summary:#}");
}

/// Turns of the guest's loop that take about this long here.
fn turns(time: Duration) -> u32 {
    const MEASURED: u32 = 200_000;
    let took = |turns: u32| {
        let start = Instant::now();
        assert!(floor(&format!("--spin {turns}")).0.wait().unwrap().success());
        start.elapsed().as_secs_f64()
    };
    let turn = (took(MEASURED) - took(0)).max(1e-6) / f64::from(MEASURED);
    (time.as_secs_f64() / turn) as u32
}

#[test]
fn a_guest_with_a_tick_and_one_that_spins_are_told_and_a_healthy_one_is_not() {
    const TEST: &str = "a_guest_with_a_tick_and_one_that_spins_are_told_and_a_healthy_one_is_not";
    if !can_count(TEST) || !has_kvm(TEST) {
        return;
    }
    let turns = turns(Duration::from_millis(8));
    let ticks = floor("--hlt 1000000 --hlt-interval-ns 4000000");
    let spins = floor(&format!("--hlt 100000 --hlt-interval-ns 100000000 --hlt-spin {turns}"));
    let healthy = floor("--hlt 100000 --hlt-interval-ns 100000000");
    for floor in [&ticks, &spins, &healthy] {
        await_vcpu(floor);
    }
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", "all-vms", "--for", "3s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let mut explain = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    let findings = json(&explain.arg("explain").arg(out.path()).arg("--json").output().unwrap());
    let told = |floor: &Running| -> Vec<(String, String)> {
        let name = format!(":{},", floor.0.id());
        let of = findings["runs"][0]["findings"].as_array().unwrap().iter();
        let of = of.filter(|finding| finding["subject"].as_str().unwrap().contains(&name));
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        let told = of.map(|finding| (text(finding, "rule"), text(finding, "text")));
        told.filter(|(rule, _)| rule == "timer_tick" || rule == "spin_before_halt").collect()
    };
    let [(rule, text)] = &told(&ticks)[..] else { panic!("{findings:#}") };
    assert_eq!(rule, "timer_tick");
    assert!(text.contains("apic_timer_fn") && text.contains("the guest starts the timer"), "{text}");
    let [(rule, text)] = &told(&spins)[..] else { panic!("{findings:#}") };
    assert_eq!(rule, "spin_before_halt", "{text}");
    assert_eq!(told(&healthy), [], "{findings:#}");
}

#[test]
fn the_pages_of_a_guest_that_ran_before_are_counted_exactly() {
    const TEST: &str = "the_pages_of_a_guest_that_ran_before_are_counted_exactly";
    if !can_count(TEST) || !has_kvm(TEST) {
        return;
    }
    if sandscope::measure::memory::pages::pagemap::zero_frame().is_none() {
        return skip(TEST, "page frames", "needs CAP_SYS_ADMIN");
    }
    let options = ["--touch", "300", "--zeros", "200", "--equals", "100", "--uniques", "400", "--stay"];
    let mut child = Command::new(FLOOR).args(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let console = BufReader::new(child.stdout.take().unwrap());
    let floor = Running(child);
    assert!(console.lines().any(|line| line.unwrap().ends_with("done")), "the guest has written to its pages");
    let out = tempfile::tempdir().unwrap();
    let target = format!("pid:{}", floor.0.id());
    let output = sandscope(&["attach", &target, "--for", "200ms", "--pages", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    assert!(json(&output)["pages"]["paused_ns"].as_u64().unwrap() > 0);
    let rows = crate::common::dataset::rows(out.path(), "pages");
    let pages = |class: &str| -> i128 {
        let of = rows.iter().filter(|row| row.text("region") == "guest" && row.text("class") == class);
        of.map(|row| row.number("pages_count").unwrap()).sum()
    };
    assert_eq!((pages("zero"), pages("same_within")), (200, 100));
    // The guest has its image and its parameters besides.
    assert!((700..=708).contains(&pages("unique")), "{}", pages("unique"));
    assert_eq!(crate::common::dataset::rows(out.path(), "page_scans").len(), 1);
}

/// A control group of a test's own, in a hierarchy that this host has. Removed when it is dropped.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(name);
        std::fs::create_dir(&path).ok().map(|()| Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of a group a moment after its last process has ended.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_control_group_is_watched_with_all_that_is_in_it_and_nothing_else() {
    const TEST: &str = "a_control_group_is_watched_with_all_that_is_in_it_and_nothing_else";
    if !can_count(TEST) {
        return;
    }
    let name = format!("sandscope-test-{}", std::process::id());
    let Some(group) = Group::make(&name) else {
        return skip(TEST, "cgroup", "no hierarchy of control groups in which a group can be made");
    };
    let children = [20, 20, 20].map(|ms| Running(subject(&format!("sleep 100000 {ms}")).spawn().unwrap()));
    let mut inside: Vec<u64> = children[..2].iter().map(|child| child.0.id().into()).collect();
    inside.sort_unstable();
    for pid in &inside {
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", &format!("cgroup:/{name}"), "--for", "2s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let wakeups = float(&json(&output)[0]["wakeups_per_s"]);
    // Each of the two takes 20 ms and a little: a loaded host makes it fewer, never more.
    assert!((40.0..=101.0).contains(&wakeups), "{wakeups}");
    let rows = crate::common::dataset::rows(out.path(), "threads");
    let mut seen: Vec<i128> = rows.iter().filter_map(|row| row.number("tid")).collect();
    seen.sort_unstable();
    assert_eq!(seen, inside.iter().map(|&pid| pid.into()).collect::<Vec<i128>>());
    drop(children);
}

#[test]
fn a_qemu_that_ran_before_is_found_by_its_name() {
    const TEST: &str = "a_qemu_that_ran_before_is_found_by_its_name";
    if !can_count(TEST) || !has_kvm(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let elf = folder.path().join("floor.elf");
    assert!(Command::new(FLOOR).arg("--emit-elf").arg(&elf).status().unwrap().success());
    let name = format!("sandscope-test-{}", std::process::id());
    let machine = "microvm,x-option-roms=off,isa-serial=on,pit=off,pic=off,rtc=off";
    let started = Command::new("qemu-system-x86_64")
        .args(["-name", &format!("guest={name},debug-threads=on"), "-M", machine, "-accel", "kvm"])
        .args([
            "-cpu",
            "host,-arch-capabilities",
            "-m",
            "64",
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-serial",
            "stdio",
            "-no-reboot",
            "-append",
        ])
        .args(["hlt=100000 hlt_ns=20000000", "-kernel"])
        .arg(&elf)
        .stdout(Stdio::piped())
        .spawn();
    let mut qemu = match started {
        Ok(qemu) => Running(qemu),
        Err(error) => return skip(TEST, "qemu", format!("qemu-system-x86_64: {error}")),
    };
    let mut first = [0];
    let mut console = qemu.0.stdout.take().unwrap();
    std::io::Read::read_exact(&mut console, &mut first).expect("the guest writes to its console");
    let out = tempfile::tempdir().unwrap();
    let output = sandscope(&["attach", &format!("qemu:{name}"), "--for", "2s", "--json"], out.path());
    assert!(output.status.success(), "{output:?}");
    let summary = &json(&output)[0];
    let timer = guest_timer(summary).unwrap_or_else(|| panic!("{summary:#}"));
    assert!((20.0..=51.0).contains(&float(&timer["per_s"])), "{summary:#}");
}

#[test]
fn who_may_not_look_is_told_what_it_takes() {
    let child = Running(subject("sleep 1000 20").spawn().unwrap());
    let target = format!("pid:{}", child.0.id());
    let out = tempfile::tempdir().unwrap();
    let path = out.path().to_owned();
    // Capabilities are a thread's own, and what it starts has none that the thread may not hand on.
    let output = std::thread::spawn(move || {
        for capability in caps::all() {
            caps::drop(None, caps::CapSet::Bounding, capability).unwrap();
        }
        sandscope(&["attach", &target, "--for", "1s"], &path)
    });
    let output = output.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("attaching needs root, or CAP_BPF, CAP_PERFMON"), "{errors}");
    assert!(output.stdout.is_empty() && std::fs::read_dir(out.path()).unwrap().next().is_none());
}

#[test]
fn an_idle_process_costs_nothing_and_gvisors_wakeups_have_causes() {
    const TEST: &str = "an_idle_process_costs_nothing_and_gvisors_wakeups_have_causes";
    let workload = match workload_executable() {
        Ok(workload) if can_count(TEST) => workload,
        Ok(_) => return,
        Err(reason) => return skip(TEST, "workload", reason),
    };
    let sandboxes = match crate::common::bench::kind("gvisor") {
        Ok(_) => "process,gvisor",
        Err(reason) => {
            skip(TEST, "gvisor", reason);
            "process"
        }
    };
    let out = tempfile::tempdir().unwrap();
    let arguments = ["run", "idle", "--sandbox", sandboxes, "-n", "1", "--window", "3", "--settle", "1", "--json"];
    let mut arguments = arguments.to_vec();
    arguments.extend(["--workload", workload.to_str().unwrap()]);
    let output = sandscope(&arguments, out.path());
    assert!(output.status.success(), "{output:?}");
    for sandbox in json(&output)["sandboxes"].as_array().unwrap() {
        let window = &sandbox["typical"];
        let wakeups = float(&window["wakeups_per_s"]);
        // An address that no symbol covers is no name.
        let is_named = |cause: &&Value| {
            let detail = cause["detail"].as_str().unwrap();
            !detail.is_empty() && !detail.starts_with("0x")
        };
        let named = window["causes"].as_array().unwrap().iter().filter(is_named);
        let named: f64 = named.map(|cause| float(&cause["per_s"])).sum();
        assert!(named >= 0.95 * wakeups, "{sandbox:#}");
        assert_eq!(window["unrecorded_count"], 0);
        if sandbox["sandbox"] == "process" {
            assert!(wakeups < 20.0 && float(&window["cost"]["ratio"]) < 0.01, "{sandbox:#}");
        }
    }
}
