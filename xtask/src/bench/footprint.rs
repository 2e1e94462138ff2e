//! What the agent itself takes while it watches a hundred idle processes.

use super::{observer::Observer, victim::Victim};
use anyhow::{Context, Result};
use std::{fs, path::Path, time::Duration};

const SUBJECTS: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);
/// Of the times in `/proc/PID/stat`: `USER_HZ`, the same on all architectures of Linux today.
const TICKS_PER_SECOND: f64 = 100.0;

/// The section of the page.
///
/// # Errors
/// When the agent can't be started.
pub(super) fn section(programs: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let script = format!("for i in $(seq {SUBJECTS}); do sleep 60 & done; wait");
    let subjects = Victim::stopped("sh".as_ref(), &["-c", &script])?;
    let watching =
        Observer::Sandscope.start(&subjects, programs, ("", ""), folder.path())?.context("sandscope looks")?;
    super::victim::signal("CONT", subjects.pid())?;
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_seconds(watching.pid()).context("the agent has ended")?;
    std::thread::sleep(WINDOW);
    let after = cpu_seconds(watching.pid()).context("the agent has ended")?;
    let status = fs::read_to_string(format!("/proc/{}/status", watching.pid()))?;
    let memory =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|line| line.split_whitespace().next());
    let memory: f64 = memory.and_then(|kib| kib.parse().ok()).context("no VmHWM")?;
    let share = (after - before) / WINDOW.as_secs_f64() * 100.0;
    // Its children are ended with it: they are in its process group no more than in ours.
    for child in children(subjects.pid()) {
        super::victim::signal("KILL", child)?;
    }
    drop(watching);
    drop(subjects);
    Ok(format!(
        "## The agent itself\n\nWatching {SUBJECTS} idle processes: {share:.2} % of a CPU, {:.0} MiB of memory at its peak. \
         The counters are in arrays of the kernel, so no event can find a buffer full.\n",
        memory / 1024.0
    ))
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
