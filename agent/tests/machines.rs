//! Virtual machines on KVM: every VMM that this host has with every guest that it can run. In the lab this is where Linux runs on
//! hardware-style KVM.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::{
    aggregate,
    bench::{Bench, await_ready, get, kind, workload_executable},
    dataset::{Row, rows},
    explained::{self, Expected, GUEST, can_run, explain},
    guest_files, probes,
};
use sandscope::{
    correlate::Names,
    probe::{Limits, Options},
    record::{Dataset, Manifest},
    steady::{Attached, GuestSymbols, Target, Translators, Window},
};
use std::{fs, path::Path, time::Duration};
use ulid::Ulid;

const FLOOR_PHASES: &[&str] = &["spawn", "vmm", "vm_setup", "boot", "response"];
const LINUX_PHASES: &[&str] =
    &["spawn", "vmm", "vm_setup", "boot", "kernel", "init", "application", "callback", "response"];

/// Three lives of a kind of machine. Little memory, so that a snapshot of it is small.
fn is_explained_and_leaves_nothing(test: &str, machine: &Expected) {
    if can_run(test, machine.kind) {
        explain(test, &[machine], "rust", 3, &["--memory", "160M"]);
    }
}

#[test]
fn qemu_floor_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "qemu-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] };
    is_explained_and_leaves_nothing("qemu_floor_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_floor_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "firecracker-floor", phases: FLOOR_PHASES, markers: &[("guest_done", "console")] };
    is_explained_and_leaves_nothing("firecracker_floor_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn qemu_linux_is_explained_and_leaves_nothing() {
    let machine = Expected { kind: "qemu-linux", phases: LINUX_PHASES, markers: &GUEST };
    is_explained_and_leaves_nothing("qemu_linux_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_linux_is_explained_and_leaves_nothing() {
    // Only Firecracker's kernel sees a boot timer.
    let markers = &[GUEST[0], GUEST[1], ("boot_timer", "vmm"), GUEST[2], GUEST[3], GUEST[4], GUEST[5], GUEST[6]];
    let machine = Expected { kind: "firecracker-linux", phases: LINUX_PHASES, markers };
    is_explained_and_leaves_nothing("firecracker_linux_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn firecracker_restore_linux_is_explained_and_leaves_nothing() {
    let machine = Expected {
        kind: "firecracker-restore-linux",
        phases: &["spawn", "vmm", "restore", "response"],
        markers: &[("restored", "vmm"), ("first_response", "client")],
    };
    is_explained_and_leaves_nothing("firecracker_restore_linux_is_explained_and_leaves_nothing", &machine);
}

#[test]
fn guests_read_their_file_from_the_disk_of_the_host() {
    const TEST: &str = "guests_read_their_file_from_the_disk_of_the_host";
    let machines: Vec<_> = ["qemu-linux", "firecracker-linux"].into_iter().filter(|kind| can_run(TEST, kind)).collect();
    if machines.is_empty() || probes(TEST, Options::default()).is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (file, out) = (home.path().join("read.toml"), home.path().join("results"));
    let text = format!(
        "repetitions = 1\nprobes = \"with\"\n[conditions]\ntimeout-s = 600\nmemory = \"256M\"\n[[matrix]]\nexperiments = [\"read\"]\n\
         sandboxes = {machines:?}\nworkloads = [\"rust\"]\n"
    );
    fs::write(&file, text).unwrap();
    explained::run(&[file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    // Of each, an instance for each state of the host, which is asked twice.
    assert_eq!(guest_files::are_read_once(&out, &machines), 4 * machines.len());
}

/// Exits of the virtual machines of a process, as KVM counts them itself.
fn exits_by_kvm(pid: i32) -> u64 {
    let machines = fs::read_dir("/sys/kernel/debug/kvm").unwrap().flatten();
    let own = machines.filter(|machine| machine.file_name().to_string_lossy().starts_with(&format!("{pid}-")));
    own.map(|machine| fs::read_to_string(machine.path().join("exits")).unwrap().trim().parse::<u64>().unwrap()).sum()
}

/// Exits at addresses in these functions, of the rows of `guest_addresses` that are of a source.
fn exits_in(addresses: &[Row], source: &str, functions: &[&str]) -> i128 {
    let function = |row: &Row| row.text("symbol").split('+').next().unwrap_or_default().to_owned();
    let rows = addresses.iter().filter(|row| row.text("source") == source);
    rows.filter(|row| functions.contains(&function(row).as_str())).filter_map(|row| row.number("count")).sum()
}

#[test]
fn qemu_linux_that_runs_already_is_explained_by_its_exits() {
    const TEST: &str = "qemu_linux_that_runs_already_is_explained_by_its_exits";
    const REQUESTS: u32 = 200;
    const REST: Duration = Duration::from_secs(5);
    if !can_run(TEST, "qemu-linux") {
        return;
    }
    let Some(aggregate) = aggregate(TEST, Limits::default()) else { return };
    let (machine, bench) = (kind("qemu-linux").unwrap(), Bench::new());
    let symbols = machine.guest_symbols().expect("`cargo xtask images` writes them");
    let symbols = GuestSymbols::read(&symbols).unwrap();
    let mut instance = machine.prepare(&bench.specification("exits1", &workload_executable().unwrap())).unwrap();
    instance.launch().unwrap();
    await_ready(&bench.callback, "exits1", &mut *instance);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(Target::AllVms.find()).unwrap();
    let [pid] = found.iter().flat_map(|found| found.members.processes()).collect::<Vec<_>>()[..] else {
        panic!("{found:?} is not one machine")
    };
    let attached = Attached::to(found, aggregate).unwrap();
    let before = exits_by_kvm(pid);
    for _ in 0..REQUESTS {
        assert!(get(&*instance).starts_with("HTTP/1.1 200"));
    }
    std::thread::sleep(REST);
    let by_kvm = exits_by_kvm(pid) - before;
    let window = attached.detach().unwrap().remove(0);
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("exits1"), [""; 0]);

    let out = tempfile::tempdir().unwrap();
    let mut dataset = Dataset::create(out.path(), Ulid::generate(), &Manifest::new("attach", 0)).unwrap();
    let mut names = Names::of_running_kernel();
    window.learn(&mut names);
    Window::declare(&mut dataset).unwrap();
    window.append("1", None, &Translators { names: &names, guest: Some(&symbols) }, &mut dataset).unwrap();
    dataset.flush().unwrap();
    has_named_exits(out.path(), by_kvm);
}

/// All exits of the window are there, each with a reason, and where the guest was then.
fn has_named_exits(out: &Path, by_kvm: u64) {
    let exits: Vec<_> = rows(out, "exits").into_iter().filter(|row| row.text("source") == "kvm_exit").collect();
    let addresses = rows(out, "guest_addresses");
    for row in &exits {
        println!(
            "{} {} exits, {} ns",
            row.text("reason"),
            row.number("count").unwrap(),
            row.number("time_ns").unwrap()
        );
    }
    for row in &addresses {
        let [source, reason, address, symbol] = ["source", "reason", "address", "symbol"].map(|name| row.text(name));
        println!("{source} {reason} {address} {symbol}: {}", row.number("count").unwrap());
    }
    let counted: i128 = exits.iter().filter_map(|row| row.number("count")).sum();
    let by_kvm = i128::from(by_kvm);
    assert!((counted - by_kvm).abs() * 100 <= by_kvm, "{counted} exits are summed up, {by_kvm} counted by KVM");
    // Those that have no name are numbers.
    assert!(exits.iter().all(|row| row.text("reason").starts_with(|first: char| first.is_alphabetic())));
    let halts: i128 =
        exits.iter().filter(|row| row.text("reason") == "hlt").filter_map(|row| row.number("count")).sum();
    assert!(
        halts > 0 && exits_in(&addresses, "kvm_exit", IDLE_LOOP) >= halts,
        "it halts in its idle loop, {halts} times"
    );
    assert!(exits_in(&addresses, "timer", TIMER) > 0, "it sets its timer");
    // What runs in the guest's user mode and in its kernel's modules has no names.
    let unnamed = |row: &&Row| row.text("symbol").is_empty() && row.text("address").starts_with("0xffffffff8");
    let unnamed: Vec<_> = addresses.iter().filter(unnamed).map(|row| row.text("address")).collect();
    assert_eq!(unnamed, [""; 0], "addresses of the kernel without a name");
}

/// Where Linux halts when it has nothing to do, by version.
const IDLE_LOOP: &[&str] = &["native_safe_halt", "pv_native_safe_halt", "default_idle", "acpi_safe_halt"];
/// Where Linux sets its timer, by kind of timer.
const TIMER: &[&str] = &["native_write_msr", "lapic_next_deadline", "lapic_next_event", "native_apic_mem_write"];
