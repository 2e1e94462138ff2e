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
/// Pages of the one for which the memory is given that looking takes: 8 GiB.
const MANY_PAGES: u32 = 2_097_152;

/// A process with memory of its own. Killed when it is dropped.
struct Subject {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Subject {
    fn start(program: &Path, kind: &str, pages: u32) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["pages", kind, "1000", "1000", "1000", &(pages - 3000).to_string()]);
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

/// What `sandscope-test-subject scan` says.
struct Look {
    bytes_per_s: f64,
    scanned: f64,
    table: f64,
    grown: f64,
}

/// One round.
struct Round {
    limit: f64,
    look: Look,
    on_one_core: Look,
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
         core, measured before each round; medians. Looking starts a thread for each CPU, at most four; the last column is the same, held to \
         one CPU.\n\n| pages | one core at best | looked at | share | looked at by one core |\n|---|---:|---:|---:|---:|\n"
    );
    for (shown, kind) in KINDS {
        let mut subject = Subject::start(&program, kind, PAGES)?;
        let rounds = (0..rounds)
            .map(|_| {
                let limit = subject.limit()?;
                let on_one_core = look(Command::new("taskset").args(["--cpu-list", "0"]).arg(&program), &subject)?;
                Ok(Round { limit, look: look(&mut Command::new(&program), &subject)?, on_one_core })
            })
            .collect::<Result<Vec<Round>>>()?;
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        writeln!(
            text,
            "| {shown} | {:.1} GB/s | {:.1} GB/s | {:.0} % | {:.0} % |",
            of(|round| round.limit) / 1e9,
            of(|round| round.look.bytes_per_s) / 1e9,
            of(|round| round.look.bytes_per_s / round.limit) * 100.0,
            of(|round| round.on_one_core.bytes_per_s / round.limit) * 100.0,
        )?;
    }
    let subject = Subject::start(&program, "anonymous", MANY_PAGES).context("8 GiB of memory are needed")?;
    let Look { scanned, table, grown, .. } = look(&mut Command::new(&program), &subject)?;
    writeln!(
        text,
        "\nOf a process with {:.1} GiB: what is known of its pages takes {:.0} MB, and the program that looked at them grew by {:.0} MB.",
        scanned / f64::from(1 << 30),
        table / 1e6,
        grown / 1e6,
    )?;
    Ok(text)
}

/// Has all pages of the process looked at by a command that begins so.
fn look(command: &mut Command, subject: &Subject) -> Result<Look> {
    let output = command.args(["scan", &subject.child.id().to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [bytes_per_s, scanned, table, grown] = numbers[..] else {
        anyhow::bail!("{command:?}: not what was measured: {text:?}");
    };
    Ok(Look { bytes_per_s, scanned, table, grown })
}
