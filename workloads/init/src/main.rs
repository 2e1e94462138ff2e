//! First process of the guest `linux`: makes the machine usable, runs one workload, and ends the machine with it.
//!
//! `init ADDRESS/PREFIX GATEWAY WORKLOAD-ARGUMENT…`: the kernel passes on what stands behind `--` on its command line. What the
//! image holds besides this program:
//!
//! | file | content |
//! |---|---|
//! | `/modules/order` | the kernel modules to load, a line each, with the bus (`pci` or `mmio`) if only that needs it |
//! | `/modules/NAME.ko` | the modules |
//! | `/command` | what is executed, a word on each line; the workload's arguments follow |
//!
//! The first disk, if there is one, holds the file that the workload serves: it is mounted on `/data`.
//!
//! The lines it prints are milestones for whoever reads the console. Whatever goes wrong is a line too, and the end of the
//! machine.

mod boot_timer;
mod network;

use rustix::{
    fs::sync,
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot},
};
use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// Where programs are looked for by the workload: as in a container.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What went wrong, for people.
type Problem = String;

fn main() {
    say("up");
    let Err(problem) = run();
    say(&format!("gives up: {problem}"));
    end();
}

/// Writes a line to the console.
fn say(line: &str) {
    // Without a console there is nobody to read it.
    let _ = writeln!(io::stdout(), "sandscope init: {line}");
}

/// Ends the machine: by a reset, which every VMM takes for its end.
fn end() {
    sync();
    if let Err(error) = reboot(RebootCommand::Restart) {
        say(&format!("can't reset the machine: {error}"));
    }
}

fn run() -> Result<Infallible, Problem> {
    for (kind, at, options) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devtmpfs", "/dev", None),
        ("tmpfs", "/tmp", Some(c"mode=1777")),
    ] {
        fs::create_dir_all(at).map_err(|error| format!("can't make {at}: {error}"))?;
        mount("none", at, kind, MountFlags::empty(), options)
            .map_err(|error| format!("can't mount {kind}: {error}"))?;
    }
    if let Err(problem) = boot_timer::signal() {
        // A figure less is no reason to end.
        say(&problem);
    }
    load_modules()?;
    mount_data()?;
    let mut arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let (Some(address), Some(gateway)) = (arguments.next(), arguments.next()) else {
        return Err("its arguments are ADDRESS/PREFIX GATEWAY and those of the workload".to_owned());
    };
    network::configure(&address, &gateway)?;
    start_workload(arguments)
}

fn load_modules() -> Result<(), Problem> {
    let order = fs::read_to_string("/modules/order").map_err(|error| format!("can't read /modules/order: {error}"))?;
    let has_pci = fs::read_dir("/sys/bus/pci/devices").is_ok_and(|mut devices| devices.next().is_some());
    let this_bus = if has_pci { "pci" } else { "mmio" };
    for line in order.lines() {
        let (name, bus) = line.split_once(' ').unwrap_or((line, this_bus));
        if bus != this_bus {
            continue;
        }
        let path = format!("/modules/{name}.ko");
        let file = File::open(&path).map_err(|error| format!("can't open {path}: {error}"))?;
        finit_module(file, c"", 0).map_err(|error| format!("can't load {path}: {error}"))?;
    }
    Ok(())
}

fn mount_data() -> Result<(), Problem> {
    const DISK: &str = "/dev/vda";
    const PLACE: &str = "/data";
    if !Path::new(DISK).exists() {
        return Ok(());
    }
    fs::create_dir_all(PLACE).map_err(|error| format!("can't make {PLACE}: {error}"))?;
    mount(DISK, PLACE, "ext4", MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID, None)
        .map_err(|error| format!("can't mount {DISK}: {error}"))
}

/// Runs the workload, and ends the machine when it ends.
fn start_workload(arguments: impl Iterator<Item = String>) -> Result<Infallible, Problem> {
    let command = fs::read_to_string("/command").map_err(|error| format!("can't read /command: {error}"))?;
    let mut words = command.lines();
    let program = words.next().ok_or("/command is empty")?;
    say(&format!("starts {program}"));
    let child = Command::new(program)
        .args(words)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir(Path::new("/"))
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("can't start {program}: {error}"))?;
    loop {
        // All orphans become children of the first process.
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid().cast_unsigned() == child.id() => {
                say(&format!("the workload ended with {}", ExitStatus::from_raw(status.as_raw())));
                end();
            }
            Ok(_) => {}
            Err(error) => return Err(format!("can't wait for the workload: {error}")),
        }
    }
}
