//! `sandscope-kvm-floor`: the smallest VMM and the smallest guest that are still a VMM and a guest.
//!
//! It is the floor that every microVM is compared with, and the ground truth of the KVM probes: the guest makes exactly
//! as many exits of each kind as the command line says. `docs/kvm-floor.md` lists them.

#[cfg(target_arch = "x86_64")]
mod floor;
mod options;

use anyhow::Context;
use options::Command;
use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

/// Exit status: the host can't run the floor.
const UNSUPPORTED: u8 = 1;
/// Exit status: the command line makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let result = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Floor(action)) => execute(action).and_then(|text| print(&text)),
        Err(error) => return failure(&error, USAGE),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&format!("{error:#}"), UNSUPPORTED),
    }
}

fn failure(message: &str, status: u8) -> ExitCode {
    eprintln!("sandscope-kvm-floor: {message}");
    ExitCode::from(status)
}

/// Prints a result. That its reader has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("can't write to stdout"),
        _ => Ok(()),
    }
}

#[cfg(target_arch = "x86_64")]
fn execute(action: options::Action) -> anyhow::Result<String> {
    floor::execute(action)
}

#[cfg(not(target_arch = "x86_64"))]
fn execute(_action: options::Action) -> anyhow::Result<String> {
    anyhow::bail!(
        "the guest of the floor is for x86-64 only, and this program was built for {}",
        std::env::consts::ARCH
    )
}
