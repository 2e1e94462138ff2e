//! First process of the lab VM: makes the machine usable, runs the steps of the plan, sends the results out, ends the machine.
//!
//! Whatever goes wrong here ends the process, which makes the kernel panic, which ends the machine: the lab sees that the results
//! are missing and shows the console.

use anyhow::{Context, Result, bail};
use lab_guest::{Mount, OUTCOME, Outcome, PLAN, Plan, RESULTS, RESULTS_DISK, Step, StepOutcome};
use rustix::{
    fs::sync,
    mount::{MountFlags, mount},
    process::{Pid, Signal, WaitOptions, kill_process_group, wait},
    system::{RebootCommand, finit_module, reboot, uname},
};
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often the end of a step is looked for.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a disk may take to appear after its driver was loaded.
const DISK_PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    mount_kernel_filesystems()?;
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN)?).context("the plan makes no sense")?;
    for module in &plan.modules {
        let file = File::open(&module.file).with_context(|| module.file.clone())?;
        finit_module(file, &CString::new(module.parameters.as_str())?, 0)
            .with_context(|| format!("can't load {}", module.file))?;
    }
    for Mount { disk, at } in &plan.mounts {
        fs::create_dir_all(at)?;
        mount_at(&disk_device(disk)?, at, "ext4").with_context(|| format!("can't mount the disk {disk}"))?;
    }
    fs::create_dir_all(RESULTS)?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", "/bin").status()?;
    if !up.success() {
        bail!("the loopback device can't be brought up: {up}");
    }
    let mut steps = Vec::new();
    for step in &plan.steps {
        let began = Instant::now();
        let failure = run(step, &plan.environment).with_context(|| format!("step {}", step.name))?;
        let time_ms = u64::try_from(began.elapsed().as_millis())?;
        say(&format!("{}: {} after {time_ms} ms", step.name, failure.as_deref().unwrap_or("good")));
        steps.push(StepOutcome { name: step.name.clone(), failure, time_ms });
    }
    send(&Outcome { release: uname().release().to_string_lossy().into_owned(), steps })?;
    sync();
    reboot(RebootCommand::Restart).context("the machine can't be ended")?;
    Ok(())
}

/// Writes a line to the console.
fn say(line: &str) {
    // There is nobody to tell when the console is broken.
    let _ = writeln!(std::io::stderr(), "lab: {line}");
}

fn mount_at(device: &Path, at: &str, kind: &str) -> Result<()> {
    mount(device, at, kind, MountFlags::empty(), None)?;
    Ok(())
}

fn mount_kernel_filesystems() -> Result<()> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tmpfs", "/run"),
    ] {
        fs::create_dir_all(at)?;
        mount_at(Path::new("none"), at, kind).with_context(|| format!("can't mount {kind} at {at}"))?;
    }
    // In memory like all else. Not a mount of its own: the checkout whose programs are here may be below it.
    fs::create_dir_all("/tmp")?;
    Ok(())
}

/// Finds a disk by its serial number; its driver may still be at work.
fn disk_device(serial: &str) -> Result<PathBuf> {
    let deadline = Instant::now() + DISK_PATIENCE;
    loop {
        for disk in fs::read_dir("/sys/block")? {
            let disk = disk?;
            // Not every disk has one.
            let found = fs::read_to_string(disk.path().join("serial")).unwrap_or_default();
            let device = Path::new("/dev").join(disk.file_name());
            if found.trim() == serial && device.exists() {
                return Ok(device);
            }
        }
        if Instant::now() > deadline {
            bail!("there is no disk {serial}");
        }
        sleep(INTERVAL);
    }
}

/// Runs a step; says what is wrong with its end, if anything is.
fn run(step: &Step, environment: &[(String, String)]) -> Result<Option<String>> {
    let output = File::create(Path::new(RESULTS).join(&step.name).with_added_extension("txt"))?;
    let child = Command::new(&step.program)
        .args(&step.arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn();
    let child = match child {
        Ok(child) => Pid::from_child(&child),
        Err(error) => return Ok(Some(format!("{} can't be started: {error}", step.program))),
    };
    let deadline = Instant::now() + Duration::from_secs(step.timeout_s);
    let mut timed_out = false;
    loop {
        // The first process inherits the orphans of all others, and must wait for them too.
        while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
            if pid == child {
                let status = std::os::unix::process::ExitStatusExt::from_raw(status.as_raw());
                return Ok(describe(status, timed_out.then_some(step.timeout_s)));
            }
        }
        if Instant::now() > deadline && !timed_out {
            timed_out = true;
            kill_process_group(child, Signal::KILL)?;
        }
        sleep(INTERVAL);
    }
}

fn describe(status: ExitStatus, timeout_s: Option<u64>) -> Option<String> {
    match timeout_s {
        Some(seconds) => Some(format!("not done within {seconds} s")),
        None if status.success() => None,
        None => Some(status.to_string()),
    }
}

/// Writes the results to their disk.
fn send(outcome: &Outcome) -> Result<()> {
    let device = disk_device(RESULTS_DISK)?;
    let disk = OpenOptions::new().write(true).open(&device).with_context(|| device.display().to_string())?;
    let mut archive = tar::Builder::new(disk);
    archive.append_dir_all(".", RESULTS).context("the results do not fit on their disk")?;
    let outcome = serde_json::to_vec_pretty(outcome)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(outcome.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, OUTCOME, outcome.as_slice()).context("the results do not fit on their disk")?;
    archive.into_inner()?.sync_all()?;
    Ok(())
}
