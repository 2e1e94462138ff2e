//! What people type, and how the answer gets back to them.
//!
//! Exit codes: 0 when everything asked for was done, 1 when something failed on the way, 2 when what was asked can't be done
//! (and nothing was started), 130 when the run was interrupted.

mod attach;
mod clean;
mod compare;
mod doctor;
mod explain;
mod export;
mod input;
mod output;
mod privilege;
mod report;
mod run;
mod sandboxes;
mod upload;

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
  sandscope run experiments/quick.toml                 every experiment, in a few minutes
  sandscope explain results                            what the results show, and what to do next
  sandscope compare before after                       what became better or worse
  sandscope report results@latest --out report.html    the same run as a page to look at
  sandscope attach pid:1234 --for 30s                  what something costs that runs already, and what wakes it
  sandscope sandboxes                                  what can be profiled, and what each needs
  sandscope export perfetto results --out trace.pftrace   open a start in the viewer at ui.perfetto.dev
  sandscope schema                                     what the columns of the results mean")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment, or all that a file says, and write the results.
    Run(Box<run::Arguments>),
    /// Say what results show, in plain words: problems, explanations, the rows that show them, and what to do next.
    Explain(explain::Arguments),
    /// Compare two sets of results: what became better or worse, by how much, and how sure that is.
    Compare(compare::Arguments),
    /// Write one HTML page about results: figures, account, findings, manifest.
    Report(report::Arguments),
    /// Watch what runs already: what it costs, what wakes it, why its vCPUs leave the guest.
    #[command(after_help = "\
Examples:
  sandscope attach pid:1234 --for 30s
  sandscope attach container:web --live
  sandscope attach container:shop/web                  by pod and container, on a node of Kubernetes
  sandscope attach firecracker:vm1 --guest-symbols vmlinux
  sandscope attach firecracker:/run/vm1.sock
  sandscope attach vm:dev                              a VM of whatever kind
  sandscope attach all-vms --json > vms.json")]
    Attach(attach::Arguments),
    /// List the sandboxes, what each is, and whether it can run here.
    Sandboxes(sandboxes::Arguments),
    /// Say what this host can do, with the evidence, and what to do about the rest.
    Doctor(doctor::Arguments),
    /// Write results in the formats of other viewers: Perfetto traces, flame graphs.
    #[command(subcommand)]
    Export(export::Format),
    /// Copy results into a bucket: those that could not be uploaded when their run ended, and any others.
    Upload(upload::Arguments),
    /// Remove what runs that were killed have left on this host, and the images that were made for Docker.
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
pub fn main() -> ExitCode {
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
        Command::Run(arguments) => run::execute(&arguments),
        Command::Explain(arguments) => explain::execute(&arguments),
        Command::Compare(arguments) => compare::execute(&arguments),
        Command::Report(arguments) => report::execute(&arguments),
        Command::Attach(arguments) => attach::execute(&arguments),
        Command::Sandboxes(arguments) => sandboxes::execute(&arguments),
        Command::Export(format) => export::execute(&format),
        Command::Upload(arguments) => upload::execute(&arguments),
        Command::Doctor(arguments) => doctor::execute(&arguments),
        Command::Clean => clean::execute(),
        Command::Schema { json } => {
            if json {
                print(&format!("{:#}\n", crate::record::schema_json()))?;
            } else {
                print(&crate::record::schema_markdown())?;
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
