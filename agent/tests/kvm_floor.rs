//! The floor makes exactly the exits that it is told to make: by its own report, by KVM's statistics, by the kernel's
//! tracepoints. It also runs under another VMM, and it is clear about what it can't do.

#![allow(clippy::print_stdout, reason = "the runner of the tests reads SKIP lines there")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

const FLOOR: &str = env!("CARGO_BIN_EXE_sandscope-kvm-floor");
const CONSOLE: &str = "sandscope floor: up\nsandscope floor: done\n";
/// Port writes of a guest that is told to do nothing: the console and the write that ends the VM.
const OTHER_PORT_WRITES: u64 = CONSOLE.len() as u64 + 1;

/// Says that a test can't run here, where the runner of the tests looks for it too.
fn skip(test: &str, feature: &str, reason: &str) {
    let line = format!("SKIP {test} [{feature}]: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("SANDSCOPE_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(path).expect("the skip log opens");
        log.write_all(line.as_bytes()).expect("the skip log can be written");
    }
}

/// Whether the test can use KVM; says so when not.
fn kvm(test: &str) -> bool {
    if !cfg!(target_arch = "x86_64") {
        skip(test, "kvm", "the guest of the floor is for x86-64 only");
        return false;
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            skip(test, "kvm", &format!("can't open /dev/kvm: {error}"));
            false
        }
    }
}

/// Runs the floor to its end and reads its report.
fn run(arguments: &str) -> Value {
    let output = Command::new(FLOOR).args(arguments.split_whitespace()).output().expect("the floor starts");
    check(&output, arguments)
}

fn check(output: &Output, arguments: &str) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {}: {errors}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stdout), CONSOLE, "{arguments}");
    serde_json::from_str(&errors).unwrap_or_else(|error| panic!("{arguments}: {error} in {errors}"))
}

#[test]
fn counts_are_exact() {
    if !kvm("counts_are_exact") {
        return;
    }
    for (pio, hlt, mmio) in [(0, 0, 0), (1, 1, 1), (1000, 0, 0), (0, 25, 0), (0, 0, 500), (777, 13, 333)] {
        let arguments = format!("--pio {pio} --hlt {hlt} --mmio {mmio} --spin 10 --touch 3");
        let report = run(&arguments);
        assert_eq!(report["ended"], "guest", "{arguments}");
        assert_eq!(report["pio_counted"], pio, "{arguments}");
        assert_eq!(report["console_bytes"], CONSOLE.len(), "{arguments}");
        assert_eq!(report["pio"], pio + OTHER_PORT_WRITES, "{arguments}");
        assert_eq!(report["exits"]["io"], pio + OTHER_PORT_WRITES, "{arguments}");
        assert_eq!(report["mmio"], mmio, "{arguments}");
        assert_eq!(report["exits"]["mmio"], mmio, "{arguments}");
        assert_eq!(report["halts_requested"], hlt, "{arguments}");
        let statistics = &report["vcpu_stats"];
        if statistics.is_null() {
            skip("counts_are_exact", "kvm_stats", report["vcpu_stats_missing"].as_str().expect("there is a reason"));
            continue;
        }
        assert_eq!(statistics["halt_exits"], hlt, "{arguments}: {report}");
        assert_eq!(statistics["mmio_exits"], mmio, "{arguments}: {report}");
        // A KVM that interprets ring 0 does not count port accesses here; hardware exits are counted.
        let io_exits = statistics["io_exits"].as_u64().expect("io_exits is a number");
        assert!(io_exits == 0 || io_exits == pio + OTHER_PORT_WRITES, "{arguments}: {report}");
    }
}

#[test]
fn a_halt_lasts_as_long_as_it_should() {
    if !kvm("a_halt_lasts_as_long_as_it_should") {
        return;
    }
    let report = run("--hlt 10 --hlt-interval-ns 20000000");
    let statistics = &report["vcpu_stats"];
    if statistics.is_null() {
        return skip("a_halt_lasts_as_long_as_it_should", "kvm_stats", "no statistics of a vCPU");
    }
    let waited = ["halt_wait_ns", "halt_poll_success_ns", "halt_poll_fail_ns"]
        .map(|name| statistics[name].as_u64().expect("a number of nanoseconds"));
    let waited: u64 = waited.iter().sum();
    assert!((150_000_000..2_000_000_000).contains(&waited), "10 halts of 20 ms took {waited} ns: {report}");
}

