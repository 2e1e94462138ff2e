//! Every kind of sandbox for real: it starts, answers, and leaves nothing on the host, whatever way it ends.
//!
//! Needs root. What the host lacks is skipped aloud: `SKIP test [feature]: reason`, also appended to the file that
//! `SANDSCOPE_SKIP_LOG` names.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and reports on its standard output, helpers included"
)]

mod common;

use common::bench::{
    Bench, PATIENCE, await_callback, await_failure, await_ready, get, kind, leftovers, specification,
    workload_executable, zombies,
};
use common::program::{printing, write_executable};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandscope::{
    sandbox::{Readiness, Sandbox, launcher::Launcher, network::Mode, run_dir, run_dir::RunDirectory},
    testing::skip,
};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            process::ExitStatusExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

// ---- what a test needs ----------------------------------------------------------------------------------------------

/// What the test needs, or a skip that says what is missing.
macro_rules! need {
    ($test:literal, $feature:expr, $what:expr) => {
        match $what {
            Ok(value) => value,
            Err(reason) => return skip($test, $feature, &reason),
        }
    };
}

// ---- an ordinary life -----------------------------------------------------------------------------------------------

fn live_and_leave_nothing(name: &str, label: &str, kind: &dyn Sandbox, executable: &Path) {
    let bench = Bench::new();
    let specification = bench.specification(label, executable);
    let began = Instant::now();
    let mut instance = kind.prepare(&specification).unwrap();
    let prepared = began.elapsed();
    assert!(instance.files().iter().all(|file| file.is_file()), "{:?}", instance.files());
    if let Some(network) = instance.network() {
        // The check for leftovers sees what there is.
        let found = bench.leftovers(label).join("\n");
        assert!(found.contains("mount") && found.contains("interface") && found.contains("directory"), "{found}");
        assert!(network.namespace_path.exists());
    }
    let began = Instant::now();
    instance.launch().unwrap();
    await_ready(&bench.callback, label, &mut *instance);
    let ready = began.elapsed();
    assert_eq!(instance.failure(), None);
    assert!(bench.leftovers(label).join("\n").contains("process"));
    let began = Instant::now();
    instance.stop().unwrap();
    println!("{name}: prepared in {prepared:?}, ready after {ready:?}, stopped in {:?}", began.elapsed());
    assert_eq!(bench.leftovers(label), [""; 0]);
    // Those of tests that run at the same time go with these; ours would stay.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !zombies().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", zombies());
        std::thread::sleep(Duration::from_millis(10));
    }
    instance.stop().unwrap();
    drop(instance);
    drop(bench.run);
    assert!(!bench.base.join("r1").exists());
}

#[test]
fn process_lives_and_leaves_nothing() {
    let kind = need!("process_lives_and_leaves_nothing", "process", kind("process"));
    let executable = need!("process_lives_and_leaves_nothing", "workload", workload_executable());
    live_and_leave_nothing("process", "life1", &*kind, &executable);
}

#[test]
fn runc_lives_and_leaves_nothing() {
    let kind = need!("runc_lives_and_leaves_nothing", "runc", kind("runc"));
    let executable = need!("runc_lives_and_leaves_nothing", "workload", workload_executable());
    live_and_leave_nothing("runc", "life2", &*kind, &executable);
}

#[test]
fn gvisor_lives_and_leaves_nothing() {
    let kind = need!("gvisor_lives_and_leaves_nothing", "gvisor", kind("gvisor"));
    let executable = need!("gvisor_lives_and_leaves_nothing", "workload", workload_executable());
    live_and_leave_nothing("gvisor", "life3", &*kind, &executable);
}

#[test]
fn gvisor_ptrace_lives_and_leaves_nothing() {
    let kind = need!("gvisor_ptrace_lives_and_leaves_nothing", "gvisor-ptrace", kind("gvisor-ptrace"));
    let executable = need!("gvisor_ptrace_lives_and_leaves_nothing", "workload", workload_executable());
    live_and_leave_nothing("gvisor-ptrace", "life4", &*kind, &executable);
}

#[test]
fn kvm_floor_lives_and_leaves_nothing() {
    let kind = need!("kvm_floor_lives_and_leaves_nothing", "kvm-floor", kind("kvm-floor"));
    live_and_leave_nothing("kvm-floor", "life5", &*kind, Path::new("/unused"));
}

