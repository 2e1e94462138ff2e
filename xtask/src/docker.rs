//! A Docker daemon for the tests, with a containerd of its own: below `target/docker`, on a bridge of its own, without a firewall
//! rule. A daemon of the machine's stays as it is; one that the environment names by `DOCKER_HOST` is used instead.

use crate::{
    root::target,
    setup::{self, find, is_root},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use xshell::{Shell, cmd};

/// Names the daemon to whoever wants to use one.
const ENDPOINT: &str = "DOCKER_HOST";

/// How long the two programs may take to answer, and to end.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Longest path of a Unix socket that the kernel takes.
const SOCKET_PATH_BYTES: usize = 107;

/// Lines of a log that go into an error.
const SHOWN_LINES: usize = 15;

/// A bridge is named by this and the number of the process that made it.
const BRIDGE_PREFIX: &str = "tdocker";

/// Directories that the two programs make outside of ours, the inner ones first.
const ELSEWHERE: [&str; 4] = ["/run/containerd/s", "/run/containerd", "/run/docker/plugins", "/run/docker"];

/// A running daemon. Dropping it ends it, and removes all that it has made.
pub struct Daemon {
    directory: PathBuf,
    bridge: String,
    /// In the order in which they were started.
    programs: Vec<(&'static str, Child)>,
    /// Those of [`ELSEWHERE`] that were not there before.
    elsewhere: Vec<&'static str>,
    /// Held until the end: two daemons in one folder would fail.
    _lock: File,
}

/// What to run beside a daemon.
#[derive(clap::Args)]
pub struct Arguments {
    /// The command, which finds the daemon by DOCKER_HOST.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs a command beside a daemon.
///
/// # Errors
/// When the daemon does not come up, or the command fails.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    setup::ensure_program(shell, "dockerd")?;
    let daemon = start()?;
    if let Some((variable, endpoint)) = daemon.as_ref().map(Daemon::endpoint) {
        shell.set_var(variable, endpoint);
    }
    let [program, arguments @ ..] = &arguments.command[..] else { bail!("no command") };
    cmd!(shell, "{program} {arguments...}").quiet().run()?;
    Ok(())
}

/// Starts a daemon, unless the environment names one, or nobody but root could. `None`: what is there has to do.
///
/// # Errors
/// When it does not come up; quotes its log.
pub fn start() -> Result<Option<Daemon>> {
    if let Some(endpoint) = std::env::var_os(ENDPOINT) {
        println!("{ENDPOINT} is {}: that daemon is used", endpoint.display());
        return Ok(None);
    }
    if !is_root() {
        println!("not root: no Docker daemon is started");
        return Ok(None);
    }
    let mut daemon = Daemon::prepare()?;
    daemon.run()?;
    Ok(Some(daemon))
}

impl Daemon {
    /// Value of [`ENDPOINT`] for who wants to use it.
    pub fn endpoint(&self) -> (&'static str, String) {
        (ENDPOINT, format!("unix://{}", self.socket().display()))
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    fn containerd_socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Makes what the programs need, having removed what a killed run may have left.
    fn prepare() -> Result<Self> {
        let directory = target().join("docker");
        let lock = target().join("docker.lock");
        let file = File::create(&lock).with_context(|| format!("can't open {}", lock.display()))?;
        file.lock().with_context(|| format!("can't lock {}", lock.display()))?;
        remove_bridges_of_the_dead();
        // Its name is unique on the machine, on which others may test too.
        let bridge = format!("{BRIDGE_PREFIX}{}", std::process::id());
        let elsewhere = ELSEWHERE.into_iter().filter(|path| !Path::new(path).exists()).collect();
        let daemon = Self { directory, bridge, programs: Vec::new(), elsewhere, _lock: file };
        daemon.remove_files();
        fs::create_dir_all(&daemon.directory).with_context(|| format!("can't make {}", daemon.directory.display()))?;
        let longest = daemon.containerd_socket();
        ensure!(
            longest.as_os_str().len() <= SOCKET_PATH_BYTES,
            "{} is too long for a socket: check the project out to a shorter path",
            longest.display()
        );
        daemon.make_bridge()?;
        Ok(daemon)
    }

    fn make_bridge(&self) -> Result<()> {
        let name = &self.bridge;
        run("ip", &["link", "add", name, "type", "bridge"])?;
        // No router solicitations of the host's among the container's frames.
        match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("can't turn IPv6 off"),
            _ => (),
        }
        // Of the addresses set aside for measuring networks (RFC 2544).
        let address = format!("198.19.{}.1/24", std::process::id() % 256);
        run("ip", &["address", "add", &address, "dev", name])?;
        run("ip", &["link", "set", name, "up"])
    }

    fn run(&mut self) -> Result<()> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let containerd_socket = self.containerd_socket();
        fs::write(
            path("containerd.toml"),
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n\
                 [grpc]\naddress = {:?}\n",
                path("containerd"),
                path("containerd-state"),
                containerd_socket.display().to_string()
            ),
        )?;
        fs::write(path("daemon.json"), serde_json::to_vec(&configuration())?)?;
        let containerd = vec!["--config".to_owned(), path("containerd.toml")];
        let docker: Vec<String> = [
            ("config-file", path("daemon.json")),
            ("data-root", path("data")),
            ("exec-root", path("exec")),
            ("pidfile", path("docker.pid")),
            ("host", self.endpoint().1),
            ("containerd", containerd_socket.display().to_string()),
            ("bridge", self.bridge.clone()),
            // Host and container reach each other without them; neither shall be changed for a test.
            ("iptables", "false".to_owned()),
            ("ip6tables", "false".to_owned()),
            ("ip-forward", "false".to_owned()),
            ("ip-masq", "false".to_owned()),
            ("userland-proxy", "false".to_owned()),
        ]
        .into_iter()
        .map(|(option, value)| format!("--{option}={value}"))
        .collect();
        self.spawn("containerd", &containerd)?;
        self.await_answer("containerd", || UnixStream::connect(&containerd_socket).is_ok())?;
        self.spawn("dockerd", &docker)?;
        let socket = self.socket();
        self.await_answer("dockerd", || answers(&socket))
    }

    fn spawn(&mut self, name: &'static str, arguments: &[String]) -> Result<()> {
        let program = find(name).with_context(|| format!("there is no {name}; `cargo xtask setup` installs it"))?;
        let log = self.log(name);
        let file = File::create(&log).with_context(|| format!("can't make {}", log.display()))?;
        // Ends when this process does, whatever way that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        self.programs.push((name, child));
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn await_answer(&mut self, name: &'static str, answers: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !answers() {
            let ended = self.programs.last_mut().and_then(|(_, child)| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log(name)).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(SHOWN_LINES).collect();
                let lines: Vec<_> = lines.into_iter().rev().collect();
                bail!("{name} does not answer; the end of its log:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn remove_files(&self) {
        for mount in mounts_below(&self.directory) {
            note(run("umount", &["--lazy", &mount]));
        }
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                println!("can't remove {}: {error}", self.directory.display());
            }
            _ => (),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon ends its containers, for which it needs containerd.
        while let Some((name, mut child)) = self.programs.pop() {
            note(end(name, &mut child));
        }
        // One whose daemon was killed goes on.
        let socket = self.containerd_socket().display().to_string();
        for shim in processes_with("containerd-shim", &socket) {
            note(run("kill", &["-KILL", &shim.to_string()]));
        }
        note(run("ip", &["link", "delete", &self.bridge]));
        self.remove_files();
        for directory in &self.elsewhere {
            // One that is not empty is somebody else's by now.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Its runtimes, besides its own.
fn configuration() -> serde_json::Value {
    let mut runtimes = serde_json::Map::new();
    if let Some(runsc) = find("runsc") {
        // The network stack of the host's kernel: the older runsc, which Debian has, does not start with its own on newer
        // kernels, unless something is hidden from it, which a daemon can't do.
        let arguments = ["--platform=systrap", "--network=host"];
        runtimes.insert("runsc".to_owned(), serde_json::json!({ "path": runsc, "runtimeArgs": arguments }));
    }
    if let Some(crun) = find("crun") {
        runtimes.insert("crun".to_owned(), serde_json::json!({ "path": crun }));
    }
    serde_json::json!({ "runtimes": runtimes })
}

/// Whether a daemon answers there.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

fn end(name: &str, child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    run("kill", &["-TERM", &child.id().to_string()])?;
    let deadline = Instant::now() + STOP_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            println!("{name} did not end within {} s, and is killed", STOP_LIMIT.as_secs());
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Mount points below a folder, the last mounted first.
fn mounts_below(folder: &Path) -> Vec<String> {
    let below = format!("{}/", folder.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(&below)).map(str::to_owned).collect()
}

/// Removes the bridges of processes that were killed before they could do so.
fn remove_bridges_of_the_dead() {
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    for name in devices.filter_map(|device| device.file_name().into_string().ok()) {
        let maker = name.strip_prefix(BRIDGE_PREFIX).and_then(|number| number.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists()) {
            note(run("ip", &["link", "delete", &name]));
        }
    }
}

/// Numbers of the processes of this program that have this among their arguments.
fn processes_with(program: &str, argument: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let matches = |number: &u32| {
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.next().is_some_and(|first| first.contains(program)) && words.any(|word| word == argument)
    };
    numbers.filter(matches).collect()
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("can't start {program}"))?;
    ensure!(status.success(), "`{program} {}` ended with {status}", arguments.join(" "));
    Ok(())
}

/// Says what could not be cleaned up; the rest has to be, all the same.
fn note(result: Result<()>) {
    if let Err(error) = result {
        println!("the Docker daemon of the tests: {error:#}");
    }
}
