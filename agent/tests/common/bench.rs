//! What the tests of sandboxes share: kinds, a run of the test's own, what an instance leaves behind, and waiting for it.

use sandscope::{
    sandbox::{
        Instance, Readiness, Resources, Sandbox, Specification, Support,
        kvm_floor::KvmFloor,
        network::Mode,
        run_dir::RunDirectory,
        vm::{
            Vm, Vmm,
            firecracker::{Firecracker, Mode as Start},
            guest,
            qemu::{Accelerator, Qemu},
        },
    },
    workload::Workload,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Longest wait for anything: a sandbox under the slowest emulation.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The workload that `cargo xtask workloads` builds.
pub fn workload_executable() -> Result<PathBuf, String> {
    let path = std::env::var_os("SANDSCOPE_WORKLOAD_RUST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/workloads/rust/app"), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(format!("no {}: `cargo xtask workloads` builds it", path.display())) }
}

/// The kind of this name, if this host can run it.
pub fn kind(name: &str) -> Result<Box<dyn Sandbox>, String> {
    let kind: Box<dyn Sandbox> = match name {
        "kvm-floor" => Box::new(KvmFloor {
            executable: Some(env!("CARGO_BIN_EXE_sandscope-kvm-floor").into()),
            ..KvmFloor::default()
        }),
        _ => {
            // The longest first: the others begin the same.
            let of = |vmm: &str| name.strip_prefix(vmm);
            if let Some(guest) = of("qemu-tcg-") {
                Box::new(virtual_machine(Qemu::by(Accelerator::Tcg), guest, "rust"))
            } else if let Some(guest) = of("qemu-") {
                Box::new(virtual_machine(Qemu::by(Accelerator::Kvm), guest, "rust"))
            } else if let Some(guest) = of("firecracker-restore-") {
                Box::new(virtual_machine(Firecracker::by(Start::Restore), guest, "rust"))
            } else if let Some(guest) = of("firecracker-") {
                Box::new(virtual_machine(Firecracker::by(Start::Boot), guest, "rust"))
            } else {
                sandscope::sandbox::find(name).unwrap()
            }
        }
    };
    match kind.support() {
        Support::Ok { .. } => Ok(kind),
        Support::Degraded { evidence, remedy } | Support::Unsupported { evidence, remedy } => {
            Err(format!("{evidence}: {remedy}"))
        }
    }
}

/// A guest with a workload in a VMM, with the images that were built beside this test.
pub fn virtual_machine<V: Vmm>(vmm: V, name: &str, workload: &str) -> Vm<V> {
    let guest = guest::ALL.into_iter().find(|guest| guest.name == name).unwrap();
    let folder = std::env::var_os("SANDSCOPE_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images"), PathBuf::from)
        .join(name);
    let there = |path: PathBuf| path.is_file().then_some(path);
    let mut machine = Vm::of(vmm, guest);
    machine.floor = Some(env!("CARGO_BIN_EXE_sandscope-kvm-floor").into());
    machine.kernel = there(folder.join("kernel"));
    machine.initrd = there(folder.join(workload).join("initrd"));
    machine.symbols = there(folder.join("symbols"));
    machine.data = there(folder.join("data"));
    machine
}

/// A run of the test's own, and the end of the callback that the agent holds.
pub struct Bench {
    _home: tempfile::TempDir,
    pub base: PathBuf,
    pub run: RunDirectory,
    pub callback: TcpListener,
}

impl Bench {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().canonicalize().unwrap().join("run");
        let run = RunDirectory::create(&base, "r1").unwrap();
        let callback = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        Self { _home: home, base, run, callback }
    }

    pub fn specification(&self, label: &str, executable: &Path) -> Specification {
        specification(&self.run, label, executable, self.callback.local_addr().unwrap().port())
    }

    pub fn leftovers(&self, label: &str) -> Vec<String> {
        leftovers(&self.base, label)
    }
}

