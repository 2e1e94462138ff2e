//! What people type, and how the answer gets back to them.
//!
//! Exit codes: 0 when everything asked for was done, 1 when something failed on the way, 2 when what was asked can't be done
//! (and nothing was started), 130 when the run was interrupted.

mod clean;
mod doctor;
mod privilege;
mod run;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Explains where a sandbox spends its time, its memory and its idle CPU.
#[derive(Parser)]
#[command(name = "sandscope", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sandscope doctor                                     what this host can do, and what to do about the rest
  sandscope run cold-start --sandbox available -n 10   profile a cold start in every sandbox that can run here
  sandscope schema                                     what the columns of the results mean")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment and write its results.
    #[command(subcommand)]
    Run(run::Experiment),
    /// Say what this host can do, with the evidence, and what to do about the rest.
    Doctor(doctor::Arguments),
    /// Remove what runs that were killed have left on this host.
    Clean,
    /// Print the documented schema of the results.
    Schema {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// A request that can't be fulfilled, however often it is tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadRequest(pub(crate) String);

/// A run that somebody ended early.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was measured until then is in the results")]
pub(crate) struct Interrupted;

/// Parses the command line, does what it says and tells how that went.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::WARN.into())
                .from_env_lossy(),
        )
        .init();
    match execute(arguments.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandscope: {error:#}");
            ExitCode::from(match () {
                () if error.is::<BadRequest>() => 2,
                () if error.is::<Interrupted>() => 130,
                () => 1,
            })
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(experiment) => run::execute(&experiment),
        Command::Doctor(arguments) => doctor::execute(&arguments),
        Command::Clean => clean::execute(),
        Command::Schema { json } => {
            if json {
                print(&format!("{:#}\n", sandscope::record::schema_json()))?;
            } else {
                print(&sandscope::record::schema_markdown())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "sandscope", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes to standard output, and says so when that fails.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