#[test]
fn qemu_floor_lives_and_leaves_nothing() {
    let kind = need!("qemu_floor_lives_and_leaves_nothing", "qemu-floor", kind("qemu-floor"));
    live_and_leave_nothing("qemu-floor", "life6", &*kind, Path::new("/unused"));
}

#[test]
fn qemu_tcg_floor_lives_and_leaves_nothing() {
    let kind = need!("qemu_tcg_floor_lives_and_leaves_nothing", "qemu-tcg-floor", kind("qemu-tcg-floor"));
    live_and_leave_nothing("qemu-tcg-floor", "life7", &*kind, Path::new("/unused"));
}

#[test]
fn firecracker_floor_lives_and_leaves_nothing() {
    let kind = need!("firecracker_floor_lives_and_leaves_nothing", "firecracker-floor", kind("firecracker-floor"));
    live_and_leave_nothing("firecracker-floor", "life8", &*kind, Path::new("/unused"));
}

#[test]
fn two_instances_at_once_do_not_clash() {
    let kind = need!("two_instances_at_once_do_not_clash", "runc", kind("runc"));
    let executable = need!("two_instances_at_once_do_not_clash", "workload", workload_executable());
    let bench = Bench::new();
    let mut instances: Vec<_> = std::thread::scope(|scope| {
        let start = |label| {
            let specification = bench.specification(label, &executable);
            let kind = &kind;
            scope.spawn(move || (label, kind.prepare(&specification).unwrap()))
        };
        let threads = ["pair1", "pair2"].map(start);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let addresses: Vec<_> = instances.iter().map(|(_, instance)| instance.network().unwrap().sandbox_address).collect();
    assert_ne!(addresses[0], addresses[1]);
    for (label, instance) in &mut instances {
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut **instance);
    }
    let (_, mut first) = instances.remove(0);
    first.stop().unwrap();
    assert_eq!(bench.leftovers("pair1"), [""; 0]);
    let (label, mut second) = instances.remove(0);
    assert_eq!(second.failure(), None);
    assert!(get(&*second).starts_with("HTTP/1.1 200"));
    second.stop().unwrap();
    assert_eq!(bench.leftovers(label), [""; 0]);
}

#[test]
fn stopping_ends_processes_that_nobody_recorded() {
    let kind = need!("stopping_ends_processes_that_nobody_recorded", "process", kind("process"));
    let executable = need!("stopping_ends_processes_that_nobody_recorded", "workload", workload_executable());
    let bench = Bench::new();
    let mut instance = kind.prepare(&bench.specification("daemon", &executable)).unwrap();
    instance.launch().unwrap();
    await_ready(&bench.callback, "daemon", &mut *instance);
    // As a daemon that the workload started: no descendant of its process, no mark, but in its network namespace.
    let mut daemon = std::thread::scope(|scope| {
        let namespace = &instance.network().unwrap().namespace;
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            Command::new("sleep").arg("1000").env_clear().spawn().unwrap()
        };
        scope.spawn(enter).join().unwrap()
    });
    let mut other = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
    instance.stop().unwrap();
    assert_eq!(daemon.wait().unwrap().signal(), Some(9));
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(bench.leftovers("daemon"), [""; 0]);
}

#[test]
fn nothing_is_sent_before_the_sandbox_sends() {
    let kind = need!("nothing_is_sent_before_the_sandbox_sends", "process", kind("process"));
    let executable = need!("nothing_is_sent_before_the_sandbox_sends", "workload", workload_executable());
    let bench = Bench::new();
    let mut instance = kind.prepare(&bench.specification("quiet", &executable)).unwrap();
    let interface = instance.network().unwrap().host_interface.clone();
    let frames = || {
        let count = |name| {
            let path = format!("/sys/class/net/{interface}/statistics/{name}");
            fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
        };
        (count("rx_packets"), count("tx_packets"))
    };
    // Duplicate address detection and router solicitation, if there were any, come within the first seconds.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(frames(), (0, 0));
    instance.launch().unwrap();
    await_ready(&bench.callback, "quiet", &mut *instance);
    let (received, sent) = frames();
    assert!(received > 0 && sent > 0, "{received} {sent}");
    instance.stop().unwrap();
}