pub fn specification(run: &RunDirectory, label: &str, executable: &Path, callback_port: u16) -> Specification {
    Specification {
        label: label.into(),
        directory: run.instance(label).unwrap(),
        workload: Workload::of_executable("rust", executable.into()),
        network: Mode::Private,
        resources: Resources::default(),
        callback_port,
    }
}

/// Everything on the host that names this instance or lies in its directory.
pub fn leftovers(base: &Path, label: &str) -> Vec<String> {
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
pub fn zombies() -> Vec<String> {
    let all = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    let own = procfs::process::Process::myself().unwrap().stat().unwrap();
    let zombies = all.filter(|stat| stat.ppid == own.pid && stat.state == 'Z' && stat.session != own.session);
    zombies.map(|stat| format!("{} {}", stat.pid, stat.comm)).collect()
}

/// Waits for the ready callback and answers it; returns the path that was requested.
pub fn await_callback(listener: &TcpListener, instance: &mut dyn Instance) -> String {
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
pub fn get(instance: &dyn Instance) -> String {
    let address = match instance.readiness() {
        Readiness::Callback { address } | Readiness::Line { address, .. } | Readiness::Launched { address } => address,
        Readiness::CallbackFrom { .. } | Readiness::Console { .. } => panic!("it has no address"),
    };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /hello HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// Waits until the instance is ready, and checks that it answers.
pub fn await_ready(listener: &TcpListener, label: &str, instance: &mut dyn Instance) {
    match instance.readiness() {
        Readiness::Callback { .. } => {
            assert_eq!(await_callback(listener, instance), format!("/ready/{label}"));
            let status = get(instance);
            assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        }
        Readiness::Launched { .. } => {
            let status = get(instance);
            assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        }
        Readiness::CallbackFrom { .. } | Readiness::Line { .. } => panic!("no test has such an instance"),
        Readiness::Console { .. } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let first = instance.console().first_byte();
            let first = runtime.block_on(async { tokio::time::timeout(PATIENCE, first).await.unwrap() });
            assert!(first.is_some(), "{}", await_failure(instance));
        }
    }
}

pub fn await_failure(instance: &mut dyn Instance) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(failure) = instance.failure() {
            return failure;
        }
        assert!(Instant::now() < deadline, "it goes on; console: {:?}", instance.console().last_lines(9));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Launches an instance and waits for its failure; returns that, and how long after the marker of the console it was told.
pub fn fails(bench: &Bench, label: &str, sandbox: &dyn Sandbox, marker: Option<&str>) -> (String, Option<Duration>) {
    let mut instance = sandbox.prepare(&bench.specification(label, Path::new("/unused"))).unwrap();
    instance.launch().unwrap();
    let failure = await_failure(&mut *instance);
    let now_ns = sandscope::host::clock::monotonic_ns();
    let reached = instance.console().reached();
    let since = marker.map(|marker| {
        let reached = reached.iter().find(|reached| reached.marker == marker);
        let reached = reached.unwrap_or_else(|| panic!("no {marker}: {failure}"));
        Duration::from_nanos(now_ns - reached.at_ns)
    });
    instance.stop().unwrap();
    assert_eq!(bench.leftovers(label), [""; 0]);
    (failure, since)
}

/// The floor's guest with other instructions at its entry.
pub fn floor_that_begins_with<V: Clone>(bench: &Bench, machine: &Vm<V>, code: &[u8]) -> Vm<V> {
    let image = bench.base.join("floor.elf");
    let written =
        Command::new(env!("CARGO_BIN_EXE_sandscope-kvm-floor")).arg("--emit-elf").arg(&image).status().unwrap();
    assert!(written.success());
    let mut content = fs::read(&image).unwrap();
    // Its first two instructions: cld, and a move to esp.
    let entry = content.windows(2).position(|window| window == [0xfc, 0xbc]).unwrap();
    content[entry..entry + code.len()].copy_from_slice(code);
    fs::write(&image, content).unwrap();
    Vm { kernel: Some(image), ..machine.clone() }
}
