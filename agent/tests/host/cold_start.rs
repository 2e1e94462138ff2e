//! The main job from outside: the command is typed, and the tables it writes are held against what must be true of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{
    dataset::{Row, rows, sum},
    disturbance::undisturbed,
};
use anyhow::{Result, ensure};
use sandscope::{
    correlate::Names,
    experiment::{Arms, FaultTimes, Observation, Stage, Timelines, cold_start::ColdStart, cold_start::Progress},
    measure::page_cache::CacheState,
    probe::{Options, Probes},
    record::{Dataset, Manifest},
    sandbox::{
        Resources, Sandbox,
        kvm_floor::{Counts, KvmFloor},
        launcher::Launcher,
        network,
        run_dir::RunDirectory,
    },
    workload::Workload,
};
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// The sandboxes of the main job that this host can run; the others are reported as skipped.
fn runnable(test: &str) -> Vec<&'static str> {
    let kinds = ["process", "runc", "crun", "gvisor", "gvisor-ptrace", "kvm-floor"];
    let can_run = |kind: &&str| {
        let support = match *kind {
            // Its VMM is beside the command, not beside this test.
            "kvm-floor" => floor(Counts::default()).support(),
            _ => sandscope::sandbox::find(kind).expect("a known kind").support(),
        };
        if !support.is_usable() {
            sandscope::testing::skip(test, kind, support.evidence());
        }
        support.is_usable()
    };
    kinds.into_iter().filter(can_run).collect()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    // The workloads are where xtask builds them.
    command.env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"));
    command.args(["run", "cold-start"]).args(arguments).output().expect("the program can be started")
}

fn of<'a>(rows: &'a [Row], instance: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.text("instance_id") == instance).collect()
}

#[test]
fn every_nanosecond_of_every_sandbox_is_accounted_for() {
    const TEST: &str = "every_nanosecond_of_every_sandbox_is_accounted_for";
    if crate::common::probes(TEST, Options::default()).is_none() {
        return;
    }
    let kinds = runnable(TEST);
    undisturbed(|| starts_are_accounted_for(&kinds));
}

