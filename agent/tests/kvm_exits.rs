//! Exits of a guest that makes a known number of them, from the tracepoints to the account of the vCPU thread's time.
//!
//! They need a KVM that traces entries and exits: hardware, or the lab (`cargo xtask lab`). Names of reasons are those of AMD's
//! and Intel's virtualisation.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::{aggregate, probes, spawn_in_scope, spawn_marked};
use sandscope::{
    correlate::{
        Category, Element, ExitCount, Graph, Histories, History, Names, Source, Span, ThreadTotals, View, exits,
        threads,
    },
    probe::{Limits, Options, Probes, Record, Recording},
    role::RoleRule,
    testing::skip,
};
use sandscope_ebpf::sums;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

const FLOOR: &str = env!("CARGO_BIN_EXE_sandscope-kvm-floor");
const SCOPE: u16 = 11;
const RULES: &[RoleRule] = &[RoleRule { role: "vmm", contains: "sandscope-kvm-floor", forked: None }];
/// Port writes of a guest that is told to do nothing: its console, and the end.
const OTHER_PORT_WRITES: u64 = "sandscope floor: up\nsandscope floor: done\n".len() as u64 + 1;
/// Pages that the guest needs for itself: its code and its parameters.
const OWN_PAGES: u64 = 2;

const IO: &[&str] = &["io", "io_instruction"];
const HLT: &[&str] = &["hlt"];
const FAULT: &[&str] = &["npf", "ept_violation", "ept_misconfig"];

/// Loaded once: in the lab that takes seconds.
static LOADED: Mutex<Option<Probes>> = Mutex::new(None);

/// A run of the floor as the probes saw it.
struct Observed {
    recording: Recording,
    histories: Histories,
    spans: Vec<Vec<Span>>,
    exits: Vec<ExitCount>,
    totals: Vec<ThreadTotals>,
    names: Names,
    start_ns: u64,
    /// From before its start until it was over.
    wall_ns: u64,
    /// What the floor says of itself.
    report: Value,
}

/// Runs the floor with these options, or reports that the host can't do what the test is about.
fn observe(test: &str, options: &str) -> Option<Observed> {
    if !cfg!(target_arch = "x86_64") {
        skip(test, "kvm", "the guest of the floor is for x86-64 only");
        return None;
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        skip(test, "kvm", format!("can't open /dev/kvm: {error}"));
        return None;
    }
    // Of a test that has failed they may still be attached, and hold what it recorded.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let probes = match &mut *loaded {
        Some(probes) => probes,
        none => none.insert(probes(test, Options::default())?),
    };
    probes.take().unwrap();
    probes.attach().unwrap();
    let mut command = Command::new(FLOOR);
    command.args(options.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start_ns = sandscope::host::clock::monotonic_ns();
    let child = spawn_in_scope(probes, SCOPE, &mut command);
    let spawned_ns = sandscope::host::clock::monotonic_ns();
    let output = child.wait_with_output().unwrap();
    let wall_ns = sandscope::host::clock::monotonic_ns() - start_ns;
    probes.detach();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options}: {}: {errors}", output.status);
    let report = serde_json::from_str(&errors).unwrap();
    let recording = probes.take().unwrap();
    assert_eq!(recording.lost.all(), 0);
    if !recording.records.iter().any(|record| matches!(record, Record::KvmExit(_))) {
        skip(test, "kvm-exits", "this host's KVM does not trace exits");
        return None;
    }
    let end_ns = recording.records.last().unwrap().header().at_ns;
    let (histories, names) =
        common::histories(&recording, Source { scope: SCOPE, rules: RULES, ..Source::default() }, spawned_ns, probes);
    let spans: Vec<_> = histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect();
    let view = View { records: &recording.records, histories: &histories, names: &names };
    let exits = exits(&view, &(0..u64::MAX));
    let totals = threads(&histories, &spans, &(start_ns..end_ns));
    Some(Observed { recording, histories, spans, exits, totals, names, start_ns, wall_ns, report })
}

impl Observed {
    /// How often a source counted one of these reasons; all reasons if none is given.
    fn count(&self, source: &str, reasons: &[&str]) -> u64 {
        let wanted = |exit: &&ExitCount| {
            exit.source == source && (reasons.is_empty() || reasons.contains(&exit.reason.as_str()))
        };
        self.exits.iter().filter(wanted).map(|exit| exit.count).sum()
    }

