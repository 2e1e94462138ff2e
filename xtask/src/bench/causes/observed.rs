//! What sandscope measured in a scene, and what it says of it.

use super::scene::{Experiment, Scene};
use crate::root::target;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    path::Path,
    process::{Command, Output},
};

/// Of one or several runs.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) findings: Vec<Finding>,
    /// From launch to response, the median; of several runs their mean.
    pub(super) median_ms: f64,
    runs: u32,
}

impl Observed {
    /// Takes in another run.
    pub(super) fn add(&mut self, other: Self) {
        let (own, others) = (f64::from(self.runs), f64::from(other.runs));
        self.median_ms = (self.median_ms * own + other.median_ms * others) / (own + others);
        self.runs += other.runs;
        self.findings.extend(other.findings);
    }
}

/// One sentence of `sandscope explain`, with the rows that show it.
#[derive(Debug, Deserialize)]
pub(super) struct Finding {
    pub(super) rule: String,
    subject: String,
    pub(super) text: String,
    evidence: Vec<Evidence>,
}

#[derive(Debug, Deserialize)]
struct Evidence {
    key: String,
    value: serde_json::Value,
}

impl Finding {
    /// Whether something is named in the sentence or in the rows that show it.
    pub(super) fn says(&self, word: &str) -> bool {
        self.text.contains(word) || self.evidence.iter().any(|row| row.key.contains(word))
    }

    /// Whether it is about what runs, and not about the host or the measurement.
    pub(super) fn is_about_sandbox(&self) -> bool {
        self.subject != "the host" && !["observer_effect", "lost_events"].contains(&self.rule.as_str())
    }

    /// What the start would take less without it, as the sentence has it.
    pub(super) fn saves_ms(&self) -> Option<f64> {
        let (_, rest) = self.text.split_once("without that it would take ")?;
        milliseconds(rest.split_once(" less")?.0)
    }

    /// What its first row has.
    pub(super) fn first_ms(&self) -> Option<f64> {
        Some(self.evidence.first()?.value.get("ns")?.as_f64()? / 1e6)
    }

    /// The rate in its sentence.
    pub(super) fn per_second(&self) -> Option<f64> {
        let before = ["times per second", "times a second", "per second", "/s"]
            .iter()
            .find_map(|unit| Some(self.text.split_once(unit)?.0.trim_end()))?;
        before.rsplit(' ').next()?.replace(',', "").parse().ok()
    }
}

/// A time as reports write it, such as `12.4 ms`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let scale = match unit {
        "s" => 1e3,
        "ms" => 1.0,
        "µs" | "us" => 1e-3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[derive(Deserialize)]
struct Explained {
    runs: Vec<ExplainedRun>,
}

#[derive(Deserialize)]
struct ExplainedRun {
    findings: Vec<Finding>,
}

/// Runs the scene's experiment with this sandbox and workload so often, and asks what it was.
pub(super) fn observe(
    programs: &Path,
    scene: &Scene,
    (sandbox, workload): (&str, &str),
    times: u32,
    out: &Path,
) -> Result<Observed> {
    let sandscope = || {
        let mut command = Command::new(programs.join("sandscope"));
        command.env("SANDSCOPE_WORKLOADS", target().join("workloads"));
        command
    };
    let mut run = sandscope();
    run.args(["run", scene.experiment.name(), "--json", "--sandbox", sandbox, "--workload", workload]);
    run.args(["-n", &times.to_string()]).args(scene.options).arg("--out").arg(out);
    if scene.experiment == Experiment::ColdStart {
        run.arg("--no-observer-effect");
    }
    let summary: serde_json::Value = serde_json::from_slice(&output(&mut run)?.stdout).context("no summary")?;
    let of_sandbox = &summary["sandboxes"][0];
    if of_sandbox["ok_count"].as_u64() != Some(times.into()) {
        bail!("{sandbox} did not start: {}", of_sandbox["first_error"]);
    }
    let explained = output(sandscope().args(["explain", "--json"]).arg(out))?;
    let explained: Explained = serde_json::from_slice(&explained.stdout).context("explain says no JSON")?;
    Ok(Observed {
        findings: explained.runs.into_iter().flat_map(|run| run.findings).collect(),
        median_ms: of_sandbox["wall_median_ns"].as_f64().unwrap_or(0.0) / 1e6,
        runs: 1,
    })
}

fn output(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
