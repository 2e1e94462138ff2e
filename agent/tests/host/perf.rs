//! The probes against an independent witness: `perf stat` of the same tracepoints, in the same window, on the same processes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{probes, spawn_in_scope, subject};
use sandscope::probe::{Options, Record, Recording};
use sandscope_ebpf::event::Kind;
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

const SCOPE: u16 = 11;

/// Whether perf is there and can count tracepoints.
fn perf(test: &str) -> bool {
    let tried = Command::new("perf").args(["stat", "-x,", "-e", "sched:sched_switch", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            sandscope::testing::skip(test, "perf", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            sandscope::testing::skip(test, "perf", error);
            false
        }
    }
}

/// Runs a command below perf and in scope at once; gives what each of the two counted.
fn both(test: &str, events: &[&str], command: &Command) -> Option<(BTreeMap<String, u64>, Recording)> {
    if !perf(test) {
        return None;
    }
    let mut probes = probes(test, Options::default())?;
    probes.attach().unwrap();
    let mut witness = Command::new("perf");
    witness.args(["stat", "-x,", "-e", &events.join(","), "--"]).arg(command.get_program()).args(command.get_args());
    witness.stdout(Stdio::null()).stderr(Stdio::piped());
    let output = spawn_in_scope(&probes, SCOPE, &mut witness).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    probes.detach();
    let recording = probes.take().unwrap();
    assert_eq!(recording.lost.all(), 0);
    // value, unit, event, …
    let counts = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        Some((fields.get(2)?.to_string(), fields[0].parse().ok()?))
    });
    Some((counts.collect(), recording))
}

#[test]
fn kvm_events_are_counted_exactly_as_perf_does() {
    const TEST: &str = "kvm_events_are_counted_exactly_as_perf_does";
    let kinds = [
        ("kvm:kvm_pio", Kind::KvmPio),
        ("kvm:kvm_mmio", Kind::KvmMmio),
        ("kvm:kvm_userspace_exit", Kind::KvmUserspaceExit),
        ("kvm:kvm_vcpu_wakeup", Kind::KvmHaltWake),
        ("kvm:kvm_halt_poll_ns", Kind::KvmHaltPoll),
        ("kvm:kvm_exit", Kind::KvmExit),
        ("kvm:kvm_entry", Kind::KvmEntry),
    ];
    if std::fs::File::open("/dev/kvm").is_err() {
        return sandscope::testing::skip(TEST, "kvm", "/dev/kvm can't be opened");
    }
    let mut floor = Command::new(env!("CARGO_BIN_EXE_sandscope-kvm-floor"));
    floor.args(["--pio", "2000", "--mmio", "500", "--hlt", "200", "--hlt-interval-ns", "50000"]);
    let Some((counts, recording)) = both(TEST, &kinds.map(|(event, _)| event), &floor) else { return };
    println!("{counts:?}");
    for (event, kind) in kinds {
        let seen = recording.records.iter().filter(|record| record.header().kind == kind as u8).count() as u64;
        assert_eq!(seen, counts[event], "{event}");
    }
    assert!(counts["kvm:kvm_pio"] >= 2000 && counts["kvm:kvm_mmio"] >= 500);
}

#[test]
fn switches_and_wakeups_are_counted_as_perf_does() {
    const TEST: &str = "switches_and_wakeups_are_counted_as_perf_does";
    const SLEEPS: u64 = 2000;
    let sleeper = subject(&format!("sleep {SLEEPS} 1"));
    let Some((counts, recording)) = both(TEST, &["sched:sched_switch"], &sleeper) else { return };
    // The task that executed the program; perf counts from that moment on.
    let (tid, since_ns) = recording
        .records
        .iter()
        .find_map(|record| match record {
            Record::Exec(exec) if exec.path.starts_with(sleeper.get_program().as_encoded_bytes()) => {
                Some((exec.header.tid, exec.header.at_ns))
            }
            _ => None,
        })
        .expect("the program was executed");
    let of = |wanted: fn(&Record) -> bool| {
        let about = |record: &&Record| record.header().tid == tid && record.header().at_ns >= since_ns;
        recording.records.iter().filter(about).filter(|record| wanted(record)).count() as u64
    };
    let switches = of(|record| matches!(record, Record::Switch(_)));
    let wakeups = of(|record| matches!(record, Record::Wake(_)));
    let expected = counts["sched:sched_switch"];
    println!("switches {switches}, perf {expected}; wake-ups {wakeups}");
    // A timer this short may expire before the task sleeps.
    assert!(expected * 100 >= SLEEPS * 99, "{expected} switches in {SLEEPS} sleeps");
    assert!(switches.abs_diff(expected) * 100 <= expected, "{switches} against {expected}");
    assert!(wakeups.abs_diff(SLEEPS) * 100 <= SLEEPS, "{wakeups} wake-ups of {SLEEPS} sleeps");
}
