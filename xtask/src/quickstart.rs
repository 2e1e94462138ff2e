//! The README's first command: from a clean checkout to an explained cold start in every kind of sandbox that the host can run.

use crate::{
    root::target,
    setup::{self, Purpose},
    workloads,
};
use anyhow::{Context, Result};
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// How much to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Instances of each kind of sandbox with probes, and as many without.
    #[arg(short = 'n', long, default_value_t = 10)]
    instances: u32,
    /// Where the results go.
    #[arg(long, default_value = "results")]
    out: PathBuf,
}

/// Does it.
///
/// # Errors
/// When something can't be installed, built or measured.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    setup::ensure(shell, Purpose::Run)?;
    eprintln!("building sandscope and its workloads (some minutes the first time)");
    cmd!(shell, "cargo build --locked --release --package sandscope").quiet().run()?;
    workloads::build(shell)?;
    let program = target().join("release/sandscope").display().to_string();
    let (instances, out) = (arguments.instances.to_string(), arguments.out.display().to_string());
    let command =
        ["run", "cold-start", "--sandbox", "available", "--workload", "rust", "-n", &instances, "--out", &out];
    setup::as_root(shell, &[&[program.as_str()], &command[..]].concat())
        .with_context(|| format!("the run failed; `{program} doctor` says what this host can do"))?;
    println!();
    let latest = format!("{out}@latest");
    cmd!(shell, "{program} explain {latest}").quiet().run().context("the results can't be explained")
}
