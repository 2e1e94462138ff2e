//! Suites from outside: a file is run, and the tables it writes are held against what must be in them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{
    dataset::{Row, parts, rows, sum},
    disturbance::reclaimed_pages,
    guest_files,
};
use sandscope::testing::skip;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn sandscope() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    // The workloads are where xtask builds them.
    command.env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"));
    command
}

fn run(file: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = sandscope();
    command.arg("run").arg(file).arg("--out").arg(out).args(more);
    command.output().expect("the program can be started")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether this host can run a sandbox; reports a skip if not.
fn can_run(test: &str, sandbox: &'static str) -> bool {
    let output = sandscope().args(["sandboxes", "--json"]).output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = all.as_array().unwrap().iter().find(|found| found["name"] == sandbox).unwrap();
    let can = found["verdict"] != "unsupported";
    if !can {
        skip(test, sandbox, &found["evidence"]);
    }
    can
}

/// The steps that an experiment has in `experiments/quick.toml`, by variant.
const STEPS: [(&str, &str, &[&str]); 11] = [
    ("cold-start", "primed", &["start"]),
    ("burst", "2", &["start"]),
    ("idle", "", &["start", "idle"]),
    ("memory", "", &["start", "memory"]),
    ("warm", "", &["start", "single", "load-new-connections", "load-kept-connection"]),
    ("cpu", "", &["start", "fib-first", "fib", "fft-first", "fft", "matrix-first", "matrix"]),
    ("alloc", "", &["start", "first", "second", "later"]),
    ("read", "host-cold", &["start", "guest-cold-host-cold", "guest-warm-host-cold"]),
    ("read", "host-warm", &["start", "guest-cold-host-warm", "guest-warm-host-warm"]),
    ("unzip", "", &["start", "first"]),
    ("network", "", &["start", "closed-1", "closed-16", "rate-200", "file"]),
];

/// Guests with a kernel of their own that `experiments/quick.toml` starts where they can run.
const MACHINES: [&str; 3] = ["qemu-linux", "qemu-tcg-linux", "firecracker-linux"];

#[test]
fn the_quick_suite_has_every_experiment_of_every_sandbox_and_language() {
    const TEST: &str = "the_quick_suite_has_every_experiment_of_every_sandbox_and_language";
    let servers: Vec<_> = ["process", "runc", "gvisor"].into_iter().filter(|name| can_run(TEST, name)).collect();
    let floor = can_run(TEST, "kvm-floor");
    let machines: Vec<_> = MACHINES.into_iter().filter(|name| can_run(TEST, name)).collect();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments/quick.toml"));
    let (begun, reclaimed) = (Instant::now(), reclaimed_pages());
    let output = run(file, &out, &[]);
    let reclaimed = reclaimed_pages() - reclaimed;
    println!("{}\nin {:.0} s", told(&output), begun.elapsed().as_secs_f64());
    assert!(output.status.success(), "{}", output.status);

    let instances = rows(&out, "instances");
    let steps = rows(&out, "steps");
    let mut expected = BTreeMap::new();
    for (experiment, variant, names) in STEPS {
        let started_at_a_time = if matches!(experiment, "burst" | "memory") { 2 } else { 1 };
        for sandbox in &servers {
            for workload in ["go", "node", "rust"] {
                expected.insert((experiment, variant, *sandbox, workload), (started_at_a_time, names));
            }
        }
        for machine in &machines {
            expected.insert((experiment, variant, *machine, "rust"), (started_at_a_time, names));
        }
        if floor && matches!(experiment, "cold-start" | "burst" | "idle" | "memory") {
            expected.insert((experiment, variant, "kvm-floor", "rust"), (started_at_a_time, names));
        }
    }
    let key = |row: &'_ Row| ["experiment", "variant", "sandbox", "workload"].map(|column| row.text(column).to_owned());
    let mut found: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for instance in &instances {
        found.entry(key(instance)).or_default().push(instance);
    }
    assert_eq!(found.len(), expected.len(), "{:?}", found.keys());
    for ((experiment, variant, sandbox, workload), (count, names)) in expected {
        let place = [experiment, variant, sandbox, workload].map(str::to_owned);
        let instances = &found[&place];
        assert_eq!(instances.len(), count, "{place:?}");
        for instance in instances {
            let id = instance.text("instance_id");
            assert_eq!(instance.number("ok"), Some(1), "{place:?}: {}", instance.text("error"));
            assert!(instance.text("conditions_json").contains("host_busy_ratio"), "{place:?}");
            let of: Vec<_> = steps.iter().filter(|step| step.text("instance_id") == id).collect();
            let have: BTreeSet<_> = of.iter().map(|step| step.text("name")).collect();
            assert_eq!(have, names.iter().copied().collect(), "{place:?}");
            for step in of {
                assert_eq!(step.number("ok"), Some(1), "{place:?}: {}", step.text("error"));
                let value = step.number(if step.text("kind") == "weigh" { "value_bytes" } else { "value_ns" });
                // What is left alone may well do nothing.
                let least = i128::from(step.text("kind") != "watch");
                assert!(value.is_some_and(|value| value >= least), "{place:?} {}", step.text("name"));
                assert!(step.number("end_ns") >= step.number("start_ns"), "{place:?}");
            }
        }
    }
    // One row per combination and step, with the right counts.
    let cells = rows(&out, "cells");
    assert_eq!(sum(&cells, "failed_count"), 0);
    assert_eq!(sum(&cells, "instances_count"), steps.len() as i128);
    the_page_cache_was_as_the_names_of_the_steps_say(&steps);
    loads_are_recorded_whole(&out, &steps);
    what_is_left_alone_has_a_window_or_a_size(&out, &steps);
    if rows(&out, "runs")[0].number("probes_available") == Some(1) {
        activity_is_that_of_the_very_window(&out, &instances, &steps, reclaimed);
    }
}

fn the_page_cache_was_as_the_names_of_the_steps_say(steps: &[Row]) {
    let mut checked = 0;
    for step in steps.iter().filter(|step| step.text("path") == "/read") {
        let pages = step.number("file_pages_count").unwrap();
        let before = step.number("file_resident_before_count").unwrap();
        let cold = step.text("name").ends_with("host-cold");
        assert_eq!(before, if cold { 0 } else { pages }, "{}", step.text("name"));
        assert!(pages > 1000, "a file worth reading has {pages} pages");
        checked += 1;
    }
    assert!(checked > 0);
}

/// The rows of the window, and of the processes, say what the steps say.
fn what_is_left_alone_has_a_window_or_a_size(out: &Path, steps: &[Row]) {
    let windows = rows(out, "windows");
    let watched: Vec<_> = steps.iter().filter(|step| step.text("kind") == "watch").collect();
    assert_eq!(watched.len(), windows.len());
    for step in watched {
        let window = windows.iter().find(|row| row.text("instance_id") == step.text("instance_id")).unwrap();
        let span_ns = window.number("span_ns").unwrap();
        // Half a second, as the file says; on a busy host the end of it comes later.
        assert!((500_000_000..5_000_000_000).contains(&span_ns), "{span_ns} ns");
        let parts = ["cpu_ns", "causes_ns", "helpers_ns", "ksmd_ns"].map(|column| window.number(column).unwrap_or(0));
        let per_second = parts.iter().sum::<i128>() * 1_000_000_000 / span_ns;
        assert!((per_second - step.number("value_ns").unwrap()).abs() <= 1, "{per_second} ns per second");
    }
    let memory = rows(out, "memory");
    let weighed: Vec<_> = steps.iter().filter(|step| step.text("kind") == "weigh").collect();
    assert!(!weighed.is_empty());
    for step in weighed {
        let of_both = |row: &&Row| {
            row.text("instance_id") == step.text("instance_id") && row.number("instances_count") == Some(2)
        };
        assert_eq!(sum(memory.iter().filter(of_both), "pss_bytes"), step.number("value_bytes").unwrap());
    }
}

fn loads_are_recorded_whole(out: &Path, steps: &[Row]) {
    let place = |row: &Row| (row.text("instance_id").to_owned(), row.number("step"));
    let latency: BTreeMap<_, _> = rows(out, "latency").into_iter().map(|row| (place(&row), row)).collect();
    let mut answers: BTreeMap<_, i128> = BTreeMap::new();
    for answer in rows(out, "answers") {
        *answers.entry(place(&answer)).or_default() += answer.number("count").unwrap();
    }
    let loads: Vec<_> = steps.iter().filter(|step| step.text("kind") == "load").collect();
    assert_eq!(loads.len(), latency.len());
    for load in loads {
        let (name, place) = (load.text("name"), place(load));
        assert_eq!(latency[&place].number("count"), load.number("good_count"), "{name}");
        assert_eq!(answers[&place], load.number("good_count").unwrap() + load.number("bad_count").unwrap(), "{name}");
        if name == "rate-200" {
            // 200 per second for a fifth of a second.
            assert_eq!(load.number("good_count"), Some(40), "{name}");
        }
        if name == "file" {
            assert_eq!(load.number("good_count"), Some(2), "{name}");
        }
    }
}

/// The bytes of the large file leave the sandbox through its own device, as often as it is fetched, with headers and no more.
fn frames_carry_what_was_answered(out: &Path, steps: &[Row]) {
    let traffic = rows(out, "traffic");
    let files: Vec<_> = steps.iter().filter(|step| step.text("name") == "file").collect();
    assert!(!files.is_empty());
    for file in files {
        let id = file.text("instance_id");
        let of = |direction: &str| {
            let is = |row: &&Row| {
                row.text("instance_id") == id
                    && row.number("step") == file.number("step")
                    && row.text("direction") == direction
            };
            let row = traffic.iter().find(is).unwrap();
            (row.number("frames_count").unwrap(), row.number("size_bytes").unwrap())
        };
        let body = file.number("body_bytes").unwrap();
        let ((frames, out_bytes), (_, in_bytes)) = (of("from_sandbox"), of("to_sandbox"));
        // Each frame has 14 + 20 + 20 bytes of headers at least; with options and 1460 bytes each, 5 % at most. What is sent again
        // comes on top.
        assert!(out_bytes >= body + 54 * frames, "{id}: {out_bytes} bytes in {frames} frames for {body}");
        assert!(out_bytes <= body * 11 / 10, "{id}: {out_bytes} bytes in {frames} frames for {body}");
        assert!(in_bytes > 0 && in_bytes < body, "{id}: {in_bytes} bytes into the sandbox");
    }
}

/// A cold read misses exactly the pages of the file and fetches them from the disk, a warm one misses none. Of a host that took so
/// many pages back meanwhile, some may have been brought in again.
fn files_and_block_requests_are_exact(out: &Path, sandbox_of: &BTreeMap<&str, &str>, steps: &[Row], reclaimed: u64) {
    let (files, block) = (rows(out, "files"), rows(out, "block_latency"));
    let mut checked = 0;
    // gVisor reads files by processes and mappings of its own.
    let read = steps.iter().filter(|step| {
        step.text("path") == "/read" && matches!(sandbox_of[step.text("instance_id")], "process" | "runc")
    });
    for step in read {
        let id = step.text("instance_id");
        let is = |row: &&Row| row.text("instance_id") == id && row.number("step") == step.number("step");
        let file = files.iter().filter(is).max_by_key(|row| row.number("read_bytes")).unwrap();
        let number = |column: &str| file.number(column).unwrap();
        let pages = step.number("file_pages_count").unwrap();
        assert_eq!((number("read_bytes") + 4095) / 4096, pages, "{id} {}", step.text("name"));
        let from_disk = sum(block.iter().filter(is).filter(|row| row.number("write") == Some(0)), "size_bytes");
        let (misses, again) = (number("read_misses_count"), i128::from(reclaimed));
        if step.text("name").ends_with("host-cold") {
            assert!(
                (pages..=pages + again).contains(&misses),
                "{id}: {misses} misses for {pages} pages, {again} reclaimed"
            );
            assert_eq!(number("hit_bytes"), 0, "{id}");
            // Besides the file itself, at most what the file system has to read to find it.
            let expected = pages * 4096..=(pages + again) * 4096 + pages * 4096 / 100;
            assert!(expected.contains(&from_disk), "{id}: {from_disk} bytes from the disk for {pages} pages");
        } else {
            // Others may have thrown out some pages of the file meanwhile, which the kernel counts nowhere.
            assert!((0..=again + pages / 100).contains(&misses), "{id}: {misses} misses, {again} reclaimed");
            assert_eq!(number("hit_bytes"), (number("read_bytes") - misses * 4096).max(0), "{id}");
        }
        checked += 1;
    }
    assert!(checked > 0);
}

/// What the kernel's half has summed up by file is what came out of it call by call, if nothing was lost on the way.
fn file_calls_are_those_of_the_files(out: &Path, sandbox_of: &BTreeMap<&str, &str>, steps: &[Row]) {
    let (files, calls, events) = (rows(out, "files"), rows(out, "file_latency"), rows(out, "events"));
    let mut bytes = 0;
    for step in steps.iter().filter(|step| matches!(step.text("path"), "/read" | "/unzip")) {
        let id = step.text("instance_id");
        let is = |row: &&Row| row.text("instance_id") == id && row.number("step") == step.number("step");
        let of_instance = events.iter().filter(|row| row.text("instance_id") == id);
        if sum(of_instance, "lost_count") > 0 {
            continue;
        }
        for (write, count, size) in [(0, "reads_count", "read_bytes"), (1, "writes_count", "written_bytes")] {
            let of: Vec<_> = calls.iter().filter(is).filter(|row| row.number("write") == Some(write)).collect();
            for (column, of_files) in [("count", count), ("size_bytes", size)] {
                let expected = sum(files.iter().filter(is), of_files);
                assert_eq!(sum(of.iter().copied(), column), expected, "{id} {} {of_files}", step.text("name"));
            }
            for row in of {
                for buckets in ["latency_count", "call_count"] {
                    assert_eq!(
                        row.numbers(buckets).iter().sum::<i128>(),
                        row.number("count").unwrap(),
                        "{id} {buckets}"
                    );
                }
                // A guest's calls are its own: what is seen of it is its VMM's.
                let is_vmm = row.text("role").starts_with("vmm");
                assert_eq!(is_vmm, sandbox_of[id].ends_with("-linux"), "{id} {}", row.text("role"));
                bytes += row.number("size_bytes").unwrap();
            }
        }
        let written = sum(calls.iter().filter(is).filter(|row| row.number("write") == Some(1)), "size_bytes");
        if step.text("path") == "/unzip" && matches!(sandbox_of[id], "process" | "runc") {
            assert_eq!(written, 10 * (5 << 20), "{id}: the archive holds ten files of 5 MiB");
        }
    }
    // Many times the file, by whoever reads and writes it.
    assert!(bytes > 1 << 30, "{bytes}");
}

/// Each answered request of a load is seen to be answered on the device, no later than the client sees it.
fn answers_are_seen_on_the_device(out: &Path, steps: &[Row]) {
    let (responses, latency, offloads) = (rows(out, "responses"), rows(out, "latency"), rows(out, "offloads"));
    for step in steps.iter().filter(|step| step.text("name").starts_with("rate-")) {
        let is = |row: &&Row| {
            row.text("instance_id") == step.text("instance_id") && row.number("step") == step.number("step")
        };
        let seen = responses.iter().find(is).unwrap();
        // Those of the window and no others: the warm-up is over when they are counted from. One for each connection may be on its way
        // then, and be counted though it was due before, or due in the window and seen a moment before its beginning.
        let (count, good) = (seen.number("count").unwrap(), step.number("good_count").unwrap());
        let margin = step.number("connections_count").unwrap() + 2;
        assert!((count - good).abs() <= margin, "{}: {count} on the device, {good} good", step.text("instance_id"));
        let (floors, counts) = (seen.numbers("bucket_floor_ns"), seen.numbers("bucket_count"));
        let mut answered = 0;
        let median = floors.iter().zip(&counts).find(|(_, count)| {
            answered += **count;
            2 * answered >= seen.number("count").unwrap()
        });
        let longest = latency.iter().find(is).unwrap().number("max_ns").unwrap();
        assert!(median.is_some_and(|(floor, _)| *floor > 0 && *floor <= longest), "{median:?} of {longest} ns");
        let of_instance = offloads.iter().filter(|row| row.text("instance_id") == step.text("instance_id"));
        assert_eq!(of_instance.filter(|row| row.text("place") == "host_end").count(), 1);
    }
}

/// What was recorded with a step belongs to the step: a cold read reads the file from the disk, a warm one nothing; a step that
/// computes does so on a CPU.
fn activity_is_that_of_the_very_window(out: &Path, instances: &[Row], steps: &[Row], reclaimed: u64) {
    frames_carry_what_was_answered(out, steps);
    let activity = rows(out, "activity");
    let sandbox_of: BTreeMap<_, _> =
        instances.iter().map(|row| (row.text("instance_id"), row.text("sandbox"))).collect();
    files_and_block_requests_are_exact(out, &sandbox_of, steps, reclaimed);
    file_calls_are_those_of_the_files(out, &sandbox_of, steps);
    let guests = sandbox_of.values().filter(|sandbox| MACHINES.contains(sandbox)).count();
    assert_eq!(guest_files::are_read_once(out, &MACHINES) > 0, guests > 0);
    answers_are_seen_on_the_device(out, steps);
    let mut computed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for step in steps {
        let id = step.text("instance_id");
        let of: Vec<_> = activity
            .iter()
            .filter(|row| row.text("instance_id") == id && row.number("step") == step.number("step"))
            .collect();
        if step.number("step") == Some(0) || matches!(step.text("kind"), "watch" | "weigh") {
            assert!(of.is_empty(), "the start is explained by `attribution`, the others by tables of their own");
            continue;
        }
        assert!(!of.is_empty(), "{id} {}: nothing was recorded", step.text("name"));
        let time = |kind: &str| sum(of.iter().copied().filter(|row| row.text("kind") == kind), "time_ns");
        let window_ns = step.number("end_ns").unwrap() - step.number("start_ns").unwrap();
        if step.text("name").starts_with("fib") && sandbox_of[id] == "process" {
            // Adding is all that it does, on one thread; the rest is waiting for a CPU, and the exchange.
            let (user, ready) = (time("user"), time("runnable"));
            assert!(user <= 2 * window_ns, "{user} of {window_ns} ns");
            let less = (user + ready <= window_ns / 2).then(|| format!("{user} + {ready} of {window_ns} ns"));
            computed.entry(id).or_default().extend(less);
        }
    }
    assert!(!computed.is_empty());
    // The exchange takes most of a step only where the host has other things to do, and not twice, the first time and later.
    assert!(computed.values().all(|less| less.len() < 2), "{computed:?}");
}

#[test]
fn records_of_a_load_that_are_many_are_summed_up_step_by_step() {
    const TEST: &str = "records_of_a_load_that_are_many_are_summed_up_step_by_step";
    /// From so many bytes on they are; a system call is 56.
    const MANY_BYTES: i128 = 64 << 20;
    const CALL_BYTES: i128 = 56;
    if !can_run(TEST, "process") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // How many calls a window has is up to the host: it is as long as it has to be.
    let mut window_s = 4;
    let (out, events) = loop {
        let (file, out) = (home.path().join("load.toml"), home.path().join(format!("results-{window_s}")));
        let text = format!(
            "repetitions = 1\nprobes = \"with\"\n[experiment.network]\nconnections = [16, 8, 4, 2, 1]\nrates = []\n\
             file-connections = 0\nwindow-s = {window_s}.0\n[[matrix]]\nexperiments = [\"network\"]\n\
             sandboxes = [\"process\"]\nworkloads = [\"rust\"]\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = run(&file, &out, &[]);
        assert!(output.status.success(), "{}", told(&output));
        if rows(&out, "runs")[0].number("probes_available") != Some(1) {
            return skip(TEST, "bpf", "the host can't have the probes");
        }
        let events = rows(&out, "events");
        let calls = sum(events.iter().filter(|row| row.text("kind") == "syscall"), "seen_count");
        if calls * CALL_BYTES > MANY_BYTES {
            break (out, events);
        }
        println!("{calls} calls in windows of {window_s} s are not enough for this test");
        window_s *= 2;
        assert!(window_s <= 16, "{calls} calls are not enough for this test");
    };
    let (steps, activity) = (rows(&out, "steps"), rows(&out, "activity"));
    // None, unless others have the CPU for long.
    let lost = sum(&events, "lost_count");
    for step in steps.iter().filter(|step| step.text("name").starts_with("closed-")) {
        let of = |kind: &str| {
            let of_step = activity.iter().filter(|row| row.number("step") == step.number("step"));
            of_step.filter(|row| row.text("kind") == kind).collect::<Vec<_>>()
        };
        // Each request is read and answered.
        let (answered, calls) = (step.number("good_count").unwrap(), sum(of("syscall"), "count"));
        let name = step.text("name");
        assert!(
            answered > 1000 && calls > 0 && calls + lost >= 2 * answered,
            "{name}: {calls} calls, {lost} lost, {answered} answers"
        );
        // They had CPUs meanwhile, and no more of them than there are.
        let window_ns = step.number("end_ns").unwrap() - step.number("start_ns").unwrap();
        let on_cpu_ns = sum(of("user"), "time_ns") + sum(of("kernel"), "time_ns");
        let cpus = std::thread::available_parallelism().unwrap().get() as i128;
        let is_possible = window_ns / 20 < on_cpu_ns && on_cpu_ns <= cpus * window_ns;
        assert!(is_possible, "{name}: {on_cpu_ns} ns on {cpus} CPUs in {window_ns} ns");
    }
}

#[test]
fn frames_to_a_machine_are_taken_by_its_vmm() {
    const TEST: &str = "frames_to_a_machine_are_taken_by_its_vmm";
    if !can_run(TEST, "qemu-tcg-linux") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (file, out) = (home.path().join("machine.toml"), home.path().join("results"));
    let text = "probes = \"with\"\n[conditions]\ntimeout-s = 60\n[experiment.warm]\nrequests = 20\nwindow-s = 0.2\n\
                [[matrix]]\nexperiments = [\"warm\"]\nsandboxes = [\"qemu-tcg-linux\"]\n";
    std::fs::write(&file, text).unwrap();
    let output = run(&file, &out, &[]);
    assert!(output.status.success(), "{}", told(&output));
    if rows(&out, "runs")[0].number("probes_available") != Some(1) {
        return skip(TEST, "bpf", told(&output));
    }
    let (pickups, traffic, steps) = (rows(&out, "pickups"), rows(&out, "traffic"), rows(&out, "steps"));
    assert_eq!(pickups.len(), 3, "one row per step");
    for pickup in pickups {
        let to_sandbox =
            |row: &&Row| row.number("step") == pickup.number("step") && row.text("direction") == "to_sandbox";
        let frames = traffic.iter().find(to_sandbox).unwrap().number("frames_count").unwrap();
        let (taken, unseen) = (pickup.number("count").unwrap(), pickup.number("unseen_count").unwrap());
        // The last may still be on their way when the step is over, and the first be of the step before: those of a connection that
        // ends, and one for each that a load has open then.
        let step = steps.iter().find(|step| step.number("step") == pickup.number("step")).unwrap();
        let connections = step.number("connections_count").unwrap_or(0);
        assert!(
            (taken + unseen - frames).abs() <= 5 + connections && unseen * 20 <= frames,
            "{taken} and {unseen} of {frames} frames"
        );
        assert_eq!(pickup.numbers("bucket_count").iter().sum::<i128>(), taken);
    }
}

/// A suite of a process that takes some seconds.
fn small_suite(home: &Path) -> std::path::PathBuf {
    let file = home.join("small.toml");
    // A window of a load is long enough for an answer also where others have the CPUs for a while.
    let text = "seed = 7\nrepetitions = 8\nprobes = \"with\"\n[experiment.warm]\nrequests = 2\nwindow-s = 0.2\n\
                [experiment.burst]\ninstances = [3]\n[experiment.idle]\nsettle-s = 0\nwindow-s = 0.05\n\
                [experiment.memory]\ninstances = 2\nsettle-s = 0\n\
                [[matrix]]\nexperiments = [\"cold-start\", \"warm\", \"burst\", \"idle\", \"memory\"]\nsandboxes = [\"process\"]\n";
    std::fs::write(&file, text).unwrap();
    file
}

/// Rows per table and what tells them apart, without what differs from run to run.
fn shape(out: &Path) -> BTreeMap<String, i128> {
    let mut counts = BTreeMap::new();
    let instances = rows(out, "instances");
    let cell = |row: &Row| {
        format!("{}/{} {} {}", row.text("experiment"), row.text("variant"), row.text("sandbox"), row.text("workload"))
    };
    let of_instance: BTreeMap<_, _> = instances.iter().map(|row| (row.text("instance_id"), cell(row))).collect();
    assert_eq!(of_instance.len(), instances.len(), "ids are unique");
    for instance in &instances {
        let repetition = instance.number("repetition").unwrap();
        *counts.entry(format!("instances {} #{repetition}", cell(instance))).or_default() += 1;
    }
    for step in rows(out, "steps") {
        *counts.entry(format!("steps {} {}", of_instance[step.text("instance_id")], step.text("name"))).or_default() +=
            1;
    }
    for table in ["latency", "phases", "windows"] {
        for row in rows(out, table) {
            *counts.entry(format!("{table} {}", of_instance[row.text("instance_id")])).or_default() += 1;
        }
    }
    for cell in rows(out, "cells") {
        let key = format!("cells {}/{} {}", cell.text("experiment"), cell.text("variant"), cell.text("name"));
        counts.insert(key, cell.number("instances_count").unwrap());
    }
    counts.insert("runs".to_owned(), rows(out, "runs").len() as i128);
    counts
}

#[test]
fn a_run_that_was_killed_is_resumed_to_the_same_shape_as_one_that_was_not() {
    const TEST: &str = "a_run_that_was_killed_is_resumed_to_the_same_shape_as_one_that_was_not";
    if !can_run(TEST, "process") || crate::common::probes(TEST, sandscope::probe::Options::default()).is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = small_suite(home.path());
    let (whole, killed) = (home.path().join("whole"), home.path().join("killed"));
    let output = run(&file, &whole, &[]);
    assert!(output.status.success(), "{}", told(&output));

    let mut command = sandscope();
    command.arg("run").arg(&file).arg("--out").arg(&killed).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let done = |out: &Path| if parts(out, "instances").is_empty() { 0 } else { rows(out, "instances").len() };
    while done(&killed) < 8 {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it was over before it was killed");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = done(&killed);
    assert!(before < done(&whole), "it was killed in the middle");
    assert_eq!(rows(&killed, "runs")[0].number("finished_at_unix_ns"), None);

    let output = run(&file, &killed, &["--resume"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains(&format!("which has {before} instances")), "{}", told(&output));
    assert_eq!(shape(&killed), shape(&whole));
    assert!(rows(&killed, "runs")[0].number("finished_at_unix_ns").is_some());
    assert_eq!(rows(&killed, "runs")[0].number("instances_count"), rows(&whole, "runs")[0].number("instances_count"));

    // What is finished is not repeated; what was begun by another plan is not gone on with.
    let output = run(&file, &killed, &["--resume"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("no run in"), "{}", told(&output));
}

#[test]
fn a_cell_is_repeated_until_its_median_is_sure_and_no_more() {
    const TEST: &str = "a_cell_is_repeated_until_its_median_is_sure_and_no_more";
    if !can_run(TEST, "process") || crate::common::probes(TEST, sandscope::probe::Options::default()).is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("sure.toml");
    // The width is one that hosts keep at once, or that none keeps.
    for (width, expected) in [("10.0", 3), ("0.000001", 6)] {
        let text = format!(
            "repetitions = 3\nmost-repetitions = 6\nwidth = {width}\nprobes = \"without\"\n[[matrix]]\n\
             experiments = [\"cold-start\"]\nsandboxes = [\"process\"]\n"
        );
        std::fs::write(&file, text).unwrap();
        let out = home.path().join(width);
        let output = run(&file, &out, &[]);
        assert!(output.status.success(), "{}", told(&output));
        let mut instances = rows(&out, "instances");
        instances.sort_by_key(|row| row.number("repetition"));
        let mut first: Vec<_> = instances[..3].iter().map(|row| row.number("wall_ns").unwrap()).collect();
        first.sort_unstable();
        // Where others have the CPUs for longer than ten starts, the first three do not keep the wider one either.
        let is_wide = first[2] - first[0] > 10 * first[1];
        let is_right = instances.len() == expected || is_wide && (4..=6).contains(&instances.len());
        assert!(is_right, "{width}: {} instances, the first of which took {first:?} ns", instances.len());
    }
}

#[test]
fn a_file_that_asks_for_what_cannot_be_is_refused_with_line_reason_and_choice() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("bad.toml");
    let out = home.path().join("results");
    let matrix = "[[matrix]]\nexperiments = [\"cpu\"]\nsandboxes = [\"process\"]\n";
    let cases = [
        ("repetitons = 3\n", "bad.toml:1:1: unknown field `repetitons`", "did you mean `repetitions`?"),
        ("repetitions = 0\n", "bad.toml:1:15: 0 repetitions", "choose from 1"),
        ("repetitions = 5\nmost-repetitions = 3\n", "bad.toml:2:20: 3 repetitions", "choose from 5"),
        ("width = -1.0\n", "bad.toml:1:9: a width of -1", "above 0"),
        ("probes = \"bth\"\n", "bad.toml:1:10: unknown variant `bth`", "did you mean `both`?"),
        ("[experiment.network]\nrates = [-5.0]\n", "bad.toml:2:9: `rates`: a rate of -5", "above 0"),
        ("[experiment.network]\nconnections = [5000]\n", "bad.toml:2:15: `connections`", "from 1 to 4096"),
        ("[experiment.netwrk]\n", "bad.toml:1:13: there is no experiment `netwrk`", "did you mean `network`?"),
        ("[experiment.memory]\nksm = true\n", "bad.toml:2:7: `ksm`", "choose `pages = true`"),
        ("[experiment.idle]\nwindow-s = 0\n", "bad.toml:2:12: ", "from 0.01 to 3600"),
        ("[experiment.cpu]\nfbi = 3\n", "bad.toml:2:1: unknown field `fbi`", "did you mean `fib`?"),
        ("[conditions]\nvcpus = 0\n", "bad.toml:2:9: `vcpus`", "from 1 to 64"),
        ("[conditions]\ntimeout = 3\n", "bad.toml:2:1: unknown field `timeout`", "did you mean `timeout-s`?"),
    ];
    let combinations = [
        (
            "experiments = [\"cpu\"]\nsandboxes = [\"kvm-floor\"]\n",
            "bad.toml:2:16: `cpu` asks a server",
            "`cold-start`",
        ),
        ("experiments = [\"wram\"]\nsandboxes = [\"process\"]\n", "bad.toml:2:16: there is no experiment", "`warm`?"),
        ("experiments = [\"cpu\"]\nsandboxes = [\"procss\"]\n", "bad.toml:3:14: there is no sandbox", "`process`?"),
        (
            "experiments = [\"cpu\"]\nsandboxes = [\"process\"]\nworkloads = [\"goo\"]\n",
            "bad.toml:4:14: there is no workload",
            "`go`?",
        ),
    ];
    let cases = cases.into_iter().map(|(text, reason, choice)| (format!("{text}{matrix}"), reason, choice));
    let combinations = combinations.map(|(text, reason, choice)| (format!("[[matrix]]\n{text}"), reason, choice));
    for (text, reason, choice) in cases.chain(combinations) {
        std::fs::write(&file, &text).unwrap();
        let output = run(&file, &out, &[]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{text}: {told}");
        assert!(told.contains(reason) && told.contains(choice), "{text}: {told}");
        assert!(!out.exists(), "nothing was started: {text}");
    }
}