    /// The thread of the vCPU, and what its time was.
    fn vcpu(&self) -> (&History, &ThreadTotals) {
        let mut vcpus = self.histories.tasks.iter().zip(&self.totals).filter(|(history, _)| history.vcpu.is_some());
        let vcpu = vcpus.next().expect("a vCPU ran");
        assert!(vcpus.next().is_none(), "there is one vCPU");
        vcpu
    }

    /// A count of KVM's own statistics of the vCPU.
    fn statistic(&self, name: &str) -> u64 {
        self.report["vcpu_stats"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.report))
    }
}

#[test]
fn n_port_writes_are_n_exits_for_io() {
    const WRITES: u64 = 2000;
    let Some(seen) = observe("n_port_writes_are_n_exits_for_io", &format!("--pio {WRITES}")) else { return };
    let all = WRITES + OTHER_PORT_WRITES;
    assert_eq!(seen.count("kvm_exit", IO), all, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_pio", &["io_out"]), all, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_userspace_exit", &["io"]), all, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_userspace_exit", &[]), all, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_exit", HLT), 0, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_mmio", &[]), 0, "{:?}", seen.exits);
    // Each with its port and its value: the guest numbers its writes.
    let values: Vec<u32> = seen
        .recording
        .records
        .iter()
        .filter_map(|record| match record {
            Record::KvmPio(pio) if pio.port == 0x5f0 => Some(pio.value),
            _ => None,
        })
        .collect();
    assert_eq!(values, (0..WRITES as u32).collect::<Vec<_>>());
}

#[test]
fn m_halts_are_m_exits_and_m_wakeups() {
    const HALTS: u64 = 12;
    const INTERVAL_NS: u64 = 20_000_000;
    let options = format!("--hlt {HALTS} --hlt-interval-ns {INTERVAL_NS}");
    let Some(seen) = observe("m_halts_are_m_exits_and_m_wakeups", &options) else { return };
    assert_eq!(seen.count("kvm_exit", HLT), HALTS, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_vcpu_wakeup", &["halt"]), HALTS, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_exit", IO), OTHER_PORT_WRITES, "{:?}", seen.exits);
    let halted = seen.exits.iter().filter(|exit| exit.source == "kvm_vcpu_wakeup").filter_map(|exit| exit.time_ns);
    let (halted, asked): (u64, u64) = (halted.sum(), HALTS * INTERVAL_NS);
    // The timer may be late by as much as the host likes, but nothing is longer than the run.
    let possible = asked / 2..=seen.wall_ns;
    assert!(possible.contains(&halted), "halted for {halted} ns of {asked} in {} ns", seen.wall_ns);
    // The thread gives its CPU away meanwhile: a wait, not the handling of an exit.
    let (_, totals) = seen.vcpu();
    assert!(possible.contains(&totals.blocked_ns), "{totals:?}");
    assert!(totals.exit_ns < asked / 2, "{totals:?}");
}

#[test]
fn k_accesses_to_emulated_memory_are_k_faults() {
    const WRITES: u64 = 300;
    const PAGES: u64 = 100;
    let options = format!("--mmio {WRITES} --touch {PAGES}");
    let Some(seen) = observe("k_accesses_to_emulated_memory_are_k_faults", &options) else { return };
    assert_eq!(seen.count("kvm_mmio", &["mmio_write"]), WRITES, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_mmio", &[]), WRITES, "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_userspace_exit", &["mmio"]), WRITES, "{:?}", seen.exits);
    // KVM may have to take a fault twice.
    let expected = WRITES + PAGES + OWN_PAGES;
    let faults = seen.count("kvm_exit", FAULT);
    assert!((expected..expected + 10).contains(&faults), "{faults} of {expected}: {:?}", seen.exits);
    // Those for the device are told apart, by where it is.
    let of_device = |exit: &&ExitCount| exit.source == "kvm_exit" && exit.detail.as_deref() == Some("mmio 0xd0000000");
    assert_eq!(seen.exits.iter().filter(of_device).map(|exit| exit.count).sum::<u64>(), WRITES, "{:?}", seen.exits);
    let devices = seen.exits.iter().filter(|exit| exit.source == "kvm_exit" && exit.detail.is_some());
    assert_eq!(devices.map(|exit| exit.count).sum::<u64>(), WRITES, "and no other exit: {:?}", seen.exits);
}

#[test]
fn kvm_counts_the_same_exits() {
    let options = "--pio 500 --hlt 7 --hlt-interval-ns 5000000 --mmio 200 --touch 50 --spin 100000";
    let Some(seen) = observe("kvm_counts_the_same_exits", options) else { return };
    assert_eq!(seen.count("kvm_exit", &[]), seen.statistic("exits"), "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_exit", IO), seen.statistic("io_exits"), "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_exit", HLT), seen.statistic("halt_exits"), "{:?}", seen.exits);
    assert_eq!(seen.count("kvm_mmio", &[]), seen.statistic("mmio_exits"), "{:?}", seen.exits);
    let interrupts = seen.count("kvm_exit", &["interrupt", "external_interrupt"]);
    assert_eq!(interrupts, seen.statistic("irq_exits"), "{:?}", seen.exits);
}

