//! A program executes itself, so that its start-up is paid several times.

use crate::{
    correlate::is_itself,
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight, starts},
    record::tables::Execution,
    report::units::{duration, percent},
    results::Error,
};
use std::collections::BTreeMap;

/// Part of a start that the executions after the first take.
const LEAST: f64 = 0.10;
/// Programs that are executed again and again by design: who executes a shell does not execute himself.
const OTHERS: [&str; 2] = ["sh", "bash"];

pub(super) struct SelfExec;

/// The executions of a program in one start.
#[derive(Default)]
struct Executed {
    /// How often.
    count: u64,
    /// Process that did so first.
    first_tgid: Option<u32>,
    /// What the others add to the critical path: their time, or where the first process did so again in place, its time until then.
    again_ns: u64,
    /// What they are called.
    commands: Vec<String>,
}

impl Rule for SelfExec {
    fn name(&self) -> &'static str {
        "self_exec"
    }

    fn about(&self) -> &'static str {
        "Starts in which one program is executed several times, which takes 10 % or more of them."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "executions"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let table = case.table::<Execution>()?;
        let mut findings = Vec::new();
        for (group, path) in starts::of(case)? {
            let explained = group.explained();
            let mut programs: BTreeMap<String, Executed> = BTreeMap::new();
            for instance in &explained {
                for (program, one) in of_start(table.of(instance)) {
                    let all = programs.entry(program).or_default();
                    all.count += one.count;
                    all.again_ns += one.again_ns;
                    if all.commands.is_empty() {
                        all.commands = one.commands;
                    }
                }
            }
            let starts = explained.len() as f64;
            let Some((program, executed)) = programs.into_iter().max_by_key(|(_, executed)| executed.again_ns) else {
                continue;
            };
            let (times, mean_ns) = (executed.count as f64 / starts, executed.again_ns as f64 / starts);
            if times < 1.5 || mean_ns < LEAST * path.mean_ns {
                continue;
            }
            let key = format!("sandbox={} program={program}, path_ns of all but one of a start", group.sandbox);
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "{program} is executed {times:.0} times per start (`{}`). Executions beside the one that goes on are on the critical path \
                     for {} ({}), and each of them loads the program and initialises its runtime and packages before it does anything",
                    executed.commands.join("`, `"),
                    duration(mean_ns),
                    percent(mean_ns / path.mean_ns)
                ),
                evidence: vec![Evidence::new("executions", key, Quantity::Ns(mean_ns))],
                next_step: "A runtime that does not execute itself (crun in place of runc), one process that creates and starts in place \
                            of two commands, or a smaller program. The table `executions` has each with its arguments."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

/// The programs of a start by name, with their executions in order of time.
fn of_start<'a>(rows: impl Iterator<Item = &'a Execution>) -> BTreeMap<String, Executed> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| row.start_ns);
    // What each process last executed, and its time on the path.
    let mut running: BTreeMap<u32, (String, u64)> = BTreeMap::new();
    let mut programs: BTreeMap<String, Executed> = BTreeMap::new();
    for row in rows {
        let itself = running.get(&row.tgid);
        let before = itself.or_else(|| running.get(row.parent_tgid.as_ref()?));
        let name = match (row.program.as_str(), before) {
            (program, Some((before, _))) if is_itself(program) => before.clone(),
            (program, _) => program.rsplit('/').next().unwrap_or_default().to_owned(),
        };
        // What the first process did until it executed itself in place was in vain.
        let in_vain_ns = itself.filter(|(before, _)| *before == name).map(|(_, path_ns)| *path_ns);
        running.insert(row.tgid, (name.clone(), row.path_ns));
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        let executed = programs.entry(name).or_default();
        if executed.count > 0 {
            let in_vain_ns = in_vain_ns.filter(|_| executed.first_tgid == Some(row.tgid));
            executed.again_ns += in_vain_ns.unwrap_or(row.path_ns);
        }
        executed.first_tgid.get_or_insert(row.tgid);
        executed.count += 1;
        executed.commands.push(first_words(&row.arguments));
    }
    programs
}

/// The beginning of a command line: what tells executions of a program apart is among the first words.
fn first_words(arguments: &str) -> String {
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let mut words = arguments.split(' ');
    let program = words.next().map(name).unwrap_or_default();
    // Neither an option nor a path, which is the value of one.
    words
        .find(|word| !word.starts_with('-') && !word.contains('/'))
        .map_or_else(|| program.clone(), |second| format!("{program} {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::testing::{Scene, execution};

    #[test]
    fn a_runtime_that_executes_itself_is_told_and_two_different_programs_are_not() {
        let told = |second: &str| {
            let mut scene = Scene::healthy();
            for id in scene.probed("runc") {
                let child = Execution { tgid: 11, parent_tgid: Some(10), ..execution(second, "runc init") };
                let again = Execution { path_ns: 5_000_000, start_ns: 2, ..child };
                scene.executions.push((id.clone(), execution("/usr/sbin/runc", "/usr/sbin/runc --root /a run")));
                scene.executions.push((id, again));
            }
            scene
        };
        // By the copy of itself that newer versions of runc make.
        assert_eq!(told("/dev/fd/6").diagnose().findings.len(), 1);
        let finding = told("/proc/self/exe").only_finding("self_exec");
        assert!(
            finding.text.starts_with("runc is executed 2 times per start (`runc run`, `runc init`)"),
            "{}",
            finding.text
        );
        assert!(finding.text.contains("on the critical path for 5.00 ms (19.5 %)"), "{}", finding.text);
        assert!(told("/app").diagnose().findings.is_empty());
    }

    #[test]
    fn what_a_program_did_until_it_executed_itself_in_place_is_what_that_costs() {
        let mut scene = Scene::healthy();
        for id in scene.probed("runc") {
            for (start_ns, path_ns) in [(1, 4_000_000), (2, 20_000_000)] {
                let row = Execution { tgid: 77, path_ns, start_ns, ..execution("/usr/bin/crun", "crun run") };
                scene.executions.push((id.clone(), row));
            }
        }
        let finding = scene.only_finding("self_exec");
        assert!(finding.text.contains("for 4.00 ms (15.6 %)"), "{}", finding.text);
    }
}