#[test]
fn the_bundle_shares_the_inode_of_the_workload() {
    let kind = need!("the_bundle_shares_the_inode_of_the_workload", "runc", kind("runc"));
    let executable = need!("the_bundle_shares_the_inode_of_the_workload", "workload", workload_executable());
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
    let bench = Bench::new();
    // On the same file system as the run directory, then on another.
    let near = bench.base.join("app");
    fs::copy(&executable, &near).unwrap();
    let far = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap().into_temp_path();
    fs::copy(&executable, &far).unwrap();
    for (label, path, how) in [("inode1", &*near, "hard link"), ("inode2", &far, "bind mount")] {
        let specification = bench.specification(label, path);
        let mut instance = kind.prepare(&specification).unwrap();
        assert_eq!(instance.conditions()["files"], how);
        assert_eq!(inode(&specification.directory.join("bundle/rootfs/app")), inode(path));
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut *instance);
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
        assert!(path.exists(), "the original is gone");
    }
    fs::remove_file(near).unwrap();
}

// ---- failures -------------------------------------------------------------------------------------------------------

#[test]
fn a_workload_that_can_not_be_one_is_refused_by_name() {
    let executable = need!("a_workload_that_can_not_be_one_is_refused_by_name", "workload", workload_executable());
    for name in ["process", "runc", "gvisor"] {
        let kind = match kind(name) {
            Ok(kind) => kind,
            Err(reason) => {
                skip("a_workload_that_can_not_be_one_is_refused_by_name", name, &reason);
                continue;
            }
        };
        let bench = Bench::new();
        let path = bench.base.join("the-workload");
        let mut number = 0;
        let mut refuse = |expected: &str| {
            number += 1;
            let label = format!("bad{}{number}", &name[..2]);
            let error = kind.prepare(&bench.specification(&label, &path)).err().unwrap();
            let error = format!("{error:#}");
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{name}: {error}");
            assert_eq!(bench.leftovers(&label), [""; 0]);
        };
        refuse("No such file");
        fs::copy(&executable, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        refuse("not executable");
        write_executable(&path, b"#!/bin/sh\necho no\n");
        refuse("no 64-bit ELF");
        let mut dynamic = printing("", false);
        // The type of its only segment: PT_INTERP in place of PT_LOAD.
        dynamic[64] = 3;
        write_executable(&path, &dynamic);
        refuse("linked dynamically");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_workload_that_breaks_between_preparing_and_launching_is_named() {
    let executable =
        need!("a_workload_that_breaks_between_preparing_and_launching_is_named", "workload", workload_executable());
    for (name, label) in [("process", "broken1"), ("runc", "broken2"), ("gvisor", "broken3")] {
        let kind = match kind(name) {
            Ok(kind) => kind,
            Err(reason) => {
                skip("a_workload_that_breaks_between_preparing_and_launching_is_named", name, &reason);
                continue;
            }
        };
        let bench = Bench::new();
        let path = bench.base.join("the-workload");
        fs::copy(&executable, &path).unwrap();
        let mut instance = kind.prepare(&bench.specification(label, &path)).unwrap();
        // The same inode, which the bundle shares.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = match instance.launch() {
            Ok(()) => await_failure(&mut *instance),
            Err(error) => format!("{error:#}"),
        };
        let named = if name == "process" { path.to_str().unwrap() } else { "/app" };
        assert!(error.contains(named) && error.to_lowercase().contains("permission denied"), "{name}: {error}");
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_workload_that_ends_at_once_is_quoted() {
    for (name, label) in [("process", "ends1"), ("runc", "ends2"), ("gvisor", "ends3"), ("gvisor-ptrace", "ends4")] {
        let kind = match kind(name) {
            Ok(kind) => kind,
            Err(reason) => {
                skip("a_workload_that_ends_at_once_is_quoted", name, &reason);
                continue;
            }
        };
        let bench = Bench::new();
        let path = bench.base.join("quitter");
        write_executable(&path, &printing("I give up\u{1b}[31m, sorry\n", false));
        let mut instance = kind.prepare(&bench.specification(label, &path)).unwrap();
        instance.launch().unwrap();
        let failure = await_failure(&mut *instance);
        assert!(failure.contains("exit status: 3"), "{name}: {failure}");
        assert!(failure.contains(r"I give up\u{1b}[31m, sorry"), "{name}: {failure}");
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn endless_output_is_drained_and_bounded() {
    for (name, label) in [("process", "flood1"), ("runc", "flood2"), ("gvisor", "flood3")] {
        let kind = match kind(name) {
            Ok(kind) => kind,
            Err(reason) => {
                skip("endless_output_is_drained_and_bounded", name, &reason);
                continue;
            }
        };
        let bench = Bench::new();
        let path = bench.base.join("flooder");
        write_executable(&path, &printing(&"all work and no play ".repeat(2000), true));
        let mut instance = kind.prepare(&bench.specification(label, &path)).unwrap();
        instance.launch().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Far more than a pipe holds: whoever does not drain it stops the workload.
        while instance.console().total_bytes() < 20_000_000 {
            assert_eq!(instance.failure(), None);
            assert!(Instant::now() < deadline, "{name} wrote {} bytes only", instance.console().total_bytes());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(instance.console().tail().len() <= sandscope::sandbox::console::TAIL_BYTES);
        assert!(instance.console().first_byte_ns().is_some());
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn in_the_hosts_network_a_busy_port_is_named_with_who_has_it() {
    // Needs no privileges, so it is not asked whether the kind is fully supported.
    let kind = sandscope::sandbox::find("process").unwrap();
    let executable =
        need!("in_the_hosts_network_a_busy_port_is_named_with_who_has_it", "workload", workload_executable());
    let bench = Bench::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let specification = |label| {
        let mut specification = bench.specification(label, &executable);
        specification.network = Mode::Host;
        specification.workload.port = port;
        specification
    };
    let error = kind.prepare(&specification("busy1")).err().unwrap().to_string();
    assert!(error.contains(&format!("port {port}")) && error.contains(&std::process::id().to_string()), "{error}");
    assert_eq!(bench.leftovers("busy1"), [""; 0]);

    drop(listener);
    let mut instance = kind.prepare(&specification("busy2")).unwrap();
    assert_eq!(instance.readiness(), Readiness::Callback { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) });
    instance.launch().unwrap();
    await_ready(&bench.callback, "busy2", &mut *instance);
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("busy2"), [""; 0]);
}

#[test]
fn every_container_kind_works_in_the_hosts_network() {
    let executable = need!("every_container_kind_works_in_the_hosts_network", "workload", workload_executable());
    for (name, label) in [("runc", "host1"), ("gvisor", "host2")] {
        let kind = match kind(name) {
            Ok(kind) => kind,
            Err(reason) => {
                skip("every_container_kind_works_in_the_hosts_network", name, &reason);
                continue;
            }
        };
        let bench = Bench::new();
        let mut specification = bench.specification(label, &executable);
        specification.network = Mode::Host;
        specification.workload.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut instance = kind.prepare(&specification).unwrap();
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut *instance);
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
    }
}

#[test]
fn a_label_that_can_not_name_things_is_refused() {
    for name in ["process", "runc", "gvisor", "kvm-floor"] {
        let Ok(kind) = kind(name) else { continue };
        let bench = Bench::new();
        let mut specification = bench.specification("fine", Path::new("/unused"));
        for label in ["", "elevenchars", "Upper", "a/b"] {
            specification.label = label.into();
            let error = kind.prepare(&specification).err().unwrap().to_string();
            assert!(error.contains("label"), "{error}");
        }
    }
}

// ---- ends that nobody planned ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_sandbox_dies_with_the_launcher_thread_and_not_before() {
    let kind = need!("a_sandbox_dies_with_the_launcher_thread_and_not_before", "process", kind("process"));
    let executable = need!("a_sandbox_dies_with_the_launcher_thread_and_not_before", "workload", workload_executable());
    let bench = Bench::new();
    let launcher = Launcher::spawn().unwrap();
    let mut instance = kind.prepare(&bench.specification("launcher", &executable)).unwrap();
    let launch = move || {
        let result = instance.launch();
        (instance, result)
    };
    let (mut instance, result) = launcher.run(launch).await.unwrap();
    result.unwrap();
    await_callback(&bench.callback, &mut *instance);
    assert_eq!(instance.failure(), None);
    drop(launcher);
    let failure = await_failure(&mut *instance);
    assert!(failure.contains("signal: 9"), "{failure}");
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("launcher"), [""; 0]);
}

/// What [`killed_agents_are_cleaned_up_after`] starts and kills; nothing unless that says with which sandbox.
#[test]
fn victim() {
    let Some(base) = std::env::var_os("SANDSCOPE_TEST_BASE").map(PathBuf::from) else {
        return;
    };
    let name = std::env::var("SANDSCOPE_TEST_KIND").unwrap();
    let label = std::env::var("SANDSCOPE_TEST_LABEL").unwrap();
    let executable = workload_executable().unwrap();
    let run = RunDirectory::create(&base, "r1").unwrap();
    let callback = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = callback.local_addr().unwrap().port();
    let mut instance = kind(&name).unwrap().prepare(&specification(&run, &label, &executable, port)).unwrap();
    instance.launch().unwrap();
    await_ready(&callback, &label, &mut *instance);
    // The line begins after what the test harness printed without an end.
    println!("\nup");
    std::thread::sleep(PATIENCE);
}

/// Starts this program again as an agent with a sandbox of this kind.
fn start_victim(base: &Path, name: &str, label: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "victim"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("SANDSCOPE_TEST_BASE", base).env("SANDSCOPE_TEST_KIND", name).env("SANDSCOPE_TEST_LABEL", label);
    command
}

fn kill_and_clean(name: &str, label: &str) {
    let home = tempfile::tempdir().unwrap();
    let base = home.path().canonicalize().unwrap().join("run");
    let mut victim = start_victim(&base, name, label).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "up"), "{name}: the victim did not get its sandbox up");

    let cleaned = run_dir::clean(&base).unwrap();
    assert_eq!((cleaned.living, cleaned.removed, cleaned.failures), (vec!["r1".into()], Vec::new(), Vec::new()));
    assert!(leftovers(&base, label).join("\n").contains("process"), "{name}: the living were not left alone");

    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(!leftovers(&base, label).is_empty(), "{name}: nothing to clean");
    let began = Instant::now();
    let cleaned = run_dir::clean(&base).unwrap();
    println!("{name}: cleaned in {:?}", began.elapsed());
    assert_eq!(
        (cleaned.living, cleaned.removed, cleaned.failures),
        (Vec::new(), vec!["r1".into()], Vec::new()),
        "{name}"
    );
    assert_eq!(leftovers(&base, label), [""; 0], "{name}");
    assert_eq!(run_dir::clean(&base).unwrap(), run_dir::Cleaned::default());
}

/// How long an agent takes until its sandbox is up.
fn time_of_a_start(name: &str, label: &str) -> Duration {
    let home = tempfile::tempdir().unwrap();
    let base = home.path().canonicalize().unwrap().join("run");
    let began = Instant::now();
    let mut victim = start_victim(&base, name, label).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "up"), "{name}: the victim did not get its sandbox up");
    let took = began.elapsed();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(run_dir::clean(&base).unwrap().failures, [""; 0], "{name}");
    took
}