#[test]
fn the_sums_of_all_reasons_are_as_many_exits_as_kvm_counts() {
    const TEST: &str = "the_sums_of_all_reasons_are_as_many_exits_as_kvm_counts";
    let options = "--pio 2000 --mmio 300 --hlt 9 --hlt-interval-ns 5000000 --touch 100 --spin 100000";
    // The timeline says whether this host traces exits at all, and skips the test if not.
    let Some(_seen) = observe(TEST, "") else { return };
    let Some(mut sums) = aggregate(TEST, Limits::default()) else { return };
    sums.attach().unwrap();
    let mut command = Command::new(FLOOR);
    command.args(options.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let floor = spawn_marked(&|tid, membership| sums.mark(tid, membership), SCOPE, &mut command);
    let output = floor.wait_with_output().unwrap();
    sums.detach();
    let report: Value = serde_json::from_slice(&output.stderr).unwrap();
    let snapshot = sums.snapshot(SCOPE).unwrap();
    let of = |source: sums::Source| -> u64 {
        snapshot.exits.values().filter(|exits| exits.source == source as u32).map(|exits| exits.count).sum()
    };
    assert_eq!(of(sums::Source::Device), 300, "those for the device are told apart");
    let counted = of(sums::Source::Exit) + of(sums::Source::Device);
    let by_kvm = report["vcpu_stats"]["exits"].as_u64().unwrap_or_else(|| panic!("{report}"));
    // An exit after which the guest never goes on, such as its last, is in no sum.
    assert!(counted.abs_diff(by_kvm) * 100 <= by_kvm, "{counted} exits are summed up, {by_kvm} counted by KVM");
}

#[test]
fn every_exit_has_its_entry() {
    let Some(seen) = observe("every_exit_has_its_entry", "--pio 500 --mmio 100 --hlt 5") else { return };
    let mut inside = false;
    let (mut entries, mut exits) = (0_u64, 0_u64);
    for record in &seen.recording.records {
        match record {
            // KVM may find at the last moment that it can't enter, and try again.
            Record::KvmEntry(_) => (inside, entries) = (true, entries + 1),
            Record::KvmExit(_) => {
                assert!(inside, "an exit without an entry after {exits} exits");
                (inside, exits) = (false, exits + 1);
            }
            _ => {}
        }
    }
    assert!(!inside, "the guest was entered for the last time and never left");
    assert!((exits..exits + exits / 100 + 3).contains(&entries), "{entries} entries, {exits} exits");
}

#[test]
fn the_life_of_the_vcpu_thread_adds_up() {
    // Long halts: in one that is over before the thread has given its CPU away, it does not wait.
    let options = "--pio 1000 --mmio 200 --hlt 5 --hlt-interval-ns 20000000 --touch 100 --spin 5000000";
    let Some(seen) = observe("the_life_of_the_vcpu_thread_adds_up", options) else { return };
    let (history, totals) = seen.vcpu();
    let spans = seen.histories.tasks.iter().position(|task| task.tid == history.tid).map(|index| &seen.spans[index]);
    let spans = spans.unwrap();
    let (born, died) = (spans.first().unwrap().start_ns, spans.last().unwrap().end_ns);
    assert!(spans.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns), "there are no gaps");
    let ThreadTotals { user_ns, kernel_ns, guest_ns, exit_ns, kvm_run_ns, runnable_ns, blocked_ns, .. } = *totals;
    let ThreadTotals { fault_ns, interrupt_ns, .. } = *totals;
    let own = user_ns + fault_ns + interrupt_ns;
    let sum = own + kernel_ns + guest_ns + exit_ns + kvm_run_ns + runnable_ns + blocked_ns;
    assert!(sum.abs_diff(died - born) <= 1000, "{sum} of {} ns: {totals:?}", died - born);
    for part in [user_ns, kernel_ns, guest_ns, exit_ns, kvm_run_ns, blocked_ns] {
        assert!(part > 0, "{totals:?}");
    }
    println!("{} ns: {totals:?}", died - born);
    // The life that the records of others tell: from the creation by the main thread to the last switch.
    let born_by_parent = seen.recording.records.iter().find_map(|record| match record {
        Record::TaskNew(new) if new.child_tid == history.tid => Some(new.header.at_ns),
        _ => None,
    });
    let last_switch = seen.recording.records.iter().rev().find_map(|record| match record {
        Record::Switch(switch) if switch.header.tid == history.tid => Some(switch.header.at_ns),
        _ => None,
    });
    assert_eq!((Some(born), Some(died)), (born_by_parent, last_switch));
}

