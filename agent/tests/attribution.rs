//! The account of wall time, on real recordings whose answer is known.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::{probes, spawn_in_scope, subject};
use sandscope::{
    correlate::{Bystander, Category, Duty, Histories, Names, Phase, Share, attribute},
    host::clock::monotonic_ns,
    probe::{ExitReasons, Options, Recording},
    sandbox::RoleRule,
};
use std::process::Command;

const SCOPE: u16 = 9;
const RULES: &[RoleRule] = &[
    RoleRule { role: "program", contains: "sandscope-test-subject", forked: None },
    RoleRule { role: "program", contains: "/sh", forked: None },
    RoleRule { role: "child", contains: "/bin/true", forked: None },
];

/// Runs a command in scope and accounts for the time from the first thing that its launcher does in scope to its end.
fn account(test: &str, command: &mut Command) -> Option<(u64, Vec<Share>, Recording)> {
    let mut probes = probes(test, Options::default())?;
    probes.attach().unwrap();
    let launcher = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    let mut child = spawn_in_scope(&probes, SCOPE, command);
    let spawned_ns = monotonic_ns();
    let status = child.wait().unwrap();
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    // The first and the last thing that happened in the scope: how long this thread waited for a CPU before it was in scope,
    // and before it took notice of the end, is not the command's time.
    let [start_ns, end_ns] =
        [recording.records.first(), recording.records.last()].map(|record| record.unwrap().header().at_ns);
    assert_eq!(recording.lost(), 0);
    let mut names = Names { exits: ExitReasons::of_running_kernel(), ..Names::default() };
    names.learn(&recording.records);
    let bystanders =
        [Bystander { tid: launcher, role: "launcher".to_owned(), duty: Duty::Acts, until_ns: Some(spawned_ns) }];
    let histories = Histories::of(&recording.records, SCOPE, &bystanders, RULES, &names);
    let spans: Vec<_> = histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect();
    let phases = [Phase { name: "all", start_ns, end_ns }];
    let shares = attribute(&histories, &spans, &recording.records, &phases, &names).shares;
    for share in &shares {
        let (category, role, detail) = (share.category.name(), &share.role, &share.detail);
        println!("{:>12} ns  {category:12} {role:?} {detail:?}", share.time_ns);
    }
    Some((end_ns - start_ns, shares, recording))
}

fn sum(shares: &[Share], wanted: impl Fn(&Share) -> bool) -> u64 {
    shares.iter().filter(|share| wanted(share)).map(|share| share.time_ns).sum()
}

fn assert_complete(wall_ns: u64, shares: &[Share]) {
    assert_eq!(sum(shares, |_| true), wall_ns, "every nanosecond has exactly one category");
    let unattributed = sum(shares, |share| share.category == Category::Unattributed);
    assert!(unattributed * 20 <= wall_ns, "{unattributed} of {wall_ns} ns are not explained");
}

#[test]
fn sleeps_are_waits_for_a_timer() {
    const SLEEPS: u64 = 20;
    const SLEEP_MS: u64 = 10;
    let mut command = subject(&format!("sleep {SLEEPS} {SLEEP_MS}"));
    let Some((wall_ns, shares, _)) = account("sleeps_are_waits_for_a_timer", &mut command) else {
        return;
    };
    assert_complete(wall_ns, &shares);
    let slept = sum(&shares, |share| {
        share.category == Category::WaitTimer
            && share.detail.as_deref().is_some_and(|detail| detail.contains("clock_nanosleep"))
    });
    let asked = SLEEPS * SLEEP_MS * 1_000_000;
    assert!((asked..asked + asked / 4).contains(&slept), "slept {slept} ns of {asked}");
}

#[test]
fn a_busy_loop_is_user_time_of_its_role() {
    let mut command = subject("spin 300");
    let Some((wall_ns, shares, _)) = account("a_busy_loop_is_user_time_of_its_role", &mut command) else {
        return;
    };
    assert_complete(wall_ns, &shares);
    let running = sum(&shares, |share| {
        matches!(share.category, Category::User | Category::Runnable) && share.role.as_deref() == Some("program")
    });
    assert!(running >= 290_000_000, "{running} ns in the loop");
}

#[test]
fn children_are_accounted_for_by_role() {
    let script = "i=0; while [ $i -lt 30 ]; do /bin/true; i=$((i+1)); done";
    let Some((wall_ns, shares, recording)) =
        account("children_are_accounted_for_by_role", Command::new("sh").args(["-c", script]))
    else {
        return;
    };
    assert_complete(wall_ns, &shares);
    let execs = recording.records.iter().filter(|r| matches!(r, sandscope::probe::Record::Exec(_))).count();
    assert_eq!(execs, 31);
    for role in ["program", "child"] {
        let time = sum(&shares, |share| share.role.as_deref() == Some(role));
        assert!(time * 50 > wall_ns, "{role} has only {time} of {wall_ns} ns");
    }
}