#[test]
fn agents_killed_at_any_moment_are_cleaned_up_after() {
    need!("agents_killed_at_any_moment_are_cleaned_up_after", "workload", workload_executable());
    for name in ["runc", "gvisor"] {
        if let Err(reason) = kind(name) {
            skip("agents_killed_at_any_moment_are_cleaned_up_after", name, &reason);
            continue;
        }
        const KILLS: u32 = 25;
        let whole = time_of_a_start(name, &format!("all{}", &name[..1]));
        println!("{name}: up after {whole:?}");
        let mut found = 0;
        // From before the agent made anything until the sandbox is about to be up, however long that takes here.
        for number in 0..KILLS {
            let delay = whole * number / KILLS;
            let home = tempfile::tempdir().unwrap();
            let base = home.path().canonicalize().unwrap().join("run");
            let label = format!("any{number}{}", &name[..1]);
            let mut victim = start_victim(&base, name, &label).spawn().unwrap();
            std::thread::sleep(delay);
            victim.kill().unwrap();
            victim.wait().unwrap();
            found += leftovers(&base, &label).len();
            let cleaned = run_dir::clean(&base).unwrap();
            assert_eq!((cleaned.living, cleaned.failures), (Vec::new(), Vec::new()), "{name} after {delay:?}");
            assert_eq!(leftovers(&base, &label), [""; 0], "{name} after {delay:?}");
        }
        assert!(found > 0, "{name}: no agent got so far that there was something to clean");
    }
}

#[test]
fn killed_agents_are_cleaned_up_after() {
    need!("killed_agents_are_cleaned_up_after", "workload", workload_executable());
    for (name, label) in [
        ("process", "kill1"),
        ("runc", "kill2"),
        ("gvisor", "kill3"),
        ("gvisor-ptrace", "kill4"),
        ("kvm-floor", "kill5"),
        ("qemu-floor", "kill6"),
        ("qemu-tcg-floor", "kill7"),
        ("firecracker-floor", "kill8"),
    ] {
        match kind(name) {
            Ok(_) => kill_and_clean(name, label),
            Err(reason) => skip("killed_agents_are_cleaned_up_after", name, &reason),
        }
    }
}
