//! `sandscope attach`: what something costs that runs already.

use super::{BadRequest, Interrupted, output::Output, print, privilege, run::interruption};
use crate::{
    correlate::Names,
    host::{clock::unix_ns, pid_namespace},
    probe::{Aggregate, Limits},
    record::{Dataset, Manifest, Outcome, tables},
    report::{memory::ContentReport, window::WindowReport},
    steady::{
        Attached, Content, ContentSummary, Found, GuestSymbols, SYNTAX, Target, Translators, Window, WindowSummary,
        summarise,
    },
};
use anyhow::{Context, Result};
use clap::Args;
use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// How often the screen is drawn anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// What to attach to, and for how long.
#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(value_parser = str::parse::<Target>, help = format!("What to watch: {SYNTAX}"))]
    target: Target,
    /// How long, such as 10s, 500ms or 2m.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    time: Duration,
    /// Show each second of it on the screen.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    output: Output,
    /// Look at the content of all its pages too, when the time is over; it stands still meanwhile.
    #[arg(long)]
    pages: bool,
    /// Let it go on while its pages are looked at: those that change meanwhile may be counted wrongly.
    #[arg(long, requires = "pages")]
    no_pause: bool,
    /// Symbols of the guest's kernel, an ELF file or a table such as System.map, for the addresses at which vCPUs leave it.
    #[arg(long, value_name = "FILE")]
    guest_symbols: Option<PathBuf>,
    /// Print the summary for machines.
    #[arg(long, conflicts_with = "live")]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("{other:?} is no unit of time: use ms, s, m or h")),
    };
    match digits.parse::<f64>().map(|number| number * unit) {
        Ok(seconds) if seconds > 0.0 && seconds <= 604_800.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a time above 0 and up to a week, such as 10s".to_owned()),
    }
}

/// Attaches.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    // Before any thread exists: capabilities are a thread's own.
    privilege::drop_unneeded();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(attach(arguments))
}

