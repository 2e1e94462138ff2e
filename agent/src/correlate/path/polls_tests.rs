//! Runtimes whose threads hand work to each other unseen: monitors that look for it, and tickers.

use super::{Category, testing::*};
use crate::{correlate::testing::*, probe::Record};
use sandscope_ebpf::event::WakeCause;

/// A microsecond; the beginnings of recordings are in nanoseconds.
const US: u64 = 1000;
/// The thread that looks again and again.
const LOOKER: u32 = 31;
const FUTEX: i32 = 202;

/// A process of three threads: the first computes, one waits for another, and one looks.
fn beside_a_monitor() -> Vec<Record> {
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, LOOKER)]);
    records.push(switch(133, PROCESS, 0, OTHER));
    records.push(leaves_in(WAIT, 134, switch(134, OTHER, INTERRUPTIBLE, STRANGER)));
    records.extend([switch(135, STRANGER, 0, PROCESS), switch(136, STRANGER, 0, LOOKER)]);
    records
}

/// One in which the first thread waits from 600 on, and the looker has its CPU.
fn beside_a_ticker() -> Vec<Record> {
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, LOOKER)]);
    records.push(switch(133, PROCESS, 0, LOOKER));
    records.push(leaves_in(READ, 500, switch(600, PROCESS, INTERRUPTIBLE, STRANGER)));
    records
}

/// The looker sleeps, and its timer is over.
fn look(since_ns: u64, at_ns: u64) -> [Record; 3] {
    [
        switch(since_ns, LOOKER, INTERRUPTIBLE, STRANGER),
        wake(at_ns, LOOKER, WakeCause::Hrtimer, 0xabc, b"x"),
        switch(at_ns, STRANGER, 0, LOOKER),
    ]
}

/// The path to what a thread does at the end, of records in any order.
fn path_to(tid: u32, end_ns: u64, records: &[Record]) -> Account {
    let mut records = records.to_vec();
    records.sort_by_key(|record| record.header().at_ns);
    Account::of(&records, tid, RUNS_NS, end_ns)
}

