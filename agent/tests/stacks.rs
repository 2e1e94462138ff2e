//! Stacks of own code: a program whose functions have known shares of its time, nested in a known way, and whose names are stripped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::{histories, probes, spawn_in_scope, subject};
use sandscope::{
    correlate::Source,
    host::clock::monotonic_ns,
    probe::{Options, SAMPLE_PERIOD_NS, Stacks},
    testing::skip,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const SCOPE: u16 = 11;

/// A hundred turns of the same length, in three functions.
const PROGRAM: &str = r#"package main

import "os"

//go:noinline
func turn(x uint64) uint64 {
	for i := 0; i < 10000000; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

//go:noinline
func heavy(x uint64) uint64 { return turn(turn(turn(turn(turn(turn(x)))))) + 1 }

//go:noinline
func medium(x uint64) uint64 { return turn(turn(turn(x))) + 1 }

//go:noinline
func light(x uint64) uint64 { return turn(x) + 1 }

//go:noinline
func outer(x uint64) uint64 { return heavy(medium(light(x))) + 1 }

func main() {
	x := uint64(88172645463325252)
	for i := 0; i < 10; i++ {
		x = outer(x)
	}
	if x == 0 {
		os.Exit(1)
	}
}
"#;

/// The share of the program's time that each function has.
const SHARES: [(&str, f64); 3] = [("main.heavy", 0.6), ("main.medium", 0.3), ("main.light", 0.1)];

/// Builds the program without symbols; a reported skip where there is no Go.
fn built(test: &str, folder: &Path) -> Option<PathBuf> {
    let (source, program) = (folder.join("shares.go"), folder.join("shares"));
    fs::write(&source, PROGRAM).unwrap();
    let mut go = Command::new("go");
    go.args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg(&source);
    match go.env("GOCACHE", folder.join("cache")).env("GO111MODULE", "off").status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => {
            skip(test, "go", error);
            return None;
        }
    }
    Some(program)
}

#[test]
fn functions_of_a_stripped_program_have_their_shares_and_callers() {
    let test = "functions_of_a_stripped_program_have_their_shares_and_callers";
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = built(test, folder.path()) else { return };
    let Some(mut probes) = probes(test, Options { stacks: Stacks::All, ..Options::default() }) else { return };
    probes.attach().unwrap();
    let before = cpu_of_children();
    let mut child = spawn_in_scope(&probes, SCOPE, &mut Command::new(&program));
    let spawned_ns = monotonic_ns();
    assert!(child.wait().unwrap().success());
    let cpu = cpu_of_children() - before;
    let recording = probes.take().unwrap();
    probes.detach();
    assert_eq!(recording.lost.all(), 0);
    let programs = vec![(program.display().to_string(), program.clone())];
    let source = Source { scope: SCOPE, programs, ..Source::default() };
    let (histories, mut names) = histories(&recording, source, spawned_ns, &probes);
    names.learn_programs(histories.executed_programs());

    let (mut seen, mut whole, mut addresses) = (0_u32, BTreeMap::<String, u32>::new(), BTreeMap::new());
    for (task, history) in histories.tasks.iter().enumerate() {
        for sample in history.samples() {
            // Before it executes the program it is still this one.
            let Some(runs) = histories.program_of(task, sample.at_ns) else { continue };
            assert_eq!(runs, program);
            seen += 1;
            let mut functions: Vec<_> = names.functions_of(&program, sample).map(|name| name.unwrap_or("?")).collect();
            addresses.insert(sample.calls[0], functions[0].to_owned());
            functions.reverse();
            *whole.entry(functions.join(";")).or_default() += 1;
        }
    }
    println!("{seen} looks in {cpu:?} of CPU time: {whole:#?}");
    let right = cpu.as_nanos() as f64 / SAMPLE_PERIOD_NS as f64;
    assert!((0.9..=1.1).contains(&(f64::from(seen) / right)), "{seen} looks in {cpu:?}");
    let of = |function: &str| {
        let stack = format!("runtime.goexit;runtime.main;main.main;main.outer;{function};main.turn");
        f64::from(whole.get(&stack).copied().unwrap_or(0))
    };
    let right: f64 = SHARES.iter().map(|(function, _)| of(function)).sum();
    assert!(right >= 0.95 * f64::from(seen), "{right} of {seen} stacks are whole");
    for (function, share) in SHARES {
        let told = of(function) / right;
        assert!((told - share).abs() <= 0.03, "{function}: {told:.3} and not {share}");
    }
    assert_eq!(named_by_go(&program, addresses.keys()), addresses.into_values().collect::<Vec<_>>());
}

#[test]
fn a_thread_that_computes_is_looked_at_each_millisecond() {
    let test = "a_thread_that_computes_is_looked_at_each_millisecond";
    let Some(mut probes) = probes(test, Options { stacks: Stacks::All, ..Options::default() }) else { return };
    assert!(probes.takes_samples(), "{:?}", probes.missing());
    probes.attach().unwrap();
    let before = cpu_of_children();
    let mut child = spawn_in_scope(&probes, SCOPE, &mut subject("spin 300"));
    let spawned_ns = monotonic_ns();
    assert!(child.wait().unwrap().success());
    let cpu = cpu_of_children() - before;
    let recording = probes.take().unwrap();
    probes.detach();
    let (histories, _) = histories(&recording, Source { scope: SCOPE, ..Source::default() }, spawned_ns, &probes);
    let of_child = histories.tasks.iter().filter(|task| task.tid == child.id());
    let looks: Vec<_> = of_child.flat_map(|task| task.samples()).collect();
    println!("{} looks in {cpu:?} of CPU time", looks.len());
    let ratio = looks.len() as f64 * SAMPLE_PERIOD_NS as f64 / cpu.as_nanos() as f64;
    assert!((0.85..=1.15).contains(&ratio), "{} looks in {cpu:?} of CPU time", looks.len());
    assert!(looks.iter().all(|look| !look.calls.is_empty()), "each has an address");
    assert!(looks.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
}

/// CPU time of all processes that this one has waited for.
fn cpu_of_children() -> Duration {
    // SAFETY: numbers, for which zeroes are as good as any.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to what the reference is to, which is as large as it expects.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The functions at these addresses, by Go's own tool.
fn named_by_go<'a>(program: &Path, addresses: impl Iterator<Item = &'a u64>) -> Vec<String> {
    let mut go = Command::new("go")
        .args(["tool", "addr2line"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked: String = addresses.map(|address| format!("{address:#x}\n")).collect();
    go.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let told = String::from_utf8(go.wait_with_output().unwrap().stdout).unwrap();
    // The function on one line, its place on the next.
    told.lines().step_by(2).map(|name| if name.starts_with('?') { "?" } else { name }.to_owned()).collect()
}
