//! Programs that do one thing as fast as they can, so that what an observer adds to it shows.

use anyhow::{Context, Result, ensure};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that has not begun yet, so that observers find it before it does anything. Killed when it is dropped.
pub(super) struct Victim(Child);

impl Victim {
    /// Starts it, stopped before its first instruction.
    pub(super) fn stopped(program: &Path, arguments: &[&str]) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
            .arg(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start sh")?;
        let victim = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while state(victim.pid()) != Some('T') {
            ensure!(Instant::now() < deadline, "{} does not stop itself", program.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(victim)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it go; gives the time to its end.
    pub(super) fn run(mut self) -> Result<Duration> {
        let start = Instant::now();
        signal("CONT", self.pid())?;
        let status = self.0.wait()?;
        let time = start.elapsed();
        ensure!(status.success(), "the victim failed: {status}");
        Ok(time)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal.
pub(super) fn signal(name: &str, pid: u32) -> Result<()> {
    let status =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().context("can't run kill")?;
    ensure!(status.success(), "process {pid} takes no signal {name}");
    Ok(())
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
