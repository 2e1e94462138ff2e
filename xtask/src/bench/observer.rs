//! Who looks at a victim: sandscope, `perf record`, and a bpftrace script that counts and times the same events.

use super::victim::{Victim, signal};
use anyhow::{Context, Result};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Time that an observer gets until it looks.
pub(super) const READY: Duration = Duration::from_secs(4);

/// Tools look for tracefs in these places; a mount of our own is gone with them.
pub(super) const WITH_TRACEFS: &str = "mount -t tracefs nodev /sys/kernel/tracing; mount -t debugfs nodev /sys/kernel/debug; \
    mount -t tracefs nodev /sys/kernel/debug/tracing; exec \"$0\" \"$@\"";

/// An observer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Observer {
    /// Nobody.
    None,
    /// `sandscope attach`.
    Sandscope,
    /// `perf record`.
    Perf,
    /// A bpftrace script.
    Bpftrace,
}

impl Observer {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Sandscope, Self::Perf, Self::Bpftrace];

    /// As the table calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "nobody looks",
            Self::Sandscope => "`sandscope attach`",
            Self::Perf => "`perf record`",
            Self::Bpftrace => "bpftrace script",
        }
    }

    /// Begins to look at a victim, with the events of perf and the script of bpftrace.
    pub(super) fn start(
        self,
        victim: &Victim,
        programs: &Path,
        (events, script): (&str, &str),
        folder: &Path,
    ) -> Result<Option<Watching>> {
        let pid = victim.pid().to_string();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS]);
        match self {
            Self::None => return Ok(None),
            Self::Sandscope => command
                .arg(programs.join("sandscope"))
                .args(["attach", &format!("pid:{pid}"), "--for", "10m", "--out"])
                .arg(folder),
            Self::Perf => command
                .args(["perf", "record", "--quiet", "-e", events, "-p", &pid, "-o"])
                .arg(folder.join("perf.data")),
            Self::Bpftrace => command.args(["bpftrace", "-e", &script.replace("PID", &pid)]),
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("can't start the observer")?;
        std::thread::sleep(READY);
        Ok(Some(Watching(child)))
    }
}

/// An observer that looks. Ended when it is dropped.
pub(super) struct Watching(Child);

impl Watching {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended with its victim.
        let _ = signal("INT", self.0.id());
        let _ = self.0.wait();
    }
}
