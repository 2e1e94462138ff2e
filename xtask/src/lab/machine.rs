//! The lab VM itself: QEMU's software emulation of a PC whose processors have AMD's virtualisation.
//!
//! Software emulation on purpose, also where the host has KVM: it is the same everywhere, and it emulates SVM, so that the stock
//! kernel inside has a real KVM with real exits whatever the host is.

use super::disk::Disk;
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often the end of the machine is looked for.
const INTERVAL: Duration = Duration::from_millis(50);
/// Lines of the console shown when something went wrong.
const LAST_LINES: usize = 40;

/// The processor, without one instruction: QEMU 7.2 sometimes gets the flags after CMPXCHG16B wrong, which the kernel executes
/// for each allocation; an interrupt at the wrong moment then ends in a double fault.
const CPU: &str = "max,cx16=off";

/// What the kernel is told.
const COMMAND_LINE: [&str; 8] = [
    "console=ttyS0",
    "loglevel=5",
    "rdinit=/init",
    // A kernel that can't go on ends the machine.
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    // Otherwise it takes the HPET's clock, whose every reading leaves the emulated code.
    "tsc=reliable",
    // Taking a program from a tracepoint waits for a grace period, and each test does so some thirty times.
    "rcupdate.rcu_expedited=1",
];

/// A machine that is ready to be started.
pub struct Machine<'a> {
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Its disks.
    pub disks: Vec<&'a Disk>,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// File that takes what comes from its serial line.
    pub console: PathBuf,
}

impl Machine<'_> {
    /// Runs it until it ends itself.
    ///
    /// # Errors
    /// When QEMU can't run, or the machine does not end in time and is killed.
    pub fn run(&self, timeout: Duration) -> Result<()> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", CPU, "-nodefaults", "-no-user-config"])
            // A reset is the end: `panic=-1` makes one of a panic at once, as the first process does when all is done.
            .args(["-display", "none", "-no-reboot"])
            .args(["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .args(["-append", &COMMAND_LINE.join(" ")])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()));
        for Disk { serial, file } in &self.disks {
            // What is on the disks matters only while both programs live.
            let drive = format!("if=none,format=raw,cache=unsafe,id={serial},file={}", file.display());
            let device = format!("virtio-blk-pci,drive={serial},serial={serial}");
            command.args(["-drive", &drive, "-device", &device]);
        }
        let errors = self.console.with_file_name("qemu.txt");
        let file = File::create(&errors).with_context(|| format!("can't make {}", errors.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut qemu = command.spawn().context("can't start qemu-system-x86_64 (package qemu-system-x86)")?;
        let deadline = Instant::now() + timeout;
        let status = loop {
            if let Some(status) = qemu.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                qemu.kill()?;
                qemu.wait()?;
                bail!("the machine did not end within {} s", timeout.as_secs());
            }
            sleep(INTERVAL);
        };
        if !status.success() {
            bail!("QEMU ended with {status}: {}", fs::read_to_string(&errors).unwrap_or_default());
        }
        Ok(())
    }

    /// The end of what came from the serial line.
    pub fn last_lines(&self) -> String {
        // Also called when there is no console yet.
        let console = fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<_> = console.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}