#[test]
fn a_monitor_that_looks_again_and_again_is_on_the_path_for_its_last_look_alone() {
    let mut records = beside_a_monitor();
    // The process computes until 60 µs and blocks in a call. The monitor looks each 20 µs, and at 80 it lets the other thread go on.
    records.extend((1..5).flat_map(|number| look(number * 20 * US - 15 * US, number * 20 * US)));
    records.push(leaves_in(READ, 59 * US, switch(60 * US + 7 * US, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.extend([wakes(81 * US, LOOKER, OTHER), switch(82 * US, STRANGER, 0, OTHER)]);
    let account = path_to(OTHER, 90 * US, &records);
    // From when the process blocked to when the monitor looked.
    assert_eq!(account.time(Category::Timer, "runtime", ""), 13 * US);
    assert_eq!(unexplained(&account), 0);
    let own = account.time(Category::User, "runtime", "") + account.time(Category::Kernel, "runtime", "");
    assert!(own + account.time(Category::User, "launcher", "") >= 75 * US, "{own}");
}

#[test]
fn a_thread_that_holds_others_up_is_on_the_path_with_what_it_waits_for_and_not_the_monitor_that_steps_in() {
    let mut records = beside_a_monitor();
    records.extend((1..5).flat_map(|number| look(number * 20 * US - 15 * US, number * 20 * US)));
    records.push(leaves_in(READ, 59 * US, switch(67 * US, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.extend([wakes(81 * US, LOOKER, OTHER), switch(82 * US, STRANGER, 0, OTHER)]);
    // It waits for a grace period until after the monitor has looked.
    records.push(wake(85 * US, PROCESS, WakeCause::Task, 0, b"rcu_preempt"));
    let account = path_to(OTHER, 90 * US, &records);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Rcu, "runtime", "rcu_preempt"), 13 * US);
    // Without it nobody would have had to step in.
    assert_eq!(account.saves(Category::Rcu), 13 * US);
    // One that is over before leaves the rest to the monitor's timer.
    let last = records.len() - 1;
    records[last] = wake(70 * US, PROCESS, WakeCause::Task, 0, b"rcu_preempt");
    let account = path_to(OTHER, 90 * US, &records);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 10 * US);
    assert_eq!(account.time(Category::Rcu, "runtime", "rcu_preempt"), 3 * US);
}

#[test]
fn a_monitor_finds_the_call_that_was_in_progress_at_its_last_look_and_not_a_wait_that_was_over_before() {
    let mut records = beside_a_monitor();
    // The process waits for somebody outside until 300 µs, while the monitor rests.
    records.push(leaves_in(WAIT, 137, switch(138, LOOKER, INTERRUPTIBLE, STRANGER)));
    records.push(leaves_in(READ, US, switch(2 * US, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.push(wake(300 * US, PROCESS, WakeCause::Task, 0, b"somebody"));
    records.extend([switch(301 * US, STRANGER, 0, PROCESS), syscall(US, 301 * US, PROCESS, READ, 0)]);
    records.extend([wakes(302 * US, PROCESS, LOOKER), switch(303 * US, STRANGER, 0, LOOKER)]);
    // Then it is in a call, on a CPU, for 50 µs; the monitor looks twice meanwhile and then lets the other thread go on.
    for at in [320 * US, 340 * US, 360 * US] {
        records.extend(look(at - 15 * US, at));
    }
    records.push(leaves_in(READ, 310 * US, switch(358 * US, PROCESS, 0, STRANGER)));
    records.extend([wakes(361 * US, LOOKER, OTHER), switch(362 * US, STRANGER, 0, OTHER)]);
    let account = path_to(OTHER, 370 * US, &records);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 298 * US);
    assert_eq!(unexplained(&account), 0);
}

#[test]
fn a_ticker_that_wakes_an_idle_thread_is_not_the_cause_of_work_that_another_thread_has_just_got() {
    let with = |woken_ns: u64| {
        let mut records = beside_a_ticker();
        // Each 20 µs the ticker wakes the other thread, which rests again.
        for tick in 1..=10_u64 {
            let at = tick * 20 * US;
            records.push(leaves_in(FUTEX, at - 16 * US, switch(at - 15 * US, OTHER, INTERRUPTIBLE, STRANGER)));
            records.extend(look(at - 12 * US, at));
            records.extend([wakes(at + US, LOOKER, OTHER), switch(at + 2 * US, STRANGER, 0, OTHER)]);
        }
        // The process gets what it waited for.
        records.push(wake(woken_ns, PROCESS, WakeCause::Task, 0, b"somebody"));
        path_to(OTHER, 210 * US, &records)
    };
    // It is still on its way when the last tick wakes the other thread.
    let account = with(195 * US);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 195 * US - 600);
    // When nobody else is awake, the ticker is what there was.
    let account = with(205 * US);
    assert!(account.time(Category::Timer, "runtime", "") > 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 0);
}

#[test]
fn a_ticker_that_takes_what_another_thread_came_back_with_is_not_the_cause_of_it() {
    let mut records = beside_a_ticker();
    for tick in 1..=10_u64 {
        let at = tick * 20 * US;
        records.extend(look(at - 12 * US, at));
        // It has something to do each time.
        if tick < 10 {
            records.push(wakes(at + US, LOOKER, OTHER));
            records.push(switch(at + 2 * US, STRANGER, 0, OTHER));
            records.push(leaves_in(FUTEX, at + 3 * US, switch(at + 4 * US, OTHER, INTERRUPTIBLE, STRANGER)));
        }
    }
    // The process comes back, leaves that to others and rests; the last tick finds it.
    records.push(wake(190 * US, PROCESS, WakeCause::Task, 0, b"somebody"));
    records.extend([switch(191 * US, STRANGER, 0, PROCESS), syscall(500, 191 * US, PROCESS, READ, 0)]);
    records.push(leaves_in(FUTEX, 194 * US, switch(195 * US, PROCESS, INTERRUPTIBLE, STRANGER)));
    let account = path_to(LOOKER, 210 * US, &records);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 10 * US);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 190 * US - 600);
}