/// Starts each kind some times. That the account is complete is always true; that like starts take a like time is so where others
/// leave them the CPUs.
fn starts_are_accounted_for(kinds: &[&str]) -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let output = run(&["--sandbox", &kinds.join(","), "-n", "3", "--out", out.to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    println!("{printed}");

    let instances = rows(&out, "instances");
    assert_eq!(instances.len(), kinds.len() * 6);
    let (attribution, phases, markers) = (rows(&out, "attribution"), rows(&out, "phases"), rows(&out, "markers"));
    for instance in &instances {
        let (id, kind) = (instance.text("instance_id"), instance.text("sandbox"));
        assert_eq!(instance.number("ok"), Some(1), "{kind}: {}", instance.text("error"));
        let wall_ns = instance.number("wall_ns").unwrap();
        let phases = of(&phases, id);
        let of_phases: i128 =
            phases.iter().map(|phase| phase.number("end_ns").unwrap() - phase.number("start_ns").unwrap()).sum();
        assert_eq!(of_phases, wall_ns, "{kind}: the phases are the whole time");
        let shares = of(&attribution, id);
        if instance.number("probes") == Some(0) {
            assert!(shares.is_empty(), "{kind}: nothing is explained that no probe saw");
            continue;
        }
        assert_eq!(sum(shares.iter().copied(), "time_ns"), wall_ns, "{kind}: the account is the whole time");
        let unattributed: Vec<_> = shares.iter().filter(|share| share.text("category") == "unattributed").collect();
        assert_eq!(unattributed.len(), phases.len(), "{kind}: a row for each phase, also when it is nothing");
        let unexplained_ns = sum(unattributed.into_iter().copied(), "time_ns");
        assert!(unexplained_ns * 20 <= wall_ns, "{kind}: {unexplained_ns} of {wall_ns} ns are not explained");
        for phase in phases {
            let time_ns = phase.number("end_ns").unwrap() - phase.number("start_ns").unwrap();
            let within = shares.iter().filter(|share| share.text("phase") == phase.text("phase"));
            assert_eq!(sum(within.copied(), "time_ns"), time_ns, "{kind}, phase {}", phase.text("phase"));
        }
        let named = |name: &str| of(&markers, id).iter().any(|marker| marker.text("marker") == name);
        assert!(named("launch") && named("first_exec") && named("first_response"), "{kind}");
        // gVisor's sockets are not the host's.
        assert_eq!(named("listen"), matches!(kind, "process" | "runc" | "crun"), "{kind}");
        assert_eq!(named("callback"), kind != "kvm-floor", "{kind}");
        assert_eq!(named("workload_main"), kind != "kvm-floor", "{kind}");
        assert_eq!(named("first_frame_out"), kind != "kvm-floor", "{kind}");
        assert_eq!(named("console_first_byte"), kind == "kvm-floor", "{kind}");
    }
    let events = rows(&out, "events");
    assert_eq!(sum(&events, "lost_count"), 0);
    assert!(sum(&events, "seen_count") > 0);
    single_events_add_up(&out, &instances, kinds.len());
    one_start_prices_the_page_faults_of_all(&out, &instances, kinds)
}

/// Of three starts of a kind the first one's page faults are timed. The others have as many, and so what they take is alike.
fn one_start_prices_the_page_faults_of_all(out: &Path, instances: &[Row], kinds: &[&str]) -> Result<()> {
    let sched = rows(out, "sched");
    for kind in kinds {
        let mut recorded: Vec<&Row> =
            instances.iter().filter(|row| row.text("sandbox") == *kind && row.number("probes") == Some(1)).collect();
        recorded.sort_by_key(|row| row.number("position"));
        let fault_ns = |row: &&Row| sum(of(&sched, row.text("instance_id")), "fault_ns");
        let times = ["its own", "of others like it", "of others like it"];
        for (row, times) in recorded.iter().zip(times) {
            let said = format!(r#""page_fault_times":"{times}""#);
            assert!(row.text("conditions_json").contains(&said), "{kind}: {}", row.text("conditions_json"));
            let (first, this) = (fault_ns(&recorded[0]), fault_ns(row));
            assert!(this > 0, "{kind}: {this} ns");
            ensure!(this * 3 > first && this < first * 3, "{kind}: {this} ns, at first {first} ns");
        }
    }
    Ok(())
}

/// The single events of one start of each kind are those that the sums are of.
fn single_events_add_up(out: &Path, instances: &[Row], kinds: usize) {
    let time_ns = |row: &&Row| row.number("end_ns").unwrap() - row.number("start_ns").unwrap();
    let [account, threads, vcpus] = ["attribution_slices", "thread_slices", "vcpu_slices"].map(|name| rows(out, name));
    let [attribution, sched, wakeups, flows] =
        ["attribution", "sched", "wakeups", "wakeup_flows"].map(|name| rows(out, name));
    let ids: BTreeSet<_> = account.iter().map(|row| row.text("instance_id")).collect();
    assert_eq!(ids.len(), kinds, "one instance of each kind");
    for id in ids {
        let instance = instances.iter().find(|row| row.text("instance_id") == id).unwrap();
        let kind = instance.text("sandbox");
        assert!(instance.text("conditions_json").contains(r#""timeline":"complete""#), "{kind}");
        let account = of(&account, id);
        assert!(account.windows(2).all(|pair| pair[0].number("end_ns") == pair[1].number("start_ns")), "{kind}");
        assert_eq!(account.iter().map(time_ns).sum::<i128>(), instance.number("wall_ns").unwrap(), "{kind}");
        for share in of(&attribution, id) {
            let same = |slice: &&&Row| {
                let texts = ["phase", "category", "role", "syscall", "object", "stack", "detail"];
                slice.number("thread") == share.number("thread")
                    && texts.iter().all(|of| slice.text(of) == share.text(of))
            };
            let slices = account.iter().filter(same).map(time_ns).sum::<i128>();
            assert_eq!(Some(slices), share.number("time_ns"), "{kind}: {}", share.text("category"));
        }
        let threads = of(&threads, id);
        let columns =
            ["guest", "exit", "kvm_run", "user", "fault", "interrupt", "kernel", "runnable", "throttled", "blocked"];
        for category in columns {
            let slices = threads.iter().filter(|slice| slice.text("category") == category).map(time_ns).sum::<i128>();
            assert_eq!(slices, sum(of(&sched, id), &format!("{category}_ns")), "{kind}: {category}");
        }
        for pair in threads.windows(2).filter(|pair| pair[0].number("thread") == pair[1].number("thread")) {
            assert!(pair[0].number("end_ns") <= pair[1].number("start_ns"), "{kind}: slices of one thread overlap");
        }
        // Bystanders are in the flows, and not in the sums.
        let counted: BTreeSet<_> = of(&wakeups, id).iter().map(|row| row.number("tid")).collect();
        let flows = of(&flows, id);
        let ended =
            flows.iter().filter(|flow| counted.contains(&flow.number("tid")) && flow.number("waited_ns").is_some());
        assert_eq!(ended.clone().count() as i128, sum(of(&wakeups, id), "count"), "{kind}: wake-ups that ended a wait");
        assert_eq!(sum(ended.copied(), "waited_ns"), sum(of(&wakeups, id), "waited_ns"), "{kind}");
        let vcpus = of(&vcpus, id);
        assert_eq!(vcpus.is_empty(), kind != "kvm-floor");
        assert!(vcpus.windows(2).all(|pair| pair[0].number("end_ns") == pair[1].number("start_ns")), "{kind}");
    }
}

/// Says nothing.
struct Quiet;

impl Progress for Quiet {
    fn starts(&mut self, _: &str, _: bool) {}
    fn ended(&mut self, _: &Observation) {}
}

/// A floor whose guest does this.
fn floor(counts: Counts) -> KvmFloor {
    KvmFloor { executable: Some(env!("CARGO_BIN_EXE_sandscope-kvm-floor").into()), counts }
}

/// Runs one instance of a floor and writes its tables.
fn run_floor(out: &Path, base: &Path, probes: Probes, counts: Counts) {
    // Microvm and nothing else: the workload is only named.
    let executable = env!("CARGO_BIN_EXE_sandscope-kvm-floor").into();
    let workload = Workload::of_executable("none", executable);
    let run_id = Ulid::generate();
    let directory = RunDirectory::create(base, &run_id.to_string()).expect("a run directory");
    let sandboxes: Vec<Arc<dyn Sandbox>> = vec![Arc::new(floor(counts))];
    let experiment = ColdStart {
        sandboxes,
        workload,
        cache: CacheState::Primed,
        instances: 1,
        arms: Arms::Probed,
        seed: 1,
        timelines: Timelines::All,
    };
    let mut stage = Stage {
        launcher: Arc::new(Launcher::spawn().expect("a thread")),
        probes: Some(probes),
        fault_times: FaultTimes::default(),
        names: Names::of_running_kernel(),
        network: network::Mode::Private,
        resources: Resources::default(),
        cpus: None,
        callback_port: 3999,
        timeout: Duration::from_secs(60),
        interrupted: CancellationToken::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let manifest = Manifest::new("cold-start", 1);
    let dataset = Dataset::create(out, run_id, &manifest).expect("a dataset");
    let summary =
        runtime.block_on(experiment.run(&mut stage, &directory, dataset, &manifest, &mut Quiet)).expect("a run");
    assert_eq!(summary.sandboxes[0].first_error, None);
}

#[test]
fn a_guest_told_to_exit_so_often_is_found_to_have_done_so() {
    const TEST: &str = "a_guest_told_to_exit_so_often_is_found_to_have_done_so";
    // Long halts: one that is over before HLT is executed, because the thread lost its CPU, is no wake-up.
    let counts = Counts { pio: 1500, hlt: 12, hlt_interval_ns: 20_000_000, mmio: 700, touch: 50, spin: 0 };
    let support = floor(counts).support();
    if !support.is_usable() {
        return sandscope::testing::skip(TEST, "kvm", support.evidence());
    }
    let Some(probes) = crate::common::probes(TEST, Options::default()) else { return };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    run_floor(&out, &home.path().canonicalize().unwrap().join("run"), probes, counts);
    let exits = rows(&out, "exits");
    let count = |source: &str, reason: &str, detail: &str| {
        let matches = |row: &&Row| {
            row.text("source") == source && row.text("reason") == reason && row.text("detail").starts_with(detail)
        };
        sum(exits.iter().filter(matches), "count")
    };
    assert_eq!(count("kvm_pio", "io_out", "0x5f0"), 1500);
    // The lines "sandscope floor: up" and "sandscope floor: done".
    assert_eq!(count("kvm_pio", "io_out", "0x3f8"), 42);
    assert_eq!(count("kvm_mmio", "mmio_write", "0xd0000000"), 700);
    assert_eq!(count("kvm_vcpu_wakeup", "halt", ""), 12);
    assert_eq!(count("kvm_userspace_exit", "io", ""), 1542);
    assert_eq!(count("kvm_userspace_exit", "mmio", ""), 700);
    assert_eq!(sum(&rows(&out, "events"), "lost_count"), 0);
    let events = rows(&out, "exit_events");
    for source in ["kvm_pio", "kvm_mmio", "kvm_vcpu_wakeup", "kvm_userspace_exit", "kvm_exit"] {
        let of_source = |row: &&Row| row.text("source") == source;
        assert_eq!(events.iter().filter(of_source).count() as i128, sum(exits.iter().filter(of_source), "count"));
        assert_eq!(sum(events.iter().filter(of_source), "time_ns"), sum(exits.iter().filter(of_source), "time_ns"));
    }
    let halted = rows(&out, "vcpu_slices");
    let halted = halted.iter().filter(|slice| matches!(slice.text("state"), "halt" | "poll"));
    let halted: i128 = halted.map(|slice| slice.number("end_ns").unwrap() - slice.number("start_ns").unwrap()).sum();
    // Twelve halts of 20 ms; one that ends while the thread waits for a CPU is `run_queue` from then on.
    assert!((200_000_000..2_000_000_000).contains(&halted), "{halted}");
    let lines: Vec<_> = rows(&out, "console_lines");
    let numbers: BTreeSet<_> = lines.iter().map(|row| (row.text("source"), row.number("number"))).collect();
    assert_eq!(numbers.len(), lines.len(), "each line has a number of its own");
    let read = |text: &str| lines.iter().any(|row| row.text("source") == "kvm_pio" && row.text("line") == text);
    assert!(read("sandscope floor: up") && read("sandscope floor: done"));
}
