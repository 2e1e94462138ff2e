//! An object store of the test's own: the program of `xtask/object-store`, which xtask builds.

use super::PATIENCE;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};
use tempfile::TempDir;

const KEY: &str = "a-key";
const SECRET: &str = "a-secret";
/// The only bucket.
pub const BUCKET: &str = "results-bucket";

/// The server; it ends with the test.
pub struct Server {
    home: TempDir,
    child: Child,
    gate: ChildStdin,
    lines: Receiver<String>,
    address: String,
}

impl Server {
    /// Starts it, or reports that the test is skipped.
    pub fn start(test: &str) -> Option<Self> {
        const PROGRAM: &str = "SANDSCOPE_OBJECT_STORE";
        let Some(program) = std::env::var_os(PROGRAM) else {
            sandscope::testing::skip(
                test,
                "object-store",
                format!("{PROGRAM} names no program (`cargo xtask test` does)"),
            );
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(BUCKET)).unwrap();
        let mut command = Command::new(program);
        command.arg(home.path()).args([BUCKET, KEY, SECRET]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (gate, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let address = lines.recv_timeout(PATIENCE).unwrap();
        Some(Self { home, child, gate, lines, address })
    }

    /// Says what becomes of writes: see `xtask/object-store/src/main.rs`.
    pub fn set(&mut self, gate: &str) {
        writeln!(self.gate, "{gate}").unwrap();
        self.wait_for("ok");
    }

    /// Waits for a line of the server's.
    pub fn wait_for(&self, line: &str) {
        while self.lines.recv_timeout(PATIENCE).unwrap() != line {}
    }

    /// Tells a command how to reach it.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
    }

    /// Where the objects below a path of the bucket are.
    pub fn files(&self, path: &str) -> PathBuf {
        self.home.path().join(BUCKET).join(path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of all files below a folder, with another name instead of the run's, sorted. Those of the server's own are left out.
pub fn names(folder: &Path, run: &str) -> Vec<String> {
    let list = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
            .collect::<Vec<_>>()
    };
    let files = list(folder).into_iter().flat_map(|table| list(&table)).flat_map(|run| list(&run));
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap().to_string_lossy().replace(run, "RUN");
    let mut names: Vec<_> = files.map(name).collect();
    names.sort();
    names
}