/// A floor that was told to stay, up to its last console line. Killed when a test fails before it stops it.
struct Staying {
    child: Child,
}

impl Staying {
    fn start(arguments: &str) -> Self {
        let child = Command::new(FLOOR)
            .args(arguments.split_whitespace())
            .arg("--stay")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the floor starts");
        let mut floor = Self { child };
        let console = floor.child.stdout.take().expect("stdout is a pipe");
        let last = BufReader::new(console).lines().nth(1).expect("the guest says two lines");
        assert_eq!(last.expect("they are text"), "sandscope floor: done");
        floor
    }

    fn process(&self) -> procfs::process::Process {
        procfs::process::Process::new(self.child.id() as i32).expect("the floor runs")
    }

    fn stop(mut self) -> (ExitStatus, Value) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the floor takes a signal");
        let errors = self.child.stderr.take().expect("stderr is a pipe");
        let report = serde_json::from_reader(errors).expect("the report is JSON");
        (self.child.wait().expect("the floor ends"), report)
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        // Both fail for a floor that has been waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn staying_costs_nothing_and_ends_with_a_report() {
    if !kvm("staying_costs_nothing_and_ends_with_a_report") {
        return;
    }
    let floor = Staying::start("--pio 5 --vcpus 2");
    let process = floor.process();
    // Each thread gives itself its name, the second maybe after the first has run the guest.
    let deadline = Instant::now() + Duration::from_secs(10);
    let threads = || -> BTreeSet<String> {
        let tasks = process.tasks().expect("threads");
        tasks.map(|task| task.expect("a thread").stat().expect("its stat").comm).collect()
    };
    while !["vcpu 0", "vcpu 1"].iter().all(|name| threads().contains(*name)) {
        assert!(Instant::now() < deadline, "{:?}", threads());
        std::thread::sleep(Duration::from_millis(1));
    }
    let ticks = || process.stat().map(|stat| stat.utime + stat.stime).expect("the floor runs");
    // A tick may be charged to whoever has the CPU for a moment; one that is not idle uses some in each window.
    let used = [(); 3].map(|()| {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        ticks() - before
    });
    assert!(used.iter().any(|used| *used <= 1), "an idle guest used CPU time: {used:?} ticks");
    let (status, report) = floor.stop();
    assert!(status.success(), "{status}");
    assert_eq!(report["ended"], "signal 15");
    assert_eq!(report["pio_counted"], 5);
    assert_eq!(report["pio"], 5 + CONSOLE.len(), "the guest has not ended the VM");
}

#[test]
fn each_touched_page_is_one_fault() {
    if !kvm("each_touched_page_is_one_fault") {
        return;
    }
    let faults = |pages: u64| {
        let floor = Staying::start(&format!("--touch {pages}"));
        let faults = floor.process().stat().expect("the floor runs").minflt;
        floor.stop();
        faults
    };
    let (none, some) = (faults(0), faults(2000));
    let more = some.saturating_sub(none);
    assert!((1990..2010).contains(&more), "2000 pages made {more} faults ({none} without them)");
}

