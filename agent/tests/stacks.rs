//! Stacks of own code: a program whose functions have known shares of its time, nested in a known way, and whose names are stripped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use anyhow::{Result, ensure};
use common::{disturbance::undisturbed, histories, probes, spawn_in_scope, subject};
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

/// A hundred turns in three functions, each of which it times by its CPU clock: turns of the same length are not equally long
/// where the CPUs are shared with other machines. At the end it prints the sums, in nanoseconds and in the order of [`FUNCTIONS`].
const PROGRAM: &str = r#"package main

import (
	"os"
	"syscall"
	"unsafe"
)

var took [3]int64

func cpu() int64 {
	const processCPUTime = 2
	var now syscall.Timespec
	if _, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, processCPUTime, uintptr(unsafe.Pointer(&now)), 0); e != 0 {
		os.Exit(1)
	}
	return now.Nano()
}

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
func outer(x uint64) uint64 {
	begin := cpu()
	x = light(x)
	lit := cpu()
	x = medium(x)
	mid := cpu()
	x = heavy(x)
	end := cpu()
	took[0] += end - mid
	took[1] += mid - lit
	took[2] += lit - begin
	return x + 1
}

func main() {
	x := uint64(88172645463325252)
	for i := 0; i < 10; i++ {
		x = outer(x)
	}
	if x == 0 {
		os.Exit(1)
	}
	println(took[0], took[1], took[2])
}
"#;

/// Functions with the program's time: six, three and one tenth of it.
const FUNCTIONS: [&str; 3] = ["main.heavy", "main.medium", "main.light"];

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
    undisturbed(|| shares_and_callers(test, &program));
}

/// Runs the program, and holds what was seen of it against what it and Go say of it.
fn shares_and_callers(test: &str, program: &Path) -> Result<()> {
    let Some(mut probes) = probes(test, Options { stacks: Stacks::All, ..Options::default() }) else { return Ok(()) };
    probes.attach().unwrap();
    let before = cpu_of_children();
    // Go's `println` writes to standard error.
    let child = spawn_in_scope(&probes, SCOPE, Command::new(program).stderr(Stdio::piped()));
    let spawned_ns = monotonic_ns();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let cpu = cpu_of_children() - before;
    let took = String::from_utf8(output.stderr).unwrap();
    let took: Vec<f64> = took.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let recording = probes.take().unwrap();
    probes.detach();
    assert_eq!(recording.lost.all(), 0);
    let programs = vec![(program.display().to_string(), program.to_owned())];
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
            let mut functions: Vec<_> = names.functions_of(program, sample).map(|name| name.unwrap_or("?")).collect();
            addresses.insert(sample.calls[0], functions[0].to_owned());
            functions.reverse();
            *whole.entry(functions.join(";")).or_default() += 1;
        }
    }
    println!("{seen} looks in {cpu:?} of CPU time: {whole:#?}; by its own clock {took:?} ns");
    let right = cpu.as_nanos() as f64 / SAMPLE_PERIOD_NS as f64;
    ensure!((0.9..=1.1).contains(&(f64::from(seen) / right)), "{seen} looks in {cpu:?}");
    let of = |function: &str| {
        let stack = format!("runtime.goexit;runtime.main;main.main;main.outer;{function};main.turn");
        f64::from(whole.get(&stack).copied().unwrap_or(0))
    };
    let right: f64 = FUNCTIONS.iter().map(|function| of(function)).sum();
    ensure!(right >= 0.95 * f64::from(seen), "{right} of {seen} stacks are whole");
    assert_eq!(took.len(), FUNCTIONS.len(), "{took:?}");
    let all: f64 = took.iter().sum();
    for (function, took) in FUNCTIONS.iter().zip(&took) {
        let (told, share) = (of(function) / right, took / all);
        ensure!((told - share).abs() <= 0.03, "{function}: {told:.3} and not {share:.3}");
    }
    assert_eq!(named_by_go(program, addresses.keys()), addresses.into_values().collect::<Vec<_>>());
    Ok(())
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
    let mut distances: Vec<u64> =
        looks.windows(2).map(|pair| pair[1].at_ns.checked_sub(pair[0].at_ns).unwrap()).collect();
    distances.sort_unstable();
    let median_ns = distances[distances.len() / 2];
    println!("{} looks in {cpu:?} of CPU time, {median_ns} ns between most of them", looks.len());
    // Some do not come where this machine's own CPUs are taken away from it, and the time counts as CPU time nevertheless.
    let ratio = looks.len() as f64 * SAMPLE_PERIOD_NS as f64 / cpu.as_nanos() as f64;
    assert!((0.5..=1.15).contains(&ratio), "{} looks in {cpu:?} of CPU time", looks.len());
    assert!(median_ns.abs_diff(SAMPLE_PERIOD_NS) * 10 <= SAMPLE_PERIOD_NS, "{median_ns} ns between looks");
    assert!(looks.iter().all(|look| !look.calls.is_empty()), "each has an address");
    assert!(distances[0] > 0);
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
