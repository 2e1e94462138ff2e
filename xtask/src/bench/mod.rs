//! `cargo xtask bench`: what looking costs. Each part is a file that gives a section of `docs/cost.md`. `cargo xtask bench causes` asks
//! instead what it finds.

mod causes;
mod events;
mod footprint;
mod observer;
mod pages;
mod storms;
mod victim;

use crate::{
    root::{root, target},
    setup,
};
use anyhow::{Context, Result};
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// How thoroughly.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Runs of each victim with each observer, interleaved; the medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Folder with the programs to measure, such as `target/debug`; without it they are built with optimisation.
    #[arg(long, value_name = "FOLDER", global = true)]
    programs: Option<PathBuf>,
    /// Only print the page, leave the one in `docs` as it is.
    #[arg(long, global = true)]
    dry_run: bool,
}

/// What is asked instead.
#[derive(clap::Subcommand)]
enum What {
    /// Whether `explain` names causes that are known, and finds nothing where they are not; writes docs/causes.md.
    Causes {
        /// Only scenes whose name has this word in it; implies `--dry-run`.
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
    },
}

/// Measures, and writes the page.
///
/// # Errors
/// When a program can't be built or run.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    let programs = match &arguments.programs {
        Some(folder) => folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?,
        None => {
            cmd!(shell, "cargo build --quiet --locked --release --package sandscope").run()?;
            target().join("release")
        }
    };
    if let Some(What::Causes { only }) = &arguments.what {
        let page = causes::page(shell, &programs, only.as_deref())?;
        return causes::keep(&page, arguments.dry_run || only.is_some());
    }
    for name in ["perf", "bpftrace"] {
        setup::ensure_program(shell, name)?;
    }
    let sections = [
        events::section(&programs)?,
        storms::section(&programs, arguments.rounds)?,
        footprint::section(&programs)?,
        pages::section(&programs, arguments.rounds)?,
    ];
    let page = format!("{}\n{}", introduction(shell)?, sections.join("\n"));
    if arguments.dry_run {
        print!("{page}");
        return Ok(());
    }
    let path = root().join("docs/cost.md");
    std::fs::write(&path, page).with_context(|| format!("can't write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn introduction(shell: &Shell) -> Result<String> {
    let kernel = cmd!(shell, "uname -r").quiet().read()?;
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |m| m.1);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    Ok(format!(
        "# What looking costs\n\n\
         <!-- Written by `cargo xtask bench`; run it on your own machine. -->\n\n\
         Measured on Linux {kernel}, {cpus} CPUs ({model}), load average {load} at the start. Compare figures within a table: \
         all of a table's are from one run, interleaved where they are times.\n"
    ))
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