async fn attach(arguments: &Arguments) -> Result<ExitCode> {
    let bad = |error: anyhow::Error| BadRequest(format!("{error:#}"));
    let guest = arguments.guest_symbols.as_deref().map(GuestSymbols::read).transpose().map_err(bad)?;
    let found = arguments.target.find().await.map_err(bad)?;
    let aggregate = Aggregate::load(Limits::default()).map_err(|error| {
        // Inside of a pid namespace no privilege helps.
        let needs = match pid_namespace::check() {
            Ok(()) => ": attaching needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN",
            Err(_) => "",
        };
        BadRequest(format!("{error}{needs}; `sandscope doctor` says more"))
    })?;
    let mut manifest = Manifest::new("attach", 0);
    manifest.probes.available = true;
    manifest.probes.missing =
        aggregate.missing().iter().map(|missing| (missing.to_string(), missing.reason.clone())).collect();
    manifest.conditions =
        [("target", arguments.target.to_string()), ("for_s", arguments.time.as_secs_f64().to_string())]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
    let output = &arguments.output;
    let mut dataset = Dataset::create(output.directory(), Ulid::generate(), &manifest)
        .map_err(|error| BadRequest(error.to_string()))?;
    output.begin(dataset.run_id(), false).await?;
    Window::declare(&mut dataset)?;
    if arguments.pages {
        dataset.declare::<tables::Page>()?;
        dataset.declare::<tables::PageScan>()?;
    }
    let interrupted = interruption()?;
    let mut names = Names::of_running_kernel();
    let mut attached = Attached::to(found.clone(), aggregate)?;
    let deadline = Instant::now() + arguments.time;
    let (mut drawn, mut alive) = (0, true);
    let (mut next_look, mut next_drawing) = (Instant::now(), Instant::now() + INTERVAL);
    while alive && Instant::now() < deadline && !interrupted.is_cancelled() {
        let next = if arguments.live { next_look.min(next_drawing) } else { next_look };
        tokio::select! {
            () = tokio::time::sleep_until(deadline.min(next)) => {}
            () = interrupted.cancelled() => {}
        }
        if Instant::now() >= next_look {
            let (pause, is_alive) = attached.look()?;
            (next_look, alive) = (Instant::now() + pause, is_alive);
        }
        if arguments.live && Instant::now() >= next_drawing {
            drawn = draw(&mut attached, &mut names, guest.as_ref(), drawn)?;
            next_drawing += INTERVAL;
        }
    }
    let vanished = !alive || !attached.look()?.1;
    let mut summaries = Vec::new();
    for (position, window) in (0..).zip(attached.detach()?) {
        window.learn(&mut names);
        let with = Translators { names: &names, guest: guest.as_ref() };
        let id = instance_id(&dataset, position);
        window.append(&id, None, &with, &mut dataset)?;
        let summary = summarise(&window, &with);
        dataset.append(&id, [instance(position, &summary, vanished)])?;
        summaries.push(summary);
    }
    // After the window, which is about what the target does by itself.
    let content = if arguments.pages && !vanished && !interrupted.is_cancelled() {
        pages(&found, !arguments.no_pause, arguments.target.to_string(), &mut dataset, &interrupted).await?
    } else {
        None
    };
    dataset.flush().context("the results can't be written")?;
    let outcome = Outcome {
        finished_at_unix_ns: Some(unix_ns()),
        lost_events_count: summaries.first().map_or(0, |summary| summary.unrecorded_count),
        instances_count: u32::try_from(summaries.len()).unwrap_or(u32::MAX),
        failed_count: if vanished { 1 } else { 0 },
    };
    dataset.describe(&manifest, &outcome)?;
    if arguments.json {
        let text = match &content {
            Some(pages) => serde_json::to_string_pretty(&serde_json::json!({ "windows": summaries, "pages": pages }))?,
            None => serde_json::to_string_pretty(&summaries)?,
        };
        print(&format!("{text}\n"))?;
    } else {
        for summary in &summaries {
            print(&format!("{}\n", WindowReport(summary)))?;
        }
        if let Some(content) = &content {
            print(&format!("{}\n", ContentReport(content)))?;
        }
    }
    let place = output.end(dataset.run_id(), true, &interrupted).await?;
    if !arguments.json {
        print(&format!("Results: {place} (run {})\n", dataset.run_id()))?;
    }
    if interrupted.is_cancelled() {
        return Err(Interrupted.into());
    }
    for doubt in summaries.iter().flat_map(|summary| &summary.doubts) {
        eprintln!("sandscope: these figures can't be right: {doubt}");
    }
    if vanished {
        let seconds = summaries.first().map_or(0.0, |summary| summary.seconds);
        eprintln!(
            "sandscope: {} ended after {seconds:.1} s; what it did until then is in the results",
            arguments.target
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(if summaries.iter().all(|summary| summary.doubts.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks at the pages of the targets, and adds what is in them to the results; `None` when it was interrupted.
async fn pages(
    found: &[Found],
    hold: bool,
    name: String,
    dataset: &mut Dataset,
    interrupted: &CancellationToken,
) -> Result<Option<ContentSummary>> {
    let Some(content) = Content::of_targets(found, hold, interrupted).await? else { return Ok(None) };
    let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for target in 0..found.len() {
        let id = instance_id(dataset, target);
        dataset.append(&id, content.page_rows(target, count, false))?;
        if target + 1 == found.len() {
            dataset.append(&id, [content.scan_row(&name, count, false)])?;
        }
    }
    Ok(Some(content.summary(found.len())))
}

fn instance_id(dataset: &Dataset, position: impl std::fmt::Display) -> String {
    format!("{}-{position:05}", dataset.run_id())
}

/// Draws what happened since the last time, over what was drawn then; returns how many lines that is.
fn draw(attached: &mut Attached, names: &mut Names, guest: Option<&GuestSymbols>, drawn: usize) -> Result<usize> {
    let mut text = String::new();
    for window in attached.tick()? {
        window.learn(names);
        text.push_str(&WindowReport(&summarise(&window, &Translators { names, guest })).to_string());
    }
    if stdout().is_terminal() && drawn > 0 {
        // Up to the first line that was drawn, and nothing below.
        print(&format!("\x1b[{drawn}A\x1b[J"))?;
    }
    print(&text)?;
    Ok(text.lines().count())
}

fn instance(position: u32, summary: &WindowSummary, vanished: bool) -> tables::Instance {
    tables::Instance {
        experiment: "attach".to_owned(),
        variant: String::new(),
        repetition: 0,
        sandbox: summary.target.clone(),
        workload: "unknown".to_owned(),
        position,
        probes: true,
        ok: !vanished,
        error: vanished.then(|| "it ended while it was watched".to_owned()),
        wall_ns: None,
        launched_at_monotonic_ns: None,
        launched_at_unix_ns: None,
        cache: "asis".to_owned(),
        cache_pages_count: None,
        cache_resident_pages_count: None,
        network: "unknown".to_owned(),
        lost_events_count: summary.unrecorded_count,
        unattributed_ns: None,
        inferred_events_count: None,
        skipped_program_runs_count: None,
        conditions_json: "{}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "0s", "-1s", "10x", "s", "nan"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