#[test]
fn a_signal_before_the_end_shows_in_the_status() {
    if !kvm("a_signal_before_the_end_shows_in_the_status") {
        return;
    }
    let mut child = Command::new(FLOOR)
        .args(["--hlt", "1", "--hlt-interval-ns", "4000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the floor starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("stdout is a pipe")).read_line(&mut first).expect("a line");
    kill_process(Pid::from_child(&child), Signal::INT).expect("the floor takes a signal");
    let output = child.wait_with_output().expect("the floor ends");
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stderr).expect("the report is JSON");
    assert_eq!(report["ended"], "signal 2");
}

#[test]
fn bad_arguments_are_refused() {
    for (arguments, expected) in [
        ("--pio many", "--pio many: needs a whole number"),
        ("--hlt", "--hlt needs a value"),
        ("--hlt-interval-ns 0", "must be from 1"),
        ("--touch 5000", "give it --memory-mib 22"),
        ("--memory-mib 99999", "must be from 2 to 3072"),
        ("--bogus", "unknown option \"--bogus\""),
    ] {
        let output = Command::new(FLOOR).args(arguments.split_whitespace()).output().expect("the floor starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {errors}");
        assert!(errors.contains(expected), "{arguments}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn a_console_that_nobody_takes_fails_the_vm() {
    if !kvm("a_console_that_nobody_takes_fails_the_vm") {
        return;
    }
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full opens");
    let output = Command::new(FLOOR).stdout(full).output().expect("the floor starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("vCPU 0 failed at 0x1000") && errors.contains("can't write the guest's console"),
        "{errors}"
    );
}

#[test]
fn the_symbols_are_listed() {
    const TEST: &str = "the_symbols_are_listed";
    if !cfg!(target_arch = "x86_64") {
        return skip(TEST, "x86_64", "the guest of the floor is for x86-64 only");
    }
    let output = Command::new(FLOOR).arg("--symbols").output().expect("the floor starts");
    let text = String::from_utf8(output.stdout).expect("symbols are text");
    let symbols: Vec<_> = text.lines().map(|line| line.split_once(' ').expect("address and name")).collect();
    assert_eq!(symbols.first(), Some(&("100000", "pvh_start")));
    for name in ["pio_loop", "hlt_loop", "mmio_loop", "touch_loop", "spin_loop", "idle_loop", "console_write"] {
        assert!(symbols.iter().any(|symbol| symbol.1 == name), "{name} in {text}");
    }
}

/// The same guest under somebody else's VMM and processor: that the console and the end are as documented, and that
/// each HLT waits, does not hang on anything of our VMM.
#[test]
fn the_elf_file_boots_in_qemu() {
    const TEST: &str = "the_elf_file_boots_in_qemu";
    if !cfg!(target_arch = "x86_64") {
        return skip(TEST, "x86_64", "the guest of the floor is for x86-64 only");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let elf = folder.path().join("floor.elf");
    let status = Command::new(FLOOR).arg("--emit-elf").arg(&elf).status().expect("the floor starts");
    assert!(status.success(), "{status}");
    let start = Instant::now();
    let output = Command::new("qemu-system-x86_64")
        .args(["-M", "microvm,x-option-roms=off,isa-serial=on,pit=off,pic=off,rtc=off", "-accel", "tcg", "-m", "64"])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(["-append", "quiet pio=100 x.y=1 hlt=5 hlt_ns=50000000 mmio=10  touch=20 spin=1000"])
        .arg("-kernel")
        .arg(&elf)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(TEST, "qemu", &format!("qemu-system-x86_64: {error}")),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), CONSOLE, "{errors}");
    // isa-debug-exit makes 2 v + 1 of what the guest writes.
    assert_eq!(output.status.code(), Some(0x10 << 1 | 1), "{errors}");
    assert!(start.elapsed() >= Duration::from_millis(250), "5 halts of 50 ms took {:?}", start.elapsed());
}

#[test]
fn a_host_without_kvm_is_told_what_to_do() {
    const TEST: &str = "a_host_without_kvm_is_told_what_to_do";
    if !cfg!(target_arch = "x86_64") {
        return skip(TEST, "kvm", "the guest of the floor is for x86-64 only");
    }
    // The file system over /dev is gone with the namespace.
    let hide = "mount -t tmpfs none /dev && exec \"$0\"";
    let Ok(output) = Command::new("unshare").args(["--mount", "sh", "-c", hide, FLOOR]).output() else {
        return skip(TEST, "unshare", "util-linux is not installed");
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.starts_with("sandscope-kvm-floor: ") {
        return skip(TEST, "mount_namespace", errors.trim());
    }
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("can't open /dev/kvm") && errors.contains("nested virtualisation"), "{errors}");
}

/// A tracing instance of our own that follows the children of this thread; removed in the end.
struct Tracing {
    folder: PathBuf,
}

impl Tracing {
    fn new(events: &[&str]) -> std::io::Result<Self> {
        let root = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
        let root = root.iter().find(|path| path.join("instances").is_dir());
        let root =
            root.ok_or_else(|| std::io::Error::other("not mounted; mount -t tracefs tracefs /sys/kernel/tracing"))?;
        let thread = rustix::thread::gettid();
        let folder = root.join(format!("instances/sandscope-test-{}", thread.as_raw_nonzero()));
        fs::create_dir(&folder)?;
        let tracing = Self { folder };
        tracing.write("buffer_size_kb", "8192")?;
        tracing.write("options/event-fork", "1")?;
        tracing.write("set_event_pid", &thread.as_raw_nonzero().to_string())?;
        for event in events {
            tracing.write(&format!("events/kvm/{event}/enable"), "1")?;
        }
        Ok(tracing)
    }

    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        fs::write(self.folder.join(file), value)
            .map_err(|error| std::io::Error::other(format!("{}/{file}: {error}", self.folder.display())))
    }

    /// Counts the events so far by what `key` makes of an event's name and text.
    fn count(&self, key: impl Fn(&str, &str) -> Option<String>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for line in BufReader::new(File::open(self.folder.join("trace")).expect("the trace")).lines() {
            let line = line.expect("the trace is text");
            assert!(!line.contains("LOST"), "the trace is not complete: {line}");
            if let Some((written, rest)) =
                line.strip_prefix("# entries-in-buffer/entries-written: ").and_then(|l| l.split_once('/'))
            {
                assert!(rest.starts_with(written), "the trace is not complete: {line}");
            }
            let event = line.split_once(": ").and_then(|(_, event)| event.split_once(": "));
            if let Some(key) = event.filter(|_| !line.starts_with('#')).and_then(|(name, text)| key(name, text)) {
                *counts.entry(key).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{} is left over: {error}", self.folder.display());
        }
    }
}

/// A traced run of the floor and its trace, unless tracing is not to be had.
fn traced(test: &str, events: &[&str], arguments: &str) -> Option<Tracing> {
    if !kvm(test) {
        return None;
    }
    match Tracing::new(events) {
        Ok(tracing) => {
            run(arguments);
            Some(tracing)
        }
        Err(error) => {
            skip(test, "tracefs", &error.to_string());
            None
        }
    }
}

/// Where nobody has mounted tracefs, it is mounted for the test alone.
fn with_tracefs(test: &str, body: fn()) {
    if let Err(error) = sandscope::host::tracefs::with_tracefs(|_| body()) {
        skip(test, "tracefs", &error.to_string());
    }
}

#[test]
fn tracepoints_count_the_same() {
    with_tracefs("tracepoints_count_the_same", events_of_kvm_are_counted);
}

fn events_of_kvm_are_counted() {
    // Long halts: one that is over before HLT is executed, because the thread lost its CPU, is no wake-up.
    let events = ["kvm_pio", "kvm_mmio", "kvm_vcpu_wakeup"];
    let arguments = "--pio 1500 --mmio 700 --hlt 12 --hlt-interval-ns 20000000";
    let Some(tracing) = traced("tracepoints_count_the_same", &events, arguments) else {
        return;
    };
    let counts = tracing.count(|name, text| {
        let place = text.split_whitespace().find(|word| word.starts_with("0x"));
        let words: Vec<_> = text.split_whitespace().collect();
        Some(match (name, place) {
            ("kvm_pio", Some(port)) => format!("pio {port}"),
            ("kvm_mmio", _) => format!("mmio {}", words.get(5).expect("kvm_mmio has an address")),
            _ => name.to_owned(),
        })
    });
    let expected = [
        ("kvm_vcpu_wakeup", 12),
        ("mmio 0xd0000000", 700),
        ("pio 0x3f8", CONSOLE.len() as u64),
        ("pio 0x5f0", 1500),
        ("pio 0xf4", 1),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn hardware_exits_are_those_of_the_guest() {
    with_tracefs("hardware_exits_are_those_of_the_guest", exits_of_kvm_are_counted);
}

fn exits_of_kvm_are_counted() {
    const TEST: &str = "hardware_exits_are_those_of_the_guest";
    let arguments = "--pio 2000 --mmio 300 --hlt 10 --touch 100";
    let Some(tracing) = traced(TEST, &["kvm_exit"], arguments) else {
        return;
    };
    let counts = tracing.count(|name, text| {
        let reason = text.split_once("reason ").and_then(|(_, rest)| rest.split_whitespace().next());
        (name == "kvm_exit").then(|| reason.expect("kvm_exit has a reason").to_owned())
    });
    if counts.is_empty() {
        return skip(TEST, "kvm-exits", "this host's KVM makes no kvm_exit events");
    }
    // The names of AMD's and Intel's reasons.
    let count = |reasons: &[&str]| reasons.iter().filter_map(|reason| counts.get(*reason)).sum::<u64>();
    assert_eq!(count(&["io", "IO_INSTRUCTION"]), 2000 + OTHER_PORT_WRITES, "{counts:?}");
    assert_eq!(count(&["hlt", "HLT"]), 10, "{counts:?}");
    assert_eq!(count(&["cpuid", "CPUID"]), 1, "{counts:?}");
    // MMIO, touched pages, the image's page and the parameters' page; KVM may have to take a fault twice.
    let faults = count(&["npf", "EPT_VIOLATION", "EPT_MISCONFIG"]);
    assert!((402..412).contains(&faults), "{counts:?}");
}
