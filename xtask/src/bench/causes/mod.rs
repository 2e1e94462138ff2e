//! `cargo xtask bench causes`: would sandscope have said it? Scenes with a known cause, each beside the same without it, and what
//! `explain` says of both; gives `docs/causes.md`.
//!
//! ```text
//! scene ─► condition begins ─► sandscope run … ─► sandscope explain --json ─┐
//!      └─► the same without the cause ────────────────────────────────────┴─► named? how much, and how much is right?
//! ```

mod condition;
mod observed;
mod scene;

use crate::{
    root::{root, target},
    workloads,
};
use anyhow::{Context, Result};
use condition::Condition;
use observed::{Finding, Observed};
use scene::{Right, SCENES, Scene};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};

/// Starts or windows of a scene in one turn.
const TURNS: u32 = 3;

/// Runs all scenes, or those whose names have this word in them, with the programs in a folder.
///
/// # Errors
/// When the scenes can't be built, or one can't be run.
pub fn page(shell: &Shell, programs: &Path, only: Option<&str>) -> Result<String> {
    workloads::rust(shell)?;
    let folder = build(shell)?;
    let bench = Bench { programs, folder: &folder, results: tempfile::tempdir()? };
    let mut judged = Vec::new();
    for scene in SCENES.iter().filter(|scene| only.is_none_or(|word| scene.name.contains(word))) {
        println!("── {}", scene.name);
        let outcome = bench.judge(scene);
        match &outcome {
            Ok(judged) => println!("{}", judged.said),
            Err(error) => println!("{error:#}"),
        }
        judged.push((scene, outcome));
    }
    Ok(written(&judged))
}

/// Builds the workloads of the scenes, as small as those of sandboxes.
fn build(shell: &Shell) -> Result<PathBuf> {
    let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let configuration = root().join("workloads/rust/static.toml");
    cmd!(
        shell,
        "cargo build --quiet --locked --config {configuration} --profile workload --target {machine} --package scenes"
    )
    .env_remove("RUSTFLAGS")
    .run()?;
    Ok(target().join(machine).join("workload"))
}

struct Bench<'a> {
    programs: &'a Path,
    /// Of the scenes' workloads.
    folder: &'a Path,
    results: tempfile::TempDir,
}

/// What came of a scene.
struct Judged {
    /// The cause is named with everything that belongs to it.
    named: bool,
    /// What was said of it, or of what was looked for in vain.
    said: String,
    /// How much of it there was, as explain says and as is right.
    amounts: Option<(f64, f64)>,
    /// Rules that found something where the cause was not.
    false_findings: Vec<String>,
}

