//! A workload under test: its process, its directory, what it prints.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// Longest time that a start, an end or a line of output may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How to start a workload.
#[derive(Clone)]
pub struct Program {
    executable: OsString,
    /// What precedes all other arguments: the script, if the executable interprets one.
    script: Option<PathBuf>,
    pub speed: Speed,
}

/// How fast a loop runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// A few machine instructions per operation, before the program starts or while it runs.
    Compiled,
    /// Hundreds of machine instructions per operation.
    Interpreted,
}

/// A program that has ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A server that listens. It is killed when dropped.
pub struct Server {
    pub port: u16,
    directory: TempDir,
    process: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    // Kept open: a closed standard output is a test of its own.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub fn compiled(path: &Path) -> Self {
        Self { executable: real(path).into(), script: None, speed: Speed::Compiled }
    }

    pub fn interpreted(interpreter: OsString, script: &Path, speed: Speed) -> Self {
        Self { executable: interpreter, script: Some(real(script)), speed }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(&self.script);
        command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it with arguments that should make it end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let output = timeout(PATIENCE, self.command(arguments).output()).await.expect("it should end").unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts a server without callback in an empty directory, which becomes its working directory.
    pub async fn serve(&self) -> Server {
        self.serve_with(&["ignore"]).await
    }

    /// Starts a server with these arguments and a port that is free.
    pub async fn serve_with(&self, arguments: &[&str]) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let mut process = self.command(arguments).args(["--port", "0"]).current_dir(directory.path()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        let line = next_line(&mut stdout).await;
        let port = line.strip_prefix("listening on 0.0.0.0:").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the first line should name the port: {line:?}"));
        Server { port, directory, process, stderr, _stdout: stdout }
    }
}

impl Server {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Gives it the static file that it expects without further arguments.
    pub fn write_static_file(&self, content: &[u8]) {
        fs::write(self.path("static_file"), content).unwrap();
    }

    pub fn pid(&self) -> rustix::process::Pid {
        let pid = self.process.id().expect("it has not been waited for");
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()
    }

    pub async fn next_line_of_stderr(&mut self) -> String {
        next_line(&mut self.stderr).await
    }

    pub async fn end(mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("it should end").unwrap()
    }

    /// Ends it, and returns all lines of standard error that were not read yet.
    pub async fn kill(mut self) -> String {
        self.process.kill().await.unwrap();
        let mut rest = String::new();
        self.stderr.into_inner().read_to_string(&mut rest).await.unwrap();
        rest
    }

    /// A value of `/proc/PID/status` that is given in kB, in bytes.
    pub fn memory_bytes(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// The tests start workloads in directories of their own, where a relative path would lead elsewhere.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A port that nobody listens on. It is not one of those that the kernel hands out, of which other tests take many.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests that run at the same time in another process begin elsewhere.
    let offset = (std::process::id() % 10_000) as u16;
    (0..1000)
        .map(|_| 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .expect("one of a thousand ports should be free")
}

async fn next_line(lines: &mut Lines<impl AsyncBufReadExt + Unpin>) -> String {
    timeout(PATIENCE, lines.next_line()).await.expect("a line should come").unwrap().expect("a line should come")
}
