//! `sandscope export`: results in the formats of other people's viewers.

use super::{BadRequest, input::Input, print};
use crate::{
    export::{self, flamegraph, perfetto},
    results::Selection,
};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The formats.
#[derive(Subcommand)]
pub(crate) enum Format {
    /// A trace for the Perfetto viewer: every event of an instance on one time axis.
    #[command(after_help = "\
Examples:
  sandscope export perfetto results --out trace.pftrace          the latest run; open it at https://ui.perfetto.dev
  sandscope export perfetto results --instance 3 --out one.pftrace
  sandscope run cold-start --sandbox gvisor --timeline all …     writes the single events of every instance")]
    Perfetto(Perfetto),
    /// Where the time went as a flame graph (.svg), or as folded stacks for other tools.
    #[command(after_help = "\
Examples:
  sandscope export flamegraph results --out time.svg             all instances of the latest run, added up
  sandscope export flamegraph results --view threads --out threads.svg
  sandscope export flamegraph results | sort -k 2                folded stacks, nanoseconds")]
    Flamegraph(Flamegraph),
}

/// What of the results is meant.
#[derive(Args)]
struct What {
    /// Directory of results, or a folder in a bucket; `DIR@RUN` for one run, by the beginning of its identifier. The latest run without it.
    #[arg(value_name = "DIR[@RUN]")]
    results: Selection,
    /// The run, by the beginning of its identifier; the same as `DIR@RUN`.
    #[arg(long, conflicts_with = "instance")]
    run: Option<String>,
    /// One instance: its identifier, or its place in the order of the run. All of the run without it.
    #[arg(long)]
    instance: Option<String>,
}

impl What {
    fn open(&self) -> Result<Input> {
        let Selection { directory, run } = self.results.clone();
        let run = run.or_else(|| self.run.clone());
        // An identifier says itself in which run the instance is.
        let run = run.or_else(|| self.instance.is_none().then(|| "latest".to_owned()));
        Input::open(&Selection { directory, run })
    }
}

/// Where a trace goes.
#[derive(Args)]
pub(crate) struct Perfetto {
    #[command(flatten)]
    what: What,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// What is drawn, and where it goes.
#[derive(Args)]
pub(crate) struct Flamegraph {
    #[command(flatten)]
    what: What,
    /// What the stacks are made of.
    #[arg(long, value_enum, default_value_t = flamegraph::View::Account)]
    view: flamegraph::View,
    /// The file to write: a drawing if its name ends in .svg, folded stacks otherwise; to standard output without it.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Writes what was asked for.
pub(crate) fn execute(format: &Format) -> Result<ExitCode> {
    match format {
        Format::Perfetto(arguments) => write_trace(arguments)?,
        Format::Flamegraph(arguments) => write_flamegraph(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What can't be exported however often it is tried, and what failed on the way.
fn refused(error: export::Error) -> anyhow::Error {
    match error {
        export::Error::Write { .. } | export::Error::Draw(_) => error.into(),
        _ => BadRequest(error.to_string()).into(),
    }
}

fn write_trace(Perfetto { what, out }: &Perfetto) -> Result<()> {
    let results = what.open()?;
    let chosen = export::choose(&results, what.instance.as_deref()).map_err(refused)?;
    let exported = perfetto::trace(&chosen).map_err(refused)?;
    export::write_file(out, &exported.bytes).map_err(refused)?;
    let perfetto::Exported { bytes, instances, with_timeline } = exported;
    eprintln!(
        "sandscope: wrote {} ({:.1} MB): {instances} instances, {with_timeline} of them with their single events",
        out.display(),
        bytes.len() as f64 / 1e6
    );
    if with_timeline == 0 {
        eprintln!("sandscope: `sandscope run … --timeline first` (or all) with probes writes single events");
    }
    Ok(())
}

fn write_flamegraph(Flamegraph { what, view, out }: &Flamegraph) -> Result<()> {
    let results = what.open()?;
    let chosen = export::choose(&results, what.instance.as_deref()).map_err(refused)?;
    let stacks = flamegraph::stacks(&chosen, *view).map_err(refused)?;
    match out {
        Some(path) if path.extension().is_some_and(|extension| extension == "svg") => {
            let runs: Vec<_> = chosen.iter().map(|chosen| chosen.run.id()).collect();
            let drawing = flamegraph::svg(&stacks, &title(*view, &runs)).map_err(refused)?;
            write(path, &drawing)
        }
        Some(path) => write(path, flamegraph::folded(&stacks).as_bytes()),
        None => Ok(print(&flamegraph::folded(&stacks))?),
    }
}

fn title(view: flamegraph::View, runs: &[&str]) -> String {
    let what = match view {
        flamegraph::View::Account => "Where the wall time went",
        flamegraph::View::Threads => "What each thread did",
    };
    format!("{what}, run {}", runs.join(", "))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    export::write_file(path, content).map_err(refused)
}