#[test]
fn a_guest_that_computes_is_guest_time() {
    let Some(idle) = observe("a_guest_that_computes_is_guest_time", "") else { return };
    let Some(busy) = observe("a_guest_that_computes_is_guest_time", "--spin 20000000") else { return };
    let ((_, idle), (_, busy)) = (idle.vcpu(), busy.vcpu());
    // The loop is the guest's own: nothing but the interrupts of the host's clock come in between. What else there is, the idle
    // one has as well.
    let elsewhere = |totals: &ThreadTotals| totals.on_cpu_ns.saturating_sub(totals.guest_ns);
    let (guest, others) =
        (busy.guest_ns.saturating_sub(idle.guest_ns), elsewhere(busy).saturating_sub(elsewhere(idle)));
    assert!(guest > 3 * others, "{guest} ns in the guest, {others} ns elsewhere; idle: {idle:?}; busy: {busy:?}");
}

#[test]
fn exits_carry_the_address_of_the_guest() {
    const WRITES: usize = 700;
    let Some(seen) = observe("exits_carry_the_address_of_the_guest", &format!("--pio {WRITES}")) else { return };
    let output = Command::new(FLOOR).arg("--symbols").output().unwrap();
    let symbols: BTreeMap<u64, String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let (address, name) = line.split_once(' ').unwrap();
            (u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap(), name.to_owned())
        })
        .collect();
    let mut functions: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &seen.recording.records {
        let Record::KvmExit(exit) = record else { continue };
        if IO.contains(&seen.names.exits.name(exit.isa, exit.reason).as_str()) {
            let (_, name) = symbols.range(..=exit.guest_ip).next_back().expect("an address of the guest");
            *functions.entry(name).or_default() += 1;
        }
    }
    let console = OTHER_PORT_WRITES as usize - 1;
    assert_eq!(functions, BTreeMap::from([("console_write", console), ("pio_loop", WRITES), ("power_off", 1)]));
}

#[test]
fn the_account_of_wall_time_tells_guest_from_exits() {
    const TEST: &str = "the_account_of_wall_time_tells_guest_from_exits";
    // So many writes that most of the exits' time is theirs, however many interrupts of the host come while the guest computes.
    let Some(seen) = observe(TEST, "--pio 4000 --spin 5000000") else { return };
    // The life of the vCPU's thread is the path to its end.
    let (vcpu, totals) = seen.vcpu();
    let place = seen.histories.tasks.iter().position(|task| task.tid == vcpu.tid).unwrap();
    let end_ns = seen.spans[place].last().unwrap().end_ns;
    let graph = Graph::of(&seen.histories, &seen.recording.records, &seen.names, seen.start_ns, end_ns);
    let path = graph.path(vcpu.tid);
    assert_eq!(path.iter().map(Element::time_ns).sum::<u64>(), end_ns - seen.start_ns);
    let of = |category| path.iter().filter(|part| part.charge.category == category).map(Element::time_ns).sum::<u64>();
    assert_eq!(of(Category::Guest), totals.guest_ns);
    assert_eq!(of(Category::Exit), totals.exit_ns);
    let reason = |part: &Element| part.charge.detail_text(&seen.histories.texts, &seen.names).unwrap_or_default();
    let io = path.iter().filter(|part| part.charge.category == Category::Exit && IO.contains(&reason(part).as_str()));
    assert!(io.map(Element::time_ns).sum::<u64>() * 10 > totals.exit_ns * 5);
    assert!(of(Category::Guest) > 0);
    assert_eq!(of(Category::Unattributed), 0);
}
