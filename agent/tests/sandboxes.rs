//! Every kind of sandbox for real: it starts, answers, and leaves nothing on the host, whatever way it ends.
//!
//! Needs root. What the host lacks is skipped aloud: `SKIP test [feature]: reason`, also appended to the file that
//! `SANDSCOPE_SKIP_LOG` names.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and reports on its standard output, helpers included"
)]

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandscope::{
    sandbox::{
        Instance, Readiness, Sandbox, Specification, Support, kvm_floor::KvmFloor, launcher::Launcher, network::Mode,
        run_dir, run_dir::RunDirectory,
    },
    workload::Workload,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
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

/// Longest wait for anything: a sandbox under the slowest emulation.
const PATIENCE: Duration = Duration::from_secs(60);

// ---- what a test needs ----------------------------------------------------------------------------------------------

/// Says that a test can't run here, and why.
fn skip(test: &str, feature: &str, reason: &str) {
    let line = format!("SKIP {test} [{feature}]: {reason}");
    println!("{line}");
    if let Some(path) = std::env::var_os("SANDSCOPE_SKIP_LOG") {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// The workload that `cargo xtask workloads` builds.
fn workload_executable() -> Result<PathBuf, String> {
    let path = std::env::var_os("SANDSCOPE_WORKLOAD_RUST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/workloads/rust/app"), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(format!("no {}: `cargo xtask workloads` builds it", path.display())) }
}

/// The kind of this name, if this host can run it.
fn kind(name: &str) -> Result<Box<dyn Sandbox>, String> {
    let kind: Box<dyn Sandbox> = match name {
        "kvm-floor" => Box::new(KvmFloor {
            executable: Some(env!("CARGO_BIN_EXE_sandscope-kvm-floor").into()),
            ..KvmFloor::default()
        }),
        _ => sandscope::sandbox::find(name).unwrap(),
    };
    match kind.support() {
        Support::Ok { .. } => Ok(kind),
        Support::Degraded { evidence, remedy } | Support::Unsupported { evidence, remedy } => {
            Err(format!("{evidence}: {remedy}"))
        }
    }
}

/// A run of the test's own, and the end of the callback that the agent holds.
struct Bench {
    _home: tempfile::TempDir,
    base: PathBuf,
    run: RunDirectory,
    callback: TcpListener,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().canonicalize().unwrap().join("run");
        let run = RunDirectory::create(&base, "r1").unwrap();
        let callback = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        Self { _home: home, base, run, callback }
    }

    fn specification(&self, label: &str, executable: &Path) -> Specification {
        specification(&self.run, label, executable, self.callback.local_addr().unwrap().port())
    }

    fn leftovers(&self, label: &str) -> Vec<String> {
        leftovers(&self.base, label)
    }
}

fn specification(run: &RunDirectory, label: &str, executable: &Path, callback_port: u16) -> Specification {
    Specification {
        label: label.into(),
        directory: run.instance(label).unwrap(),
        workload: Workload { name: "test".into(), executable: executable.into(), static_file: None, port: 8080 },
        network: Mode::Private,
        callback_port,
    }
}

/// Everything on the host that names this instance or lies in its directory.
fn leftovers(base: &Path, label: &str) -> Vec<String> {
    let directory = base.join("r1").join(label);
    let below = format!("{}/", directory.display());
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")));
    let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let cgroups = cgroups.map(|mount| Path::new(mount).join(format!("sandscope-{label}")));
    found.extend(cgroups.filter(|path| path.exists()).map(|path| format!("cgroup {}", path.display())));
    let interface = Path::new("/sys/class/net").join(format!("ss{label}"));
    if interface.exists() {
        found.push(format!("interface {}", interface.display()));
    }
    let (callback, mark) = (format!("/{label}\0"), format!("SANDSCOPE_INSTANCE={}\0", directory.display()));
    for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let read = |file| fs::read(process.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (arguments, environment) = (read("cmdline").unwrap_or_default(), read("environ").unwrap_or_default());
        if arguments.contains(&callback) || arguments.contains(&below) || environment.contains(&mark) {
            found.push(format!("process {} {}", process.display(), arguments.replace('\0', " ")));
        }
    }
    found.extend(directory.exists().then(|| "directory".into()));
    found
}

/// Zombies among the children of this process that it did not start itself, which are in sessions of their own.
fn zombies() -> Vec<String> {
    let all = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    let own = procfs::process::Process::myself().unwrap().stat().unwrap();
    let zombies = all.filter(|stat| stat.ppid == own.pid && stat.state == 'Z' && stat.session != own.session);
    zombies.map(|stat| format!("{} {}", stat.pid, stat.comm)).collect()
}

/// Waits for the ready callback and answers it; returns the path that was requested.
fn await_callback(listener: &TcpListener, instance: &mut dyn Instance) -> String {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
                return line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert_eq!(instance.failure(), None);
                assert!(Instant::now() < deadline, "no callback; console: {:?}", instance.console().last_lines(9));
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Asks the workload; returns the status line.
fn get(instance: &dyn Instance) -> String {
    let Readiness::Callback { address } = instance.readiness() else { panic!("it has no address") };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /hello HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// Waits until the instance is ready, and checks that it answers.
fn await_ready(listener: &TcpListener, label: &str, instance: &mut dyn Instance) {
    match instance.readiness() {
        Readiness::Callback { .. } => {
            assert_eq!(await_callback(listener, instance), format!("/{label}"));
            let status = get(instance);
            assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        }
        Readiness::Console => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let first = instance.console().first_byte();
            let first = runtime.block_on(async { tokio::time::timeout(PATIENCE, first).await.unwrap() });
            assert!(first.is_some(), "{}", await_failure(instance));
        }
    }
}

fn await_failure(instance: &mut dyn Instance) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(failure) = instance.failure() {
            return failure;
        }
        assert!(Instant::now() < deadline, "it goes on; console: {:?}", instance.console().last_lines(9));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A static ELF executable for this machine that writes `text` to its standard output, then again, or exits with status 3.
fn program(text: &str, forever: bool) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let length = u32::try_from(text.len()).unwrap();
    let (machine, code): (u16, Vec<u8>) = if cfg!(target_arch = "aarch64") {
        let tail =
            if forever { [0x17ff_fffb, 0xd503_201f, 0xd503_201f] } else { [0xd280_0ba8, 0xd280_0060, 0xd400_0001] };
        // x8 = write, x0 = 1, x1 = the text right behind these 8 instructions, x2 = its length, svc
        let write = [0xd280_0808, 0xd280_0020, 0x1000_00c1, 0xd280_0002 | length << 5, 0xd400_0001];
        (183, write.iter().chain(&tail).flat_map(|word: &u32| word.to_le_bytes()).collect())
    } else {
        // mov eax, 1; mov edi, 1; lea rsi, [rip + 19]; mov edx, length; syscall
        let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x8d, 0x35, 19, 0, 0, 0, 0xba];
        code.extend(length.to_le_bytes());
        code.extend([0x0f, 0x05]);
        if forever {
            // jmp to the beginning; nops
            code.extend([0xeb, 0xe6]);
            code.extend([0x90; 10]);
        } else {
            // mov eax, 60; mov edi, 3; syscall
            code.extend([0xb8, 60, 0, 0, 0, 0xbf, 3, 0, 0, 0, 0x0f, 0x05]);
        }
        (62, code)
    };
    let size = (HEADERS + code.len() + text.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Header: executable, machine, version, entry, program headers at 64, no sections, flags, sizes and counts.
    file.extend(2_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for value in [BASE + HEADERS as u64, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    // One segment: load all, readable and executable.
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for value in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    assert_eq!(file.len(), HEADERS);
    file.extend(code);
    file.extend(text.as_bytes());
    file
}

fn write_executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

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
        assert_eq!(instance.conditions()["rootfs"], how);
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
        write_executable(&path, &fs::read("/proc/self/exe").unwrap());
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
        write_executable(&path, &program("I give up\u{1b}[31m, sorry\n", false));
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
        write_executable(&path, &program(&"all work and no play ".repeat(2000), true));
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

/// Not a test: what [`killed_agents_are_cleaned_up_after`] starts and kills.
#[test]
#[ignore = "runs only as the victim of another test"]
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
    command.args(["--ignored", "--exact", "--nocapture", "victim"]).stdout(Stdio::piped()).stderr(Stdio::null());
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

#[test]
fn agents_killed_at_any_moment_are_cleaned_up_after() {
    need!("agents_killed_at_any_moment_are_cleaned_up_after", "workload", workload_executable());
    for name in ["runc", "gvisor"] {
        if let Err(reason) = kind(name) {
            skip("agents_killed_at_any_moment_are_cleaned_up_after", name, &reason);
            continue;
        }
        let mut found = 0;
        // From before the agent made anything until the sandbox is about to be up.
        for delay_ms in (0..150).step_by(6) {
            let home = tempfile::tempdir().unwrap();
            let base = home.path().canonicalize().unwrap().join("run");
            let label = format!("any{delay_ms}{}", &name[..1]);
            let mut victim = start_victim(&base, name, &label).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay_ms));
            victim.kill().unwrap();
            victim.wait().unwrap();
            found += leftovers(&base, &label).len();
            let cleaned = run_dir::clean(&base).unwrap();
            assert_eq!((cleaned.living, cleaned.failures), (Vec::new(), Vec::new()), "{name} after {delay_ms} ms");
            assert_eq!(leftovers(&base, &label), [""; 0], "{name} after {delay_ms} ms");
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
    ] {
        match kind(name) {
            Ok(_) => kill_and_clean(name, label),
            Err(reason) => skip("killed_agents_are_cleaned_up_after", name, &reason),
        }
    }
}
