//! Which processes targets are, tried on real ones: QEMU under the names that distributions give it, stand-ins that are called what VMMs
//! and the helpers of container engines are called, and a virtual machine of KVM that two processes have open.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, getpid, kill_process, pidfd_getfd, pidfd_open};
use sandscope::{
    steady::{Found, Target},
    testing::skip,
};
use std::{
    collections::BTreeSet,
    fs,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

fn find(target: &str) -> Result<Vec<Found>, String> {
    let target: Target = target.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(target.find()).map_err(|error| format!("{error:#}"))
}

/// The processes of a target that is one thing.
fn roots(target: &str) -> BTreeSet<i32> {
    let found = find(target).unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(found.len(), 1, "{target}: {found:?}");
    assert_eq!(found[0].name, target);
    found[0].members.roots.clone()
}

/// A shell that waits and lets itself be called anything: what is behind its script means nothing to it.
fn stand_in(program: &Path, called: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.arg0(called).args(["-c", "read line"]).args(arguments).stdin(Stdio::piped());
    let running = Running(command.spawn().unwrap());
    wait_until(|| {
        fs::read(format!("/proc/{}/cmdline", running.pid())).is_ok_and(|line| line.starts_with(called.as_bytes()))
    });
    running
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "that takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const FLOOR: &str = env!("CARGO_BIN_EXE_sandscope-kvm-floor");
const SHELL: &str = "/bin/sh";

fn qemu() -> Option<PathBuf> {
    let found = ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64"].map(PathBuf::from);
    found.into_iter().find(|path| path.is_file())
}

/// A QEMU without a machine, ready once it listens.
fn emulator(program: &Path, called: &str, socket: &Path, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.arg0(called).args(arguments).args(["-M", "none", "-accel", "tcg", "-display", "none", "-monitor", "none"]);
    command.args(["-nodefaults", "-qmp"]).arg(format!("unix:{},server=on,wait=off", socket.display()));
    // A copy looks for these beside itself.
    command.env("QEMU_MODULE_DIR", "/usr/lib/x86_64-linux-gnu/qemu");
    let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    wait_until(|| socket.exists());
    running
}

#[test]
fn qemu_is_found_under_every_name_that_it_has_in_the_field() {
    const TEST: &str = "qemu_is_found_under_every_name_that_it_has_in_the_field";
    let Some(qemu) = qemu() else { return skip(TEST, "qemu", "it is not installed") };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for link in ["qemu-kvm", "kvm"] {
        std::os::unix::fs::symlink(&qemu, at(link)).unwrap();
    }
    let renamed = at("hypervisor");
    fs::copy(&qemu, &renamed).unwrap();
    let unique = std::process::id();
    let name = |number: u32| format!("t{unique}-{number}");
    for (number, program, called, given, wanted) in [
        (1, &qemu, "qemu-system-x86_64", "guest={},debug-threads=on", "{}"),
        (2, &at("qemu-kvm"), "/usr/libexec/qemu-kvm", "{}", "{}"),
        (3, &at("kvm"), "/usr/bin/kvm", "{},debug-threads=on", "{}"),
        (4, &qemu, "vmm", "debug-threads=on,guest={},process=p", "{}"),
        (5, &renamed, "hypervisor", "{} a,,b", "{} a,b"),
        (6, &renamed, "qemu", "process=p,guest={} x", "{} x"),
    ] {
        let (given, wanted) = (given.replace("{}", &name(number)), wanted.replace("{}", &name(number)));
        let socket = at(&format!("{number}.sock"));
        let option = if number % 2 == 0 { "-name" } else { "--name" };
        let running = emulator(program, called, &socket, &[option, &given]);
        let alone = BTreeSet::from([running.pid()]);
        assert_eq!(roots(&format!("qemu:{wanted}")), alone);
        assert_eq!(roots(&format!("qemu:{}", running.pid())), alone);
        assert_eq!(roots(&format!("vm:{wanted}")), alone);
        // By its socket, also through a link of another name.
        let link = at(&format!("{number}.link"));
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        assert_eq!(roots(&format!("qemu:{}", link.display())), alone);
        let error = find(&format!("firecracker:{wanted}")).unwrap_err();
        assert!(error.contains("no firecracker process"), "{error}");
    }
    let (one, two) = (at("one.sock"), at("two.sock"));
    let twins = [one, two].map(|socket| emulator(&qemu, "qemu-system-x86_64", &socket, &["-name", &name(7)]));
    let error = find(&format!("qemu:{}", name(7))).unwrap_err();
    let error_of_none = find("qemu:nobody").unwrap_err();
    for twin in &twins {
        let shown = format!("pid:{} ({})", twin.pid(), name(7));
        assert!(error.contains("2 qemu-system processes match") && error.contains(&shown), "{error}");
        assert!(error_of_none.contains(&shown), "{error_of_none}");
        assert_eq!(roots(&format!("qemu:{}", twin.pid())), [twin.pid()].into());
    }
    // Without KVM it is a VM all the same.
    let all = find("all-vms").unwrap();
    assert!(twins.iter().all(|twin| all.iter().any(|vm| vm.members.roots.contains(&twin.pid()))), "{all:?}");
}

#[test]
fn other_vmms_are_found_by_name_socket_and_number() {
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name).display().to_string();
    let unique = std::process::id();
    let id = format!("t{unique}");
    for (called, arguments, wanted) in [
        ("/usr/bin/firecracker", vec!["--id".to_owned(), id.clone()], format!("firecracker:{id}")),
        (
            "firecracker-v1.12.0",
            vec![format!("--api-sock={}", socket(&format!("{id}-a.sock")))],
            format!("firecracker:{id}-a"),
        ),
        (
            "firecracker",
            vec!["--api-sock".to_owned(), socket(&format!("{id}-b.sock"))],
            format!("firecracker:{id}-b.sock"),
        ),
        (
            "cloud-hypervisor",
            vec!["--api-socket".to_owned(), format!("path={}", socket(&format!("{id}-c.sock")))],
            format!("cloud-hypervisor:{id}-c"),
        ),
        ("krunvm", vec!["start".to_owned(), id.clone()], "libkrun:krunvm".to_owned()),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let running = stand_in(Path::new(SHELL), called, &arguments);
        let kind = wanted.split(':').next().unwrap();
        assert_eq!(roots(&wanted), [running.pid()].into());
        assert_eq!(roots(&format!("{kind}:{}", running.pid())), [running.pid()].into());
        assert!(find(&format!("qemu:{}", running.pid())).is_err());
    }
    // Whoever starts one with the same words is none.
    let starter = stand_in(Path::new(SHELL), "jailer", &["--id", &id, "--exec-file", "/usr/bin/firecracker"]);
    let vmm = stand_in(Path::new(SHELL), "firecracker", &["--id", &id]);
    assert_ne!(starter.pid(), vmm.pid());
    assert_eq!(roots(&format!("firecracker:{id}")), [vmm.pid()].into());
}

#[test]
fn one_machine_of_kvm_in_two_processes_is_one_vm() {
    const TEST: &str = "one_machine_of_kvm_in_two_processes_is_one_vm";
    let kvm = match kvm_ioctls::Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return skip(TEST, "kvm", error),
    };
    let shared = kvm.create_vm().unwrap();
    let own = std::process::id().cast_signed();
    // As its input a child has what else would be closed when it executes.
    let itself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let copy = pidfd_getfd(&itself, shared.as_raw_fd(), PidfdGetfdFlags::empty()).unwrap();
    let helper = Running(Command::new("sleep").arg("60").stdin(Stdio::from(copy)).spawn().unwrap());
    let alone = Running(
        Command::new(FLOOR)
            .args(["--hlt", "100000", "--hlt-interval-ns", "20000000"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let has_vm = || find("vm:nobody").unwrap_err().contains(&format!("pid:{} ", alone.pid()));
    wait_until(has_vm);
    let vms = find("all-vms").unwrap();
    let with = |pid: i32| vms.iter().filter(|vm| vm.members.roots.contains(&pid)).collect::<Vec<_>>();
    assert_eq!(with(own).len(), 1, "{vms:?}");
    assert_eq!(with(own), with(helper.pid()));
    assert_ne!(with(own), with(alone.pid()), "has a machine of its own");
    assert!(with(own)[0].name.ends_with(&format!(":{own}")), "{vms:?}");
    assert!(roots(&format!("vm:{}", helper.pid())).is_superset(&[own, helper.pid()].into()));
}

#[test]
fn containers_are_found_by_who_looks_after_them() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let unique = std::process::id();
    let id = format!("{unique:064x}");
    for name in ["conmon", "containerd-shim-test-v1"] {
        fs::copy(fs::canonicalize(SHELL).unwrap(), at(name)).unwrap();
    }
    // Podman's: conmon, with the container as its child.
    let (script, pid_file) = (at("script"), at("pidfile"));
    fs::write(&script, format!("sleep 60 & echo $! > {}; wait\n", pid_file.display())).unwrap();
    let mut command = Command::new(at("conmon"));
    command.arg(&script).args(["--cid", &id, "--name", &format!("web{unique}"), "--container-pidfile"]).arg(&pid_file);
    let conmon = Running(command.spawn().unwrap());
    let written = || fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    wait_until(|| written().is_some());
    let container = written().unwrap();
    for wanted in [format!("web{unique}"), id.clone(), id[..63].to_owned()] {
        assert_eq!(roots(&format!("container:{wanted}")), [container].into());
    }
    // containerd's, wherever its state is: the shim works in the container's folder.
    let bundle = at("io.containerd.runtime.v2.task").join("default").join(format!("db{unique}"));
    fs::create_dir_all(&bundle).unwrap();
    let mut command = Command::new(at("containerd-shim-test-v1"));
    let shim = Running(command.args(["-c", "read line"]).current_dir(&bundle).stdin(Stdio::piped()).spawn().unwrap());
    fs::write(bundle.join("init.pid"), conmon.pid().to_string()).unwrap();
    let annotations = format!(r#"{{"annotations":{{"io.kubernetes.cri.container-name":"app{unique}"}}}}"#);
    fs::write(bundle.join("config.json"), annotations).unwrap();
    wait_until(|| {
        fs::read_link(format!("/proc/{}/exe", shim.pid())).is_ok_and(|path| path.ends_with("containerd-shim-test-v1"))
    });
    for wanted in [format!("db{unique}"), format!("default/db{unique}"), format!("app{unique}")] {
        assert_eq!(roots(&format!("container:{wanted}")), [conmon.pid()].into());
    }
    kill_process(Pid::from_raw(container).unwrap(), Signal::KILL).unwrap();
    let error = find("container:nobody-has-this").unwrap_err();
    for place in ["Docker", "Podman", "containerd in", "runtimes' state in", "control groups only for an id"] {
        assert!(error.contains(place), "{error}");
    }
}