impl Bench<'_> {
    /// The scene and the same without its cause, in turns: a host that changes meanwhile changes both.
    fn judge(&self, scene: &Scene) -> Result<Judged> {
        let (mut with, mut without) = (Observed::default(), Observed::default());
        for turn in 0..2 {
            for is_with in if turn == 0 { [false, true] } else { [true, false] } {
                let (condition, workload) =
                    if is_with { (scene.condition, scene.workload) } else { (scene.without, scene.healthy) };
                let _condition = Condition::begin(condition, self.programs, self.folder)
                    .with_context(|| format!("{}: can't make its condition", scene.name))?;
                let arm = if is_with { "with" } else { "without" };
                let out = self.results.path().join(format!("{}-{arm}-{turn}", scene.name.replace(' ', "-")));
                let sandbox = scene.other_sandbox.filter(|_| !is_with).unwrap_or(scene.sandbox);
                let what = (sandbox, &*self.workload(workload));
                let observed = observed::observe(self.programs, scene, what, TURNS, &out)?;
                if is_with { &mut with } else { &mut without }.add(observed);
            }
        }
        let is_cause = |finding: &&Finding| finding.rule == scene.rule;
        let of_rule: Vec<&Finding> = with.findings.iter().filter(is_cause).collect();
        let whole = of_rule.iter().find(|finding| scene.names.iter().all(|name| finding.says(name)));
        let said = match whole.or(of_rule.first()) {
            // Where the scenes are built says nothing to others.
            Some(finding) => finding.text.replace(&*self.folder.to_string_lossy(), "…"),
            None => format!("nothing by the rule {}", scene.rule),
        };
        let amounts = match scene.right {
            Right::LongerBy => whole.and_then(|finding| {
                Some((finding.saves_ms().or_else(|| finding.first_ms())?, with.median_ms - without.median_ms))
            }),
            Right::PerSecond(right) => whole.and_then(|finding| Some((finding.per_second()?, right))),
            Right::Unknown => None,
        };
        // Where a healthy workload starts in a plain sandbox there is nothing at all to be found.
        let is_false =
            |finding: &&Finding| finding.rule == scene.rule || scene.is_plain() && finding.is_about_sandbox();
        let false_findings = without.findings.iter().filter(is_false).map(|finding| finding.rule.clone()).collect();
        Ok(Judged { named: whole.is_some(), said, amounts, false_findings })
    }

    /// What runs inside: one of the scenes, or a workload that comes with sandscope.
    fn workload(&self, name: &str) -> String {
        match name {
            "rust" | "go" | "node" | "python" => name.to_owned(),
            scene => self.folder.join(scene).display().to_string(),
        }
    }
}

/// The page.
fn written(judged: &[(&Scene, Result<Judged>)]) -> String {
    let mut rows = String::new();
    let mut sentences = String::new();
    let (mut named, mut asked, mut wrong) = (0, 0, 0);
    for (scene, outcome) in judged {
        match outcome {
            Ok(Judged { named: is_named, said, amounts, false_findings }) => {
                asked += 1;
                named += u32::from(*is_named);
                wrong += false_findings.len();
                let amounts = amounts.map_or(("–".to_owned(), "–".to_owned()), |(said, right)| {
                    (scene.right.written(said), scene.right.written(right))
                });
                let without = if false_findings.is_empty() { "nothing".to_owned() } else { false_findings.join(", ") };
                let _ = writeln!(
                    rows,
                    "| {} | {} | {} | {} | {} | {without} |",
                    scene.cause,
                    scene.where_to_look(),
                    if *is_named { "yes" } else { "no" },
                    amounts.0,
                    amounts.1
                );
                let _ = writeln!(sentences, "- **{}**: {said}", scene.cause);
            }
            Err(error) => {
                let error = format!("{error:#}").replace('\n', " ");
                let _ = writeln!(
                    rows,
                    "| {} | {} | unsupported: {error} | – | – | – |",
                    scene.cause,
                    scene.where_to_look()
                );
            }
        }
    }
    format!(
        "# Would it have said so? A bench of known causes\n\n\
         <!-- Written by `cargo xtask bench causes`; run it on your own machine. -->\n\n\
         Each scene has one cause that is known, because it is made on purpose or because it was found elsewhere by hand. It is run beside \
         the same without the cause, in turns. `named` says whether `sandscope explain` has a finding with the right rule that names the \
         thread, call, function, file or lock; the two columns after it are what explain says the cause costs, and what it does: by how \
         much the median start is longer with it, or what was planned. The last column has what the same rule, or in a plain sandbox any, found where \
         the cause was not.\n\n\
         **{named} of {asked} causes were named; false findings: {wrong}.**\n\n\
         | cause | where | named | explain says | right | found without it |\n|---|---|---|---:|---:|---|\n{rows}\n\
         ## What it said\n\n{sentences}"
    )
}

/// Writes the page, or prints it.
///
/// # Errors
/// When it can't be written.
pub fn keep(page: &str, dry_run: bool) -> Result<()> {
    if dry_run {
        print!("{page}");
        return Ok(());
    }
    let path = root().join("docs/causes.md");
    fs::write(&path, page).with_context(|| format!("can't write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
