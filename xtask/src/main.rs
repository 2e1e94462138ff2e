//! `cargo xtask`: everything that a person types besides the tool itself. CI calls these commands and adds none of its own.

#![allow(clippy::print_stdout, reason = "it speaks to the person who typed the command")]

mod bench;
mod cpio;
mod debian;
mod docker;
mod ebpf;
mod ext4;
mod images;
mod kernel;
mod lab;
mod quickstart;
mod root;
mod root_file_system;
mod setup;
mod test;
mod workloads;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xshell::Shell;

/// Sets up, builds, tests and shows sandscope.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up, build, profile a cold start in every kind of sandbox that this host can run, and print the result.
    Quickstart(quickstart::Arguments),
    /// Run all checks and tests, those in the lab VM included.
    Test(test::Arguments),
    /// Install what is missing to build, run and test sandscope; say what and why.
    Setup(setup::Arguments),
    /// Measure what looking costs, beside other tools, and write docs/cost.md.
    Bench(bench::Arguments),
    /// Rebuild the BPF objects that are committed, bit for bit.
    BuildEbpf(ebpf::Arguments),
    /// Build the workloads that run inside the sandboxes.
    Workloads,
    /// Run a command beside a Docker daemon that is there for it alone, and that it finds by DOCKER_HOST.
    Docker(docker::Arguments),
    /// Build the images that virtual machines boot from: a stock kernel, and an initial RAM disk with each workload.
    Images(images::Arguments),
    /// Boot stock kernels with real hardware-style KVM in software emulation, and test sandscope there.
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    forget_own_package();
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `cargo run` says of this package is not for the builds that are started here: build scripts that look at it would run again,
/// and half of the dependencies be compiled again, each time that somebody runs cargo and xtask in turn.
fn forget_own_package() {
    let names = std::env::vars_os().map(|(name, _)| name);
    let of_package = |name: &std::ffi::OsString| {
        name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    for name in names.filter(of_package).collect::<Vec<_>>() {
        // SAFETY: this is the only thread so far, so that nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(root::root());
    match command {
        Command::Quickstart(arguments) => quickstart::execute(&shell, &arguments),
        Command::Test(arguments) => test::execute(&shell, &arguments),
        Command::Setup(arguments) => setup::execute(&shell, &arguments),
        Command::Bench(arguments) => bench::execute(&shell, &arguments),
        Command::BuildEbpf(arguments) => ebpf::execute(&shell, &arguments),
        Command::Workloads => workloads::build(&shell),
        Command::Docker(arguments) => docker::execute(&shell, &arguments),
        Command::Images(arguments) => images::execute(&shell, &arguments),
        Command::Lab(arguments) => lab::execute(&arguments),
    }
}
