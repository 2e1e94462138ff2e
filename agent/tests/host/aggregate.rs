//! Ground truth for the aggregate probes: each test knows the right counts before it runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crate::common::{aggregate, spawn_marked, subject};
use sandscope::{
    host::kallsyms::KernelSymbols,
    probe::{Aggregate, Limits, Snapshot},
    testing::skip,
};
use sandscope_ebpf::{
    event::WakeCause,
    sums::{Exits, Shortages, Source, State, Thread, Wakes},
};
use std::{
    fs::OpenOptions,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const FLOOR: &str = env!("CARGO_BIN_EXE_sandscope-kvm-floor");
/// Port writes that the floor's guest makes besides those that it is told to make: its console and its end.
const OTHER_PORT_WRITES: u64 = 43;
const KVM_EXIT_IO: u32 = 2;
const KVM_EXIT_MMIO: u32 = 6;

/// A command of the floor, unless this host has no KVM for it.
fn floor(test: &str, arguments: &str) -> Option<Command> {
    if !cfg!(target_arch = "x86_64") {
        skip(test, "x86_64", "the guest of the floor is for x86-64 only");
        return None;
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        skip(test, "kvm", format!("/dev/kvm: {error}"));
        return None;
    }
    let mut command = Command::new(FLOOR);
    command.args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(command)
}

fn start(probes: &Aggregate, scope: u16, command: &mut Command) -> Child {
    spawn_marked(&|tid, membership| probes.mark(tid, membership), scope, command)
}

/// Runs commands beside each other, each in a scope of its own from 1 on, and tells what was counted of each.
fn run(test: &str, commands: Vec<Command>) -> Option<Vec<Snapshot>> {
    run_timed(test, commands).map(|(snapshots, _)| snapshots)
}

/// The same, and how long they took, from the start of the first to the end of the last.
fn run_timed(test: &str, commands: Vec<Command>) -> Option<(Vec<Snapshot>, Duration)> {
    let mut probes = aggregate(test, Limits::default())?;
    probes.attach().unwrap();
    let begun = Instant::now();
    let started: Vec<_> =
        (1..).zip(commands).map(|(scope, mut command)| (scope, start(&probes, scope, &mut command))).collect();
    let scopes: Vec<u16> = started
        .into_iter()
        .map(|(scope, mut child)| {
            assert!(child.wait().unwrap().success());
            scope
        })
        .collect();
    let took = begun.elapsed();
    probes.detach();
    assert_eq!(probes.shortages().unwrap(), Shortages::default());
    let snapshots: Vec<_> = scopes.iter().map(|&scope| probes.snapshot(scope).unwrap()).collect();
    for &scope in &scopes {
        probes.forget(scope).unwrap();
        let left = probes.snapshot(scope).unwrap();
        assert!(left.threads.is_empty() && left.exits.is_empty() && left.wakes.is_empty());
    }
    Some((snapshots, took))
}

/// The only thread of a process with one thread; the launcher, which forked it, is in its scope too.
fn only_thread(snapshot: &Snapshot) -> (u32, &Thread) {
    let own: Vec<_> = snapshot
        .threads
        .iter()
        .filter(|(_, thread)| thread.tid != launcher())
        .map(|(slot, thread)| (*slot, thread))
        .collect();
    let [only] = own[..] else { panic!("{} threads", own.len()) };
    only
}

fn launcher() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// Wake-ups of a thread by a cause, with the cause's detail.
fn wakes(snapshot: &Snapshot, slot: u32, cause: WakeCause) -> Vec<(u64, Wakes)> {
    let of = snapshot.wakes.iter().filter(|(key, _)| u32::from(key.slot) == slot && key.cause == cause as u16);
    of.map(|(key, wakes)| (key.detail, *wakes)).collect()
}

fn exits(snapshot: &Snapshot, source: Source, code: u32) -> Option<Exits> {
    snapshot.exits.values().find(|exits| exits.source == source as u32 && exits.code == code).copied()
}

#[test]
fn n_sleeps_are_n_wakeups_by_the_sleeps_timer() {
    const TEST: &str = "n_sleeps_are_n_wakeups_by_the_sleeps_timer";
    const SLEEPS: u64 = 50;
    // Long ones: a timer that expires before the thread sleeps, because it lost its CPU in between, wakes nobody.
    const SLEEP_MS: u64 = 20;
    let command = subject(&format!("sleep {SLEEPS} {SLEEP_MS}"));
    let Some((snapshots, took)) = run_timed(TEST, vec![command]) else { return };
    let (slot, thread) = only_thread(&snapshots[0]);
    let by_timer = wakes(&snapshots[0], slot, WakeCause::Hrtimer);
    let [(function, wakes)] = by_timer[..] else { panic!("{by_timer:?}") };
    let mut symbols = KernelSymbols::default();
    symbols.learn([function]);
    assert_eq!(symbols.name(function), "hrtimer_wakeup");
    assert_eq!(wakes.count, SLEEPS);
    // A timer may be late by as much as the host likes, but nobody sleeps for longer than it lives. What the call does before it
    // sleeps is a part of the time that was asked for.
    let asked = Duration::from_millis(SLEEPS * SLEEP_MS);
    let slept = Duration::from_nanos(wakes.slept_ns);
    assert!(slept >= asked * 9 / 10 && slept <= took, "slept {slept:?} of {took:?}, asked for {asked:?}");
    assert!(wakes.on_cpu_after_ns > 0 && wakes.on_cpu_after_ns <= thread.on_cpu_ns);
    assert_eq!(thread.state, State::Dead as u32);
    assert!(thread.comm.starts_with(b"sandscope-test"));
    let latencies: u64 = thread.latency.0.iter().map(|&count| u64::from(count)).sum();
    assert!(latencies >= SLEEPS, "{latencies}");
    assert!(thread.causes_ns > 0);
}

#[test]
fn time_adds_up_to_the_life_of_a_thread() {
    let Some(snapshots) = run("time_adds_up_to_the_life_of_a_thread", vec![subject("spin 200")]) else { return };
    let (_, thread) = only_thread(&snapshots[0]);
    // It spins for 200 ms of wall time, so it runs or wants to, whatever else the host does.
    let busy = thread.on_cpu_ns + thread.runnable_ns;
    assert!((195_000_000..2_000_000_000).contains(&busy), "{busy}");
    assert!(thread.blocked_ns < busy, "{}", thread.blocked_ns);
}

#[test]
fn each_return_to_the_vmm_is_counted() {
    const TEST: &str = "each_return_to_the_vmm_is_counted";
    let Some(command) = floor(TEST, "--pio 3000 --mmio 700") else { return };
    let Some(snapshots) = run(TEST, vec![command]) else { return };
    let io = exits(&snapshots[0], Source::Return, KVM_EXIT_IO).unwrap();
    let mmio = exits(&snapshots[0], Source::Return, KVM_EXIT_MMIO).unwrap();
    // The last one ends the VM: no KVM_RUN comes after it.
    assert_eq!((io.count, mmio.count), (3000 + OTHER_PORT_WRITES - 1, 700));
    for exits in [io, mmio] {
        let in_buckets: u64 = exits.duration.0.iter().map(|&count| u64::from(count)).sum();
        assert_eq!(in_buckets, exits.count);
        assert!(exits.vmm_ns > 0 && exits.vmm_ns + exits.blocked_ns + exits.runnable_ns <= exits.total_ns, "{exits:?}");
    }
}

#[test]
fn n_halts_are_n_wakeups_by_the_guests_timer() {
    const TEST: &str = "n_halts_are_n_wakeups_by_the_guests_timer";
    const HALTS: u64 = 40;
    const INTERVAL_NS: u64 = 20_000_000;
    let Some(command) = floor(TEST, &format!("--hlt {HALTS} --hlt-interval-ns {INTERVAL_NS}")) else { return };
    let Some(snapshots) = run(TEST, vec![command]) else { return };
    let snapshot = &snapshots[0];
    let (slot, _) = snapshot.threads.iter().find(|(_, thread)| thread.vcpu != 0).unwrap();
    let halts = exits(snapshot, Source::Halt, 0).unwrap();
    assert!(halts.count.abs_diff(HALTS) <= 1, "{} halts", halts.count);
    let parts = halts.blocked_ns + halts.polled_ns + halts.runnable_ns;
    assert_eq!(parts, halts.total_ns);
    assert!(halts.blocked_ns * 2 > halts.total_ns, "{halts:?}");
    let by_timer = wakes(snapshot, *slot, WakeCause::Hrtimer);
    let mut symbols = KernelSymbols::default();
    symbols.learn(by_timer.iter().map(|(function, _)| *function));
    let guests = by_timer.iter().filter(|(function, _)| symbols.name(*function).contains("apic_timer_fn"));
    let woken: u64 = guests.map(|(_, wakes)| wakes.count).sum();
    // Polling may catch some, and then nobody needs to wake the vCPU.
    assert!(woken <= halts.count && halts.count - woken <= HALTS / 4, "{woken} of {} wake-ups", halts.count);
    let timers: u64 =
        snapshot.exits.values().filter(|exits| exits.source == Source::Timer as u32).map(|e| e.count).sum();
    assert!(timers.abs_diff(HALTS) <= 1, "{timers} times the timer was programmed");
}

#[test]
fn what_one_does_is_not_in_the_figures_of_another() {
    const TEST: &str = "what_one_does_is_not_in_the_figures_of_another";
    let (Some(few), Some(many)) = (floor(TEST, "--pio 100"), floor(TEST, "--pio 900")) else { return };
    let mut commands = vec![few, many];
    commands.extend((0..100).map(|_| subject("sleep 1 300")));
    let Some(snapshots) = run(TEST, commands) else { return };
    let io = |snapshot: &Snapshot| exits(snapshot, Source::Return, KVM_EXIT_IO).map(|exits| exits.count);
    assert_eq!(io(&snapshots[0]), Some(100 + OTHER_PORT_WRITES - 1));
    assert_eq!(io(&snapshots[1]), Some(900 + OTHER_PORT_WRITES - 1));
    for idle in &snapshots[2..] {
        assert!(idle.exits.is_empty());
        let (slot, thread) = only_thread(idle);
        let by_timer = wakes(idle, slot, WakeCause::Hrtimer);
        assert_eq!(by_timer.iter().map(|(_, wakes)| wakes.count).sum::<u64>(), 1, "{}", thread.tid);
    }
}

#[test]
fn what_finds_no_room_is_counted() {
    const TEST: &str = "what_finds_no_room_is_counted";
    let Some(mut probes) = aggregate(TEST, Limits { threads: 2, ..Limits::default() }) else { return };
    probes.attach().unwrap();
    let mut children: Vec<Child> = (0..6).map(|_| start(&probes, 1, &mut subject("sleep 3 5"))).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    probes.detach();
    assert!(probes.shortages().unwrap().threads > 0);
    assert!(probes.snapshot(1).unwrap().threads.len() <= 2);
}
