//! What came out of a lab VM, and whether it is good.

use super::machines::Machines;
use anyhow::{Context, Result, ensure};
use lab_guest::{OUTCOME, Outcome, Plan};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// File of the results in which tests write what they skipped.
pub const SKIPS: &str = "skips.txt";

/// What a test may skip because the lab does not have it. Every other skip is a failure: the lab is where it should run.
const ELSEWHERE: [(&str, &str); 8] = [
    ("runc", "the lab has no container runtime"),
    ("gvisor", "the lab has no gVisor"),
    ("gvisor-ptrace", "the lab has no gVisor"),
    ("python", "the lab has no Python"),
    ("qemu", "the lab has QEMU inside for the test `machines` only"),
    ("go", "the lab has no compiler"),
    ("pace", "software emulation is too slow for it"),
    ("cpus", "a kernel of the lab has one CPU"),
];

/// Beginnings of the names of machines' features, and why the lab may not have such machines.
const MACHINES: [(&str, &str); 2] = [
    ("qemu-", "the lab has QEMU inside with --machines"),
    ("firecracker-", "the lab has Firecracker inside with --machines, if this machine has it"),
];

/// Unpacks the results from their disk, and returns how the steps went.
///
/// # Errors
/// When there are none or they are not complete: the machine did not come to its end.
pub fn unpack(disk: &Path, directory: &Path, plan: &Plan) -> Result<Outcome> {
    let mut file = File::open(disk)?;
    let mut magic = [0; 1];
    file.read_exact(&mut magic)?;
    ensure!(magic != [0], "the machine ended without results");
    file.seek(SeekFrom::Start(0))?;
    tar::Archive::new(file).unpack(directory).context("the results are damaged")?;
    let outcome = fs::read(directory.join(OUTCOME)).context("the results are not complete")?;
    let outcome: Outcome = serde_json::from_slice(&outcome).context("the results make no sense")?;
    ensure!(outcome.steps.len() == plan.steps.len(), "the machine has not run all steps");
    Ok(outcome)
}

/// How many tests there were.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Good.
    pub passed: u64,
    /// Bad.
    pub failed: u64,
    /// Of the good ones, those that did nothing because the lab lacks something.
    pub skipped: u64,
}

impl Count {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Reads the last line of a test program's output, such as `test result: ok. 3 passed; 0 failed; …`.
    fn of_output(output: &str) -> Self {
        let mut count = Self::default();
        for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            for part in line.split(['.', ';']) {
                match part.trim().split_once(' ') {
                    Some((number, "passed")) => count.passed += number.parse::<u64>().unwrap_or(0),
                    Some((number, "failed")) => count.failed += number.parse::<u64>().unwrap_or(0),
                    _ => {}
                }
            }
        }
        count
    }
}

/// How a kernel did.
#[derive(Debug, Default)]
pub struct Verdict {
    /// For people: what ran, how long, and what failures say.
    pub text: String,
    /// Its tests.
    pub count: Count,
    /// What is wrong, in a line each.
    pub wrong: Vec<String>,
}

/// Looks at the results of a kernel.
///
/// # Errors
/// When they can't be read.
pub fn judge(kernel: &str, directory: &Path, outcome: &Outcome, machines: Option<&Machines>) -> Result<Verdict> {
    let Verdict { mut text, mut count, mut wrong } = Verdict::default();
    for step in &outcome.steps {
        let file = directory.join(&step.name).with_added_extension("txt");
        let output = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let of_step = Count::of_output(&output);
        let seconds = step.time_ms as f64 / 1000.0;
        let tests = match of_step.passed + of_step.failed {
            0 => String::new(),
            tests => format!(", {tests} tests"),
        };
        writeln!(text, "  {:<14} {seconds:>5.1} s{tests}", step.name)?;
        count.add(&of_step);
        if let Some(failure) = &step.failure {
            writeln!(text, "{}", failed_part(&output))?;
            wrong.push(format!("{kernel}: {}: {failure} ({})", step.name, file.display()));
        }
    }
    let skips = directory.join(SKIPS);
    let skips = if skips.is_file() { fs::read_to_string(skips)? } else { String::new() };
    let is_there = |vmm: &str| machines.is_some_and(|machines| vmm == "qemu-" || machines.has_firecracker);
    let absent = MACHINES.iter().filter(|(vmm, _)| !is_there(vmm));
    let absent: Vec<_> = absent.collect();
    for (feature, lines) in by_feature(&skips) {
        count.skipped += lines.len() as u64;
        let known = ELSEWHERE.iter().find(|(known, _)| *known == feature);
        let known = known.or_else(|| absent.iter().copied().find(|(vmm, _)| feature.starts_with(vmm)));
        match known {
            Some((_, why)) => writeln!(text, "  {} skipped [{feature}]: {why}", lines.len())?,
            None => {
                let short = |line: &&str| line.chars().take(300).collect::<String>();
                wrong.extend(lines.iter().map(|line| format!("{kernel}: should run in the lab: {}", short(line))));
            }
        }
    }
    Ok(Verdict { text, count, wrong })
}

/// The lines `SKIP test [feature]: reason`, by feature.
fn by_feature(skips: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut features: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in skips.lines() {
        let feature =
            line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("?", |(feature, _)| feature);
        features.entry(feature).or_default().push(line);
    }
    features
}

/// What a test program says about its failures; the end of it for other programs.
fn failed_part(output: &str) -> &str {
    match output.find("\nfailures:\n") {
        Some(start) => &output[start..],
        None => {
            let lines = output.rmatch_indices('\n').nth(30).map_or(0, |(start, _)| start);
            &output[lines..]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted() {
        let output =
            "running 2 tests\ntest a ... ok\n\ntest result: FAILED. 11 passed; 2 failed; 0 ignored; finished in 0.1s\n";
        assert_eq!(Count::of_output(output), Count { passed: 11, failed: 2, skipped: 0 });
        assert_eq!(Count::of_output("no tests here"), Count::default());
    }

    #[test]
    fn skips_are_sorted_by_feature() {
        let features = by_feature("SKIP a [runc]: no\nSKIP b [kvm]: no\nSKIP c [runc]: no\n");
        assert_eq!(features["runc"].len(), 2);
        assert_eq!(features["kvm"], ["SKIP b [kvm]: no"]);
    }
}
