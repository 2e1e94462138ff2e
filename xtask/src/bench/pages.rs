//! How fast pages are looked at, and what memory that takes.

use super::median;
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Pages of the process that is looked at, nearly all of them unique: 256 MiB.
const PAGES: u32 = 65_536;
/// Memory for which that of the table is given.
const SHOWN_BYTES: f64 = (8_u64 << 30) as f64;

/// A process with memory of its own. Killed when it is dropped.
struct Subject {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Subject {
    fn start(program: &Path, kind: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["pages", kind, "1000", "1000", "1000", &(PAGES - 3000).to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("can't start {}", program.display()))?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).context("both ends were piped")?;
        let mut subject = Self { child, orders, answers: BufReader::new(answers) };
        let ready = subject.answer()?;
        ensure!(ready == "ready", "{} said {ready:?}, not that it is ready", program.display());
        Ok(subject)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Bytes per second that it copies and hashes of its own pages.
    fn limit(&mut self) -> Result<f64> {
        writeln!(self.orders, "limit")?;
        let answer = self.answer()?;
        answer.parse().with_context(|| format!("{answer:?} is no speed"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One round.
struct Round {
    limit: f64,
    speed: f64,
    table_share: f64,
    grown: f64,
}

/// Kinds of memory that are looked at: what they are called here, and by the process.
const KINDS: [(&str, &str); 2] =
    [("4 KiB, each by itself", "anonymous"), ("4 KiB in huge pages, as QEMU asks for", "huge")];

/// The section of the page.
///
/// # Errors
/// When a process can't be started or looked at.
pub(super) fn section(programs: &Path, rounds: u32) -> Result<String> {
    let program = programs.join("sandscope-test-subject");
    let mut text = format!(
        "## Looking at pages\n\nOf a process with {PAGES} pages, beside what that process itself copies and hashes of the same pages on one \
         core, measured before each round; medians.\n\n| pages | copied and hashed | at best | share |\n|---|---:|---:|---:|\n"
    );
    let mut memory = String::new();
    for (shown, kind) in KINDS {
        let mut subject = Subject::start(&program, kind)?;
        let rounds = (0..rounds).map(|_| look(&program, &mut subject)).collect::<Result<Vec<Round>>>()?;
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        writeln!(
            text,
            "| {shown} | {:.1} GB/s | {:.1} GB/s | {:.0} % |",
            of(|round| round.speed) / 1e9,
            of(|round| round.limit) / 1e9,
            of(|round| round.speed / round.limit) * 100.0,
        )?;
        memory = format!(
            "\nWhat is known of the pages of 8 GiB takes {:.0} MB; the analysis of such a process, with all that it does besides, took {:.0} \
             MB.\n",
            of(|round| round.table_share) * SHOWN_BYTES / 1e6,
            of(|round| round.grown) / 1e6,
        );
    }
    Ok(text + &memory)
}

fn look(program: &Path, subject: &mut Subject) -> Result<Round> {
    let limit = subject.limit()?;
    let output = Command::new(program).args(["scan", &subject.child.id().to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [speed, scanned, table, grown] = numbers[..] else {
        anyhow::bail!("{}: not what was measured: {text:?}", program.display());
    };
    Ok(Round { limit, speed, table_share: table / scanned, grown })
}
