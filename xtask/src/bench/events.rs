//! Nanoseconds of each BPF program per event, by the kernel's own statistics, beside a program that does nothing.

use super::{
    observer::{Observer, READY, WITH_TRACEFS, Watching},
    victim::Victim,
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Turns the kernel's statistics on; turns them off when it is dropped, unless they were on before.
struct Statistics(String);

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("can't read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("can't write {SWITCH}"))?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.0.trim());
    }
}

/// Run time and runs of a program.
#[derive(Clone, Copy, Default)]
struct Cost {
    time_ns: u64,
    runs: u64,
}

impl Cost {
    fn per_run(self) -> Option<f64> {
        (self.runs > 0).then(|| self.time_ns as f64 / self.runs as f64)
    }

    fn plus(self, other: Self) -> Self {
        Self { time_ns: self.time_ns + other.time_ns, runs: self.runs + other.runs }
    }

    fn since(self, before: Self) -> Self {
        Self { time_ns: self.time_ns - before.time_ns, runs: self.runs - before.runs }
    }
}

/// What the kernel tells of a process's descriptors.
fn descriptors(pid: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim())
}

fn number(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

/// Costs of programs, by their numbers.
fn programs(descriptors: &[String]) -> BTreeMap<u64, Cost> {
    let cost = |text: &String| {
        let cost = Cost { time_ns: number(text, "run_time_ns")?, runs: number(text, "run_cnt")? };
        Some((number(text, "prog_id")?, cost))
    };
    descriptors.iter().filter_map(cost).collect()
}

/// Costs of the programs that a process has at raw tracepoints and others, by the event.
fn costs(pid: u32) -> BTreeMap<String, Cost> {
    let descriptors = descriptors(pid);
    let programs = programs(&descriptors);
    let at_event = |text: &String| {
        let event = field(text, "tp_name")?;
        Some((event.to_owned(), *programs.get(&number(text, "prog_id")?)?))
    };
    descriptors.iter().filter_map(at_event).collect()
}

/// Programs that do nothing, at the most frequent events of each part, for as long as it lives: what the host does besides meets
/// them as it meets the others.
struct Empty(Child);

impl Empty {
    fn start() -> Result<Self> {
        let mut script = "tracepoint:sched:sched_switch { } tracepoint:sched:sched_waking { }".to_owned();
        if Path::new("/dev/kvm").exists() {
            script += " tracepoint:kvm:kvm_userspace_exit { } tracepoint:kvm:kvm_fpu { }";
        }
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", WITH_TRACEFS, "bpftrace", "-e", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start bpftrace")?;
        std::thread::sleep(READY);
        Ok(Self(child))
    }

    /// All of them so far.
    fn cost(&self) -> Cost {
        programs(&descriptors(self.0.id())).values().fold(Cost::default(), |sum, cost| sum.plus(*cost))
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        // It may have ended.
        let _ = super::victim::signal("INT", self.0.id());
        let _ = self.0.wait();
    }
}

/// The section of the page.
///
/// # Errors
/// When the kernel's statistics can't be turned on, or a program can't be started.
pub(super) fn section(programs: &Path) -> Result<String> {
    let _statistics = Statistics::on()?;
    let folder = tempfile::tempdir()?;
    let empty = Empty::start()?;
    // Somebody who does nothing is in scope: what runs concerns the rest of the host, which switches as fast as it can.
    let sleeper = Victim::stopped("sleep".as_ref(), &["0"])?;
    let watching =
        Observer::Sandscope.start(&sleeper, programs, ("", ""), folder.path())?.context("sandscope looks")?;
    let storm = || Victim::stopped("perf".as_ref(), &["bench", "sched", "pipe", "-l", "100000"]);
    let outside = during(storm()?, &watching, &empty)?;
    drop(watching);
    let seen = |victim: Victim| {
        let watching: Watching =
            Observer::Sandscope.start(&victim, programs, ("", ""), folder.path())?.context("sandscope looks")?;
        during(victim, &watching, &empty)
    };
    // Nearly all of these events are the storm's own.
    let inside = seen(storm()?)?;
    let kvm = match Path::new("/dev/kvm").exists() {
        true => Some(seen(Victim::stopped(&programs.join("sandscope-kvm-floor"), &["--pio", "100000"])?)?),
        false => None,
    };
    let mut text = String::from(
        "## Nanoseconds per event\n\nBy the kernel's statistics of BPF programs (`kernel.bpf_stats_enabled`), the cost of \
         which is part of every figure. Beside each figure how many times as long that is as what programs took that did \
         nothing and ran at the same time.\n\n\
         | event | storm of others | | storm in scope | |\n|---|---:|---:|---:|---:|\n",
    );
    for (event, cost) in &outside.events {
        let own = if event.starts_with("kvm") { kvm.as_ref() } else { Some(&inside) };
        let cells = [outside.cell(*cost), own.and_then(|part| part.cell(*part.events.get(event)?))];
        if cells.iter().any(Option::is_some) {
            let [others, own] = cells.map(|cell| cell.unwrap_or_else(|| " | ".to_owned()));
            writeln!(text, "| `{event}` | {others} | {own} |")?;
        }
    }
    let nothing = |part: &Part| part.cell(part.empty).unwrap_or_else(|| " | ".to_owned());
    writeln!(text, "| nothing | {} | {} |", nothing(&outside), nothing(&inside))?;
    if let Some(kvm) = &kvm {
        writeln!(text, "| nothing, beside the exits |  |  | {} |", nothing(kvm))?;
    }
    Ok(text)
}

/// What ran while a victim did.
struct Part {
    events: BTreeMap<String, Cost>,
    empty: Cost,
}

impl Part {
    fn cell(&self, cost: Cost) -> Option<String> {
        let ns = cost.per_run()?;
        Some(format!("{ns:.0} ns | {:.1} ×", ns / self.empty.per_run()?))
    }
}

fn during(victim: Victim, watching: &Watching, empty: &Empty) -> Result<Part> {
    let (before, empty_before) = (costs(watching.pid()), empty.cost());
    let (sender, receiver) = std::sync::mpsc::channel();
    let pid = watching.pid();
    // The agent ends soon after its target, so the last reading must be before that.
    let reader = std::thread::spawn(move || {
        let mut last = BTreeMap::new();
        while receiver.recv_timeout(Duration::from_millis(20)).is_err() {
            let now = costs(pid);
            if !now.is_empty() {
                last = now;
            }
        }
        last
    });
    victim.run()?;
    let empty = empty.cost().since(empty_before);
    sender.send(()).context("the reader has ended")?;
    let last = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let since = |(event, cost): (String, Cost)| {
        let old = before.get(&event).copied().unwrap_or_default();
        (event, cost.since(old))
    };
    Ok(Part { events: last.into_iter().map(since).collect(), empty })
}
