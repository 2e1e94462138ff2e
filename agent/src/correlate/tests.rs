//! Written-down recordings with known accounts, and random ones that must add up.

use super::testing::*;
use super::{
    Activity, Bystander, Called, Category, Detail, Duty, Element, Graph, Histories, Missing, Names, Saving, Source,
    Span, Text, ThreadTotals, View, calls, exits, file_calls, flows, threads, vcpu_slices, wakeups,
};
use crate::probe::Record;
use bytemuck::Zeroable;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sandscope_ebpf::event::{
    Block, Faults, Header, Kind, KvmEntry, KvmExit, KvmHaltWake, KvmPio, PAGE_FAULT, Syscall, THROTTLED, Traps,
    WakeCause,
};
use sandscope_ebpf::map::FileUse;

fn histories(records: &[Record]) -> Histories {
    Histories::of(records, source(), &[])
}

fn spans(histories: &Histories, start_ns: u64, end_ns: u64) -> Vec<Vec<Span>> {
    histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect()
}

/// The critical path to what a thread does at the end, in words, with what parts of it would save.
struct Account {
    elements: Vec<(Element, String, String)>,
    savings: Vec<Saving>,
    texts: super::Texts,
    start_ns: u64,
    end_ns: u64,
}

impl Account {
    fn of(records: &[Record], tid: u32, start_ns: u64, end_ns: u64) -> Self {
        let histories = histories(records);
        let names = Names::default();
        let graph = Graph::of(&histories, records, &names, start_ns, end_ns);
        let path = graph.path(tid);
        let savings = graph.savings(tid, &path);
        let texts = histories.texts.clone();
        let word = |text: Option<Text>| text.map_or(String::new(), |text| texts.get(text).to_owned());
        let elements = path
            .into_iter()
            .map(|element| {
                let detail = element.charge.detail_text(&texts, &names).unwrap_or_default();
                (element, word(element.charge.role), detail)
            })
            .collect();
        let account = Self { elements, savings, texts, start_ns, end_ns };
        account.check();
        account
    }

    /// It has no gaps, and is the whole time.
    fn check(&self) {
        let mut at_ns = self.start_ns;
        for (element, ..) in &self.elements {
            assert_eq!(element.start_ns, at_ns, "the path has no gaps");
            assert!(element.end_ns > element.start_ns, "{element:?}");
            at_ns = element.end_ns;
        }
        assert_eq!(at_ns, self.end_ns.max(self.start_ns), "the path is the whole time");
        let whole_ns = self.end_ns.saturating_sub(self.start_ns);
        assert!(self.savings.iter().all(|saving| saving.saves_ns <= whole_ns && saving.time_ns <= whole_ns));
    }

    /// Time of a category and role; the detail must begin with `detail`.
    fn time(&self, category: Category, role: &str, detail: &str) -> u64 {
        let is = |(element, of, more): &&(Element, String, String)| {
            element.charge.category == category && of == role && more.starts_with(detail)
        };
        self.elements.iter().filter(is).map(|(element, ..)| element.time_ns()).sum()
    }

    /// What is saved without this category altogether.
    fn saves(&self, category: Category) -> u64 {
        let all = self.savings.iter().find(|saving| saving.charge.category == category && saving.charge.role.is_none());
        all.map_or(0, |saving| saving.saves_ns)
    }

    fn object(&self, category: Category) -> Option<&str> {
        let object = |(element, ..): &(Element, String, String)| element.charge.within.and_then(|within| within.object);
        let mut of = self.elements.iter().filter(|(element, ..)| element.charge.category == category);
        of.find_map(object).map(|object| self.texts.get(object))
    }
}

/// Time that nothing explains.
fn unexplained(account: &Account) -> u64 {
    let not = |(element, ..): &&(Element, String, String)| element.charge.category == Category::Unattributed;
    account.elements.iter().filter(not).map(|(element, ..)| element.time_ns()).sum()
}

/// A daemon is woken at 100, runs from 110 on, waits for a disk in `fsync` from 150 to 250, and runs from 260 to 300.
fn daemon_at_work() -> Vec<Record> {
    const FSYNC: i32 = 74;
    let mut leaves = switch(150, DAEMON, UNINTERRUPTIBLE, STRANGER);
    if let Record::Switch(leaves) = &mut leaves {
        (leaves.syscall, leaves.syscall_since_ns) = (FSYNC, 140);
    }
    vec![
        switch(60, LAUNCHER, INTERRUPTIBLE, STRANGER),
        wake(100, DAEMON, WakeCause::Task, 0, b"launcher"),
        switch(110, STRANGER, 0, DAEMON),
        leaves,
        wake(250, DAEMON, WakeCause::Task, 0, b"kworker/0:1"),
        switch(260, STRANGER, 0, DAEMON),
        syscall(140, 270, DAEMON, FSYNC, 0),
        switch(300, DAEMON, INTERRUPTIBLE, STRANGER),
    ]
}

/// The process from its execution on: the path of most tests begins where it runs as `runtime`.
const RUNS_NS: u64 = 130;

#[test]
fn a_launch_is_the_launchers_until_its_child_exists_and_then_the_childs() {
    let account = Account::of(&launch(), PROCESS, 50, 200);
    assert_eq!(account.time(Category::User, "launcher", ""), 50 + 20);
    // From 100 on the child waits for a CPU; that the launcher still has one is no part of it.
    assert_eq!(account.time(Category::Runnable, "launcher", ""), 10);
    assert_eq!(account.time(Category::User, "runtime", ""), 70);
}

#[test]
fn a_thread_that_computes_beside_a_wait_is_not_on_the_path() {
    let mut records = launch();
    records.extend([new_task(140, PROCESS, OTHER), switch(141, STRANGER, 0, OTHER)]);
    records.push(leaves_in(WAIT, 148, switch(150, PROCESS, INTERRUPTIBLE, STRANGER)));
    records.push(wake(180, PROCESS, WakeCause::Hrtimer, 0xabc, b"x"));
    records.push(switch(182, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Timer, "runtime", "0xabc"), 30);
    assert_eq!(account.time(Category::Runnable, "runtime", ""), 2);
    assert_eq!(account.time(Category::User, "runtime", "") + account.time(Category::Kernel, "runtime", ""), 20 + 18);
    assert_eq!(account.saves(Category::Timer), 30);
}

#[test]
fn whoever_ends_a_wait_is_on_the_path_from_then_on_and_before() {
    let mut records = launch();
    records.extend([new_task(135, PROCESS, OTHER), switch(136, STRANGER, 0, OTHER)]);
    records.push(switch(150, PROCESS, INTERRUPTIBLE, STRANGER));
    // The other one sleeps on a timer, computes, and wakes the first.
    records.push(switch(152, OTHER, INTERRUPTIBLE, STRANGER));
    records.push(wake(172, OTHER, WakeCause::Hrtimer, 0xabc, b"x"));
    records.extend([switch(173, STRANGER, 0, OTHER), wakes(185, OTHER, PROCESS), switch(186, STRANGER, 0, PROCESS)]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 20);
    assert_eq!(account.time(Category::User, "runtime", ""), 5 + 16 + 12 + 14);
    assert_eq!(account.time(Category::Runnable, "runtime", ""), 1 + 1 + 1);
    // Without the timer the first would wait only for what the other one computes.
    assert_eq!(account.saves(Category::Timer), 20);
}

#[test]
fn what_another_way_takes_as_long_saves_only_the_difference() {
    let mut records = launch();
    records.extend([new_task(135, PROCESS, OTHER), switch(135, STRANGER, 0, OTHER)]);
    // The other one sleeps until 170; the first computes until 160 and waits for it.
    records.push(switch(136, OTHER, INTERRUPTIBLE, STRANGER));
    records.push(switch(160, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(wake(170, OTHER, WakeCause::Hrtimer, 0xabc, b"x"));
    records.extend([switch(170, STRANGER, 0, OTHER), wakes(175, OTHER, PROCESS), switch(175, STRANGER, 0, PROCESS)]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 34);
    assert_eq!(account.saves(Category::Timer), 15);
}

#[test]
fn a_wait_for_a_grace_period_is_one_whatever_disk_is_busy_beside_it() {
    let mut records = launch();
    records.extend([new_task(132, PROCESS, OTHER), switch(133, STRANGER, 0, OTHER)]);
    records.push(leaves_in(READ, 138, switch(140, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    let block =
        Block { header: header(178, OTHER, Kind::Block), queued_ns: 139, device: (254 << 20) | 1, ..Block::zeroed() };
    records.push(Record::Block(block));
    records.push(wake(180, PROCESS, WakeCause::Task, 0, b"rcu_preempt"));
    records.push(switch(181, STRANGER, 0, PROCESS));
    records.push(object(138, 185, PROCESS, &["cgroup.procs", "a", "/"]));
    records.push(syscall(138, 185, PROCESS, READ, 0));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Rcu, "runtime", "rcu_preempt"), 40);
    assert_eq!(account.time(Category::BlockIo, "runtime", ""), 0);
    assert_eq!(account.object(Category::Rcu), Some("/a/cgroup.procs"));
    assert_eq!(account.object(Category::Kernel), Some("/a/cgroup.procs"));
    assert_eq!(account.saves(Category::Rcu), 40);
}

#[test]
fn a_wait_that_a_request_of_its_own_ends_is_for_the_disk() {
    let mut records = launch();
    records.push(leaves_in(READ, 139, switch(140, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    let block =
        Block { header: header(168, PROCESS, Kind::Block), queued_ns: 139, device: (254 << 20) | 1, ..Block::zeroed() };
    records.push(Record::Block(block));
    records.push(wake(170, PROCESS, WakeCause::Irq, 40, b"swapper"));
    records.push(switch(170, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::BlockIo, "runtime", "device 254:1"), 30);
}

#[test]
fn a_daemon_that_is_asked_hands_over_to_who_asked_and_its_own_waits_count() {
    let mut records = daemon_at_work();
    records.insert(1, wakes(100, LAUNCHER, DAEMON));
    // It was the daemon's first wake-up; the launcher waits for the answer.
    records.retain(|record| !matches!(record, Record::Wake(wake) if wake.header.tid == DAEMON && wake.header.at_ns == 100 && wake.waker_tid == STRANGER));
    records[0] = switch(102, LAUNCHER, INTERRUPTIBLE, STRANGER);
    records.swap(0, 1);
    records.insert(records.len() - 1, wakes(290, DAEMON, LAUNCHER));
    records.push(switch(310, STRANGER, 0, LAUNCHER));
    let account = Account::of(&records, LAUNCHER, 50, 350);
    assert_eq!(account.time(Category::User, "launcher", ""), 50 + 40);
    assert_eq!(account.time(Category::Runnable, "daemon", ""), 10 + 10);
    assert_eq!(account.time(Category::Outside, "daemon", "kworker"), 100);
    assert_eq!(account.time(Category::Kernel, "daemon", ""), 10 + 10);
    assert_eq!(unexplained(&account), 0);
}

#[test]
fn a_packet_hands_over_to_its_sender() {
    const SENDTO: i32 = 44;
    let mut records = launch();
    records.extend([new_task(132, PROCESS, OTHER), switch(133, STRANGER, 0, OTHER)]);
    records.push(leaves_in(READ, 139, switch(140, PROCESS, INTERRUPTIBLE, STRANGER)));
    records.extend([
        packet(170, PROCESS, OTHER),
        syscall(165, 175, OTHER, SENDTO, 0),
        switch(172, STRANGER, 0, PROCESS),
    ]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::User, "runtime", ""), 2 + 32 + 28);
    assert_eq!(account.time(Category::Kernel, "runtime", ""), 5);
    assert_eq!(account.time(Category::Network, "runtime", ""), 0);
    // Where nobody of the sandbox sends, it comes from outside.
    records.retain(|record| !matches!(record, Record::Syscall(_)));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Network, "runtime", "softirq NET_RX"), 30);
}

#[test]
fn time_without_a_cpu_has_who_had_it() {
    let mut records = launch();
    // Preempted by somebody outside, who is told when he leaves; then by a thread of its own on the same CPU.
    records.push(switch(140, PROCESS, 0, STRANGER));
    let Record::Switch(mut back) = switch(160, STRANGER, 0, PROCESS) else { panic!("a switch") };
    back.prev_comm[..9].copy_from_slice(b"stress-ng");
    records.push(Record::Switch(back));
    records.push(new_task(162, PROCESS, OTHER));
    records.extend([switch(165, PROCESS, 0, OTHER), switch(180, OTHER, 0, PROCESS)]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Runnable, "runtime", "stress-ng"), 20);
    assert_eq!(account.time(Category::Runnable, "runtime", "runtime"), 15);
    // Both are one thing that a free CPU would save.
    assert_eq!(account.saves(Category::Runnable), 35);
}

#[test]
fn a_cpu_limit_is_not_a_run_queue() {
    let mut records = launch();
    let Record::Switch(mut throttled) = switch(140, PROCESS, 0, STRANGER) else { panic!("a switch") };
    throttled.header.flags = THROTTLED;
    // Another thread is woken meanwhile, which is let go no earlier.
    records.insert(3, switch(128, STRANGER, 0, OTHER));
    records.insert(3, new_task(125, PROCESS, OTHER));
    records.extend([leaves_in(WAIT, 134, switch(135, OTHER, INTERRUPTIBLE, STRANGER)), Record::Switch(throttled)]);
    records.push(wake(150, OTHER, WakeCause::Hrtimer, 0xabc, b"x"));
    records.extend([switch(180, STRANGER, 0, PROCESS), switch(182, PROCESS, 0, OTHER)]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 181);
    assert_eq!(account.time(Category::Throttled, "runtime", ""), 40);
    let account = Account::of(&records, OTHER, RUNS_NS, 200);
    assert_eq!(account.time(Category::Throttled, "launcher", ""), 30);
    assert_eq!(account.time(Category::Runnable, "launcher", ""), 2);
}

#[test]
fn a_monitor_that_looks_again_and_again_is_on_the_path_for_its_last_look_alone() {
    const MONITOR: u32 = 31;
    let us = 1000;
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, MONITOR)]);
    records.push(switch(133, PROCESS, 0, OTHER));
    records.push(leaves_in(WAIT, 134, switch(134, OTHER, INTERRUPTIBLE, STRANGER)));
    records.extend([switch(135, STRANGER, 0, PROCESS), switch(136, STRANGER, 0, MONITOR)]);
    // The process computes until 60 µs and blocks in a call. The monitor looks each 20 µs, and at 80 it lets the other thread go on.
    for look in 1..5_u64 {
        let at = look * 20 * us;
        records.push(switch(at - 15 * us, MONITOR, INTERRUPTIBLE, STRANGER));
        if look == 4 {
            records.push(leaves_in(READ, 59 * us, switch(60 * us + 7 * us, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        }
        records.push(wake(at, MONITOR, WakeCause::Hrtimer, 0xabc, b"x"));
        records.push(switch(at, STRANGER, 0, MONITOR));
    }
    records.extend([wakes(81 * us, MONITOR, OTHER), switch(82 * us, STRANGER, 0, OTHER)]);
    let account = Account::of(&records, OTHER, RUNS_NS, 90 * us);
    // From when the process blocked to when the monitor looked.
    assert_eq!(account.time(Category::Timer, "runtime", ""), 13 * us);
    assert_eq!(unexplained(&account), 0);
    let own = account.time(Category::User, "runtime", "") + account.time(Category::Kernel, "runtime", "");
    assert!(own + account.time(Category::User, "launcher", "") >= 75 * us, "{own}");
}

#[test]
fn a_wait_that_a_worker_of_the_kernel_ends_is_for_what_the_kernel_was_waiting_for() {
    let account = |calls: &[u64], is_lock, by: &[u8]| {
        let mut records = launch();
        records.push(leaves_in(READ, 140, switch(150, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        records.push(wait_stack(180, PROCESS, calls, is_lock));
        records.push(wake(180, PROCESS, WakeCause::Task, 0, by));
        records.push(switch(190, STRANGER, 0, PROCESS));
        Account::of(&records, PROCESS, RUNS_NS, 200)
    };
    let worker = b"kworker/1:2".as_slice();
    // Nothing is known of these functions, so it is who ended it.
    assert_eq!(account(&[0x10], false, worker).time(Category::Outside, "runtime", "kworker"), 30);
    assert_eq!(account(&[0x10], true, worker).time(Category::Lock, "runtime", "kworker"), 30);
    assert_eq!(account(&[0x10], true, b"runc").time(Category::Lock, "runtime", "runc"), 30);
    // Whoever ends it: these threads end waits for grace periods alone.
    assert_eq!(account(&[0x10], true, b"rcu_preempt").time(Category::Rcu, "runtime", "rcu_preempt"), 30);
}

#[test]
fn a_monitor_finds_the_call_that_was_in_progress_at_its_last_look_and_not_a_wait_that_was_over_before() {
    const MONITOR: u32 = 31;
    let us = 1000;
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, MONITOR)]);
    records.push(switch(133, PROCESS, 0, OTHER));
    records.push(leaves_in(WAIT, 134, switch(134, OTHER, INTERRUPTIBLE, STRANGER)));
    records.extend([switch(135, STRANGER, 0, PROCESS), switch(136, STRANGER, 0, MONITOR)]);
    // The process waits for somebody outside until 300 µs, while the monitor rests.
    records.push(leaves_in(WAIT, 137, switch(138, MONITOR, INTERRUPTIBLE, STRANGER)));
    records.push(leaves_in(READ, us, switch(2 * us, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.push(wake(300 * us, PROCESS, WakeCause::Task, 0, b"somebody"));
    records.extend([switch(301 * us, STRANGER, 0, PROCESS), syscall(us, 301 * us, PROCESS, READ, 0)]);
    records.extend([wakes(302 * us, PROCESS, MONITOR), switch(303 * us, STRANGER, 0, MONITOR)]);
    // Then it is in a call, on a CPU, for 50 µs; the monitor looks twice meanwhile and then lets the other thread go on.
    for at in [320 * us, 340 * us, 360 * us] {
        records.push(switch(at - 15 * us, MONITOR, INTERRUPTIBLE, STRANGER));
        records.push(wake(at, MONITOR, WakeCause::Hrtimer, 0xabc, b"x"));
        records.push(switch(at, STRANGER, 0, MONITOR));
    }
    records.push(leaves_in(READ, 310 * us, switch(358 * us, PROCESS, 0, STRANGER)));
    records.extend([wakes(361 * us, MONITOR, OTHER), switch(362 * us, STRANGER, 0, OTHER)]);
    records.sort_by_key(|record| record.header().at_ns);
    let account = Account::of(&records, OTHER, RUNS_NS, 370 * us);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 298 * us);
    assert_eq!(unexplained(&account), 0);
}

#[test]
fn a_ticker_that_wakes_an_idle_thread_is_not_the_cause_of_work_that_another_thread_has_just_got() {
    const TICKER: u32 = 31;
    const FUTEX: i32 = 202;
    let us = 1000;
    let with = |woken_ns: u64| {
        let mut records = launch();
        records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, TICKER)]);
        records.push(switch(133, PROCESS, 0, TICKER));
        records.push(leaves_in(READ, 500, switch(600, PROCESS, INTERRUPTIBLE, STRANGER)));
        // Each 20 µs the ticker wakes the other thread, which rests again.
        for tick in 1..=10_u64 {
            let at = tick * 20 * us;
            records.push(leaves_in(FUTEX, at - 16 * us, switch(at - 15 * us, OTHER, INTERRUPTIBLE, STRANGER)));
            records.push(switch(at - 12 * us, TICKER, INTERRUPTIBLE, STRANGER));
            records.push(wake(at, TICKER, WakeCause::Hrtimer, 0xabc, b"x"));
            records.push(switch(at, STRANGER, 0, TICKER));
            records.extend([wakes(at + us, TICKER, OTHER), switch(at + 2 * us, STRANGER, 0, OTHER)]);
        }
        // The process gets what it waited for.
        records.push(wake(woken_ns, PROCESS, WakeCause::Task, 0, b"somebody"));
        records.sort_by_key(|record| record.header().at_ns);
        Account::of(&records, OTHER, RUNS_NS, 210 * us)
    };
    // It is still on its way when the last tick wakes the other thread.
    let account = with(195 * us);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 195 * us - 600);
    // When nobody else is awake, the ticker is what there was.
    let account = with(205 * us);
    assert!(account.time(Category::Timer, "runtime", "") > 0);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 0);
}

#[test]
fn a_ticker_that_takes_what_another_thread_came_back_with_is_not_the_cause_of_it() {
    const TICKER: u32 = 31;
    const FUTEX: i32 = 202;
    let us = 1000;
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, TICKER)]);
    records.push(switch(133, PROCESS, 0, TICKER));
    records.push(leaves_in(READ, 500, switch(600, PROCESS, INTERRUPTIBLE, STRANGER)));
    for tick in 1..=10_u64 {
        let at = tick * 20 * us;
        records.push(switch(at - 12 * us, TICKER, INTERRUPTIBLE, STRANGER));
        records.push(wake(at, TICKER, WakeCause::Hrtimer, 0xabc, b"x"));
        records.push(switch(at, STRANGER, 0, TICKER));
        // It has something to do each time.
        if tick < 10 {
            records.push(wakes(at + us, TICKER, OTHER));
            records.push(switch(at + 2 * us, STRANGER, 0, OTHER));
            records.push(leaves_in(FUTEX, at + 3 * us, switch(at + 4 * us, OTHER, INTERRUPTIBLE, STRANGER)));
        }
    }
    // The process comes back, leaves that to others and rests; the last tick finds it.
    records.push(wake(190 * us, PROCESS, WakeCause::Task, 0, b"somebody"));
    records.extend([switch(191 * us, STRANGER, 0, PROCESS), syscall(500, 191 * us, PROCESS, READ, 0)]);
    records.push(leaves_in(FUTEX, 194 * us, switch(195 * us, PROCESS, INTERRUPTIBLE, STRANGER)));
    records.sort_by_key(|record| record.header().at_ns);
    let account = Account::of(&records, TICKER, RUNS_NS, 210 * us);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 10 * us);
    assert_eq!(account.time(Category::Outside, "runtime", "somebody"), 190 * us - 600);
}

#[test]
fn a_thread_that_holds_others_up_is_on_the_path_with_what_it_waits_for_and_not_the_monitor_that_steps_in() {
    const MONITOR: u32 = 31;
    let us = 1000;
    let mut records = launch();
    records.extend([new_thread(131, PROCESS, OTHER), new_thread(132, PROCESS, MONITOR)]);
    records.push(switch(133, PROCESS, 0, OTHER));
    records.push(leaves_in(WAIT, 134, switch(134, OTHER, INTERRUPTIBLE, STRANGER)));
    records.extend([switch(135, STRANGER, 0, PROCESS), switch(136, STRANGER, 0, MONITOR)]);
    for look in 1..5_u64 {
        let at = look * 20 * us;
        records.push(switch(at - 15 * us, MONITOR, INTERRUPTIBLE, STRANGER));
        if look == 4 {
            records.push(leaves_in(READ, 59 * us, switch(67 * us, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        }
        records.push(wake(at, MONITOR, WakeCause::Hrtimer, 0xabc, b"x"));
        records.push(switch(at, STRANGER, 0, MONITOR));
    }
    records.extend([wakes(81 * us, MONITOR, OTHER), switch(82 * us, STRANGER, 0, OTHER)]);
    // It waits for a grace period until after the monitor has looked.
    records.push(wake(85 * us, PROCESS, WakeCause::Task, 0, b"rcu_preempt"));
    let account = Account::of(&records, OTHER, RUNS_NS, 90 * us);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::Rcu, "runtime", "rcu_preempt"), 13 * us);
    // Without it nobody would have had to step in.
    assert_eq!(account.saves(Category::Rcu), 13 * us);
    // One that is over before leaves the rest to the monitor's timer.
    let last = records.len() - 1;
    records[last] = wake(70 * us, PROCESS, WakeCause::Task, 0, b"rcu_preempt");
    records.sort_by_key(|record| record.header().at_ns);
    let account = Account::of(&records, OTHER, RUNS_NS, 90 * us);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 10 * us);
    assert_eq!(account.time(Category::Rcu, "runtime", "rcu_preempt"), 3 * us);
}

#[test]
fn threads_that_must_end_for_an_exec_are_waited_for_and_not_asked_what_they_did_before() {
    const EXECVE: i32 = 59;
    let mut records = launch();
    records.extend([new_thread(132, PROCESS, OTHER), switch(133, STRANGER, 0, OTHER)]);
    records.push(leaves_in(WAIT, 134, switch(135, OTHER, INTERRUPTIBLE, STRANGER)));
    // Its timer is over just before the process waits for its end.
    records.extend([wake(168, OTHER, WakeCause::Hrtimer, 0xabc, b"x"), switch(169, STRANGER, 0, OTHER)]);
    records.push(leaves_in(EXECVE, 165, switch(170, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.extend([wakes(175, OTHER, PROCESS), switch(176, OTHER, DEAD, PROCESS)]);
    let account = Account::of(&records, PROCESS, RUNS_NS, 190);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 0);
    assert_eq!(account.time(Category::User, "runtime", ""), 35 + 14);
    assert_eq!(account.time(Category::Kernel, "runtime", ""), 5 + 5);
}

#[test]
fn page_faults_and_interrupts_are_not_own_code() {
    let mut records = launch();
    // Two of four faults were timed, and took 3 each.
    let traps = |at_ns, write, timed, interrupt_ns| {
        let faults = Faults { write, ..Faults::default() };
        let timed_ns = 3 * u64::from(timed);
        let header = header(at_ns, PROCESS, Kind::Traps);
        Record::Traps(Traps { header, faults, timed, timed_ns, interrupt_ns, padding: 0 })
    };
    // Its own code begins when the call returns in which it executed its program.
    records.push(syscall(115, 130, PROCESS, READ, 0));
    records.push(traps(160, 4, 2, 3));
    records.push(syscall(160, 170, PROCESS, READ, 0));
    // In the middle of a page fault it waits for a disk.
    records.push(traps(185, 3, 0, 0));
    records.push(leaves_in(PAGE_FAULT, 176, switch(185, PROCESS, UNINTERRUPTIBLE, STRANGER)));
    records.push(wake(195, PROCESS, WakeCause::Irq, 5, b"x"));
    records.push(switch(195, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Fault, "runtime", ""), 12 + 9);
    assert_eq!(account.time(Category::Interrupt, "runtime", ""), 3);
    assert_eq!(account.time(Category::User, "runtime", ""), 15 + 6 + 5);
    assert_eq!(account.time(Category::Device, "runtime", "interrupt 5"), 10);
    let within = account.elements.iter().find(|(element, ..)| element.charge.category == Category::Device);
    assert_eq!(within.and_then(|(element, ..)| element.charge.within).map(|within| within.called), Some(Called::FAULT));
    let histories = histories(&records);
    let totals = &threads(&histories, &spans(&histories, RUNS_NS, 200), &(RUNS_NS..200))[3];
    assert_eq!((totals.user_ns, totals.fault_ns, totals.interrupt_ns, totals.kernel_ns), (26, 21, 3, 10));
}

#[test]
fn a_switch_that_was_not_seen_is_inferred_from_the_cpu_time_and_counted() {
    let mut records = launch();
    records.push(having_run(40, leaves_in(WAIT, 148, switch(150, PROCESS, INTERRUPTIBLE, STRANGER))));
    records.push(wake(160, PROCESS, WakeCause::Hrtimer, 0xabc, b"x"));
    // It got a CPU unseen, and had it for 25.
    records.push(having_run(65, switch(190, PROCESS, 0, STRANGER)));
    records.push(switch(195, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(unexplained(&account), 0);
    assert_eq!(account.time(Category::Runnable, "runtime", ""), 5 + 5);
    assert_eq!(account.time(Category::Timer, "runtime", ""), 10);
    assert_eq!(
        account.time(Category::User, "runtime", "") + account.time(Category::Kernel, "runtime", ""),
        20 + 25 + 5
    );
    let histories = histories(&records);
    let missing: Vec<_> =
        histories.tasks.iter().map(|task| task.missing()).filter(|missing| missing.all() > 0).collect();
    assert_eq!(missing, [Missing { arrivals: 1, ..Missing::default() }]);
}

#[test]
fn a_new_thread_that_was_not_seen_to_get_its_cpu_had_one_all_the_same() {
    let mut records = launch();
    // Neither the first switch to it nor its CPU time at the beginning is missing: it starts with none.
    records.push(new_task(140, PROCESS, OTHER));
    records.push(having_run(20, switch(170, OTHER, DEAD, STRANGER)));
    let histories = histories(&records);
    let other = histories.tasks.iter().find(|task| task.tid == OTHER).unwrap();
    let seen: Vec<_> =
        other.spans(100, 200).iter().map(|span| (span.start_ns, span.end_ns, span.activity.is_on_cpu())).collect();
    assert_eq!(seen, [(140, 150, false), (150, 170, true)]);
    // Where the kernel does not tell the CPU time, a call that returned is a sign of life.
    records.pop();
    records.extend([syscall(155, 160, OTHER, READ, 0), switch(170, OTHER, DEAD, STRANGER)]);
    let histories = self::histories(&records);
    let other = histories.tasks.iter().find(|task| task.tid == OTHER).unwrap();
    assert_eq!(
        other.spans(100, 200)[0],
        Span { start_ns: 140, end_ns: 155, activity: Activity::Runnable { throttled: false } }
    );
}

#[test]
fn a_wait_that_nobody_was_seen_to_end_is_not_explained() {
    let mut records = launch();
    records.push(switch(150, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(switch(180, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Unattributed, "runtime", "nobody was seen to end this wait"), 30);
    assert!(matches!(account.elements[1].0.charge.detail, Detail::Unseen(_)));
    // Of a thread that is not known, nothing is.
    let account = Account::of(&records, 12345, RUNS_NS, 200);
    assert_eq!(unexplained(&account), 70);
}

#[test]
fn a_call_that_a_daemon_begins_after_it_has_served_is_not_the_sandboxs() {
    // Everything of `daemon_at_work` but the return from the call.
    let records: Vec<_> = daemon_at_work().into_iter().filter(|record| !matches!(record, Record::Syscall(_))).collect();
    let until = |until_ns| {
        let daemon = Bystander { tid: DAEMON, tgid: DAEMON, role: "daemon".to_owned(), duty: Duty::Serves, until_ns };
        let histories = Histories::of(&records, Source { bystanders: vec![daemon], ..source() }, &[]);
        calls(&histories, &spans(&histories, 50, 350), &(0..u64::MAX)).iter().map(|call| call.time_ns).sum::<u64>()
    };
    assert_eq!((until(None), until(Some(200)), until(Some(120))), (300 - 140, 200 - 140, 0));
}

#[test]
fn a_waker_that_is_faster_than_the_switch_leaves_no_wait() {
    let mut records = launch();
    records.push(wake(149, PROCESS, WakeCause::Task, 0, b"x"));
    records.push(switch(150, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(switch(160, STRANGER, 0, PROCESS));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Runnable, "runtime", ""), 10);
    assert_eq!(account.time(Category::User, "runtime", ""), 60);
}

#[test]
fn a_vcpu_is_in_the_guest_or_handles_an_exit() {
    let mut records = launch();
    records.push(Record::KvmEntry(KvmEntry { header: header(145, PROCESS, Kind::KvmEntry) }));
    let exit = KvmExit { header: header(160, PROCESS, Kind::KvmExit), reason: 0x7b, isa: 2, guest_ip: 0 };
    records.push(Record::KvmExit(exit));
    records.push(Record::KvmEntry(KvmEntry { header: header(163, PROCESS, Kind::KvmEntry) }));
    records.push(Record::KvmExit(KvmExit { header: header(170, PROCESS, Kind::KvmExit), ..exit }));
    records.push(syscall(140, 175, PROCESS, IOCTL, KVM_RUN));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Guest, "runtime", ""), 15 + 7);
    assert_eq!(account.time(Category::Exit, "runtime", "0x7b"), 3 + 5);
    // Before the first entry nobody can say what `KVM_RUN` does.
    assert_eq!(account.time(Category::KvmRun, "runtime", ""), 5);
    assert_eq!(account.time(Category::User, "runtime", ""), 10 + 25);

    let histories = histories(&records);
    assert_eq!(histories.tasks.iter().filter_map(|task| task.vcpu).collect::<Vec<_>>(), [0]);
    let counts = exits(&View { records: &records, histories: &histories, names: &Names::default() }, &(0..u64::MAX));
    assert_eq!((counts[0].source, counts[0].reason.as_str(), counts[0].count), ("kvm_exit", "0x7b", 2));
    // The second exit led to no entry, so only the first has a time.
    assert_eq!(counts[0].times.as_ref().map(|times| (times.len(), times.max())), Some((1, 3)));
}

#[test]
fn a_guest_that_touches_every_port_is_counted_in_bounded_space() {
    let mut records = launch();
    records.push(syscall(140, 141, PROCESS, IOCTL, KVM_RUN));
    for port in 0..1000 {
        let header = Header { flags: 1, ..header(142, PROCESS, Kind::KvmPio) };
        records.push(Record::KvmPio(KvmPio { header, port, size: 1, count: 1, value: 0 }));
    }
    let (histories, names) = (histories(&records), Names::default());
    let counts = exits(&View { records: &records, histories: &histories, names: &names }, &(0..u64::MAX));
    assert_eq!(counts.iter().map(|count| count.count).sum::<u64>(), 1000);
    assert!(counts.len() <= 65, "{}", counts.len());
}

#[test]
fn roles_come_from_what_was_executed_and_from_the_rules_for_forks() {
    let mut records = launch();
    records.push(new_task(140, PROCESS, OTHER));
    records.push(exec(150, OTHER, b"runsc\0boot\0"));
    records.push(new_task(160, OTHER, 31));
    let histories = histories(&records);
    let role = |tid| {
        histories.tasks.iter().find(|task| task.tid == tid).map(|task| histories.texts.get(task.role()).to_owned())
    };
    assert_eq!(role(PROCESS).unwrap(), "runtime");
    assert_eq!(role(OTHER).unwrap(), "sentry");
    assert_eq!(role(31).unwrap(), "stub");
    let before =
        histories.tasks.iter().find(|task| task.tid == OTHER).map(|task| histories.texts.get(task.role_at(145)));
    assert_eq!(before.unwrap(), "runtime");
}

#[test]
fn a_thread_number_that_is_used_again_is_another_task() {
    let mut records = launch();
    records.push(switch(150, PROCESS, DEAD, STRANGER));
    records.push(new_task(160, LAUNCHER, PROCESS));
    records.push(switch(165, STRANGER, 0, PROCESS));
    let histories = histories(&records);
    assert_eq!(histories.tasks.iter().filter(|task| task.tid == PROCESS).count(), 2);
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::User, "launcher", ""), 35);
    assert_eq!(account.time(Category::Runnable, "launcher", ""), 5);
}

#[test]
fn a_thread_that_executes_takes_the_place_of_the_first() {
    let mut records = launch();
    let thread = 31;
    records.push(new_thread(140, PROCESS, thread));
    records.push(switch(141, STRANGER, 0, thread));
    // The first thread dies; the other one, now under its number, loses the CPU and gets it back before the exec is told.
    records.push(switch(150, PROCESS, DEAD, STRANGER));
    records.push(switch(155, PROCESS, 0, STRANGER));
    records.push(switch(160, STRANGER, 0, PROCESS));
    let Record::Exec(mut exec) = exec(165, PROCESS, b"runsc-sandbox boot\0") else { unreachable!() };
    exec.old_tid = thread;
    records.push(Record::Exec(exec));
    records.push(switch(180, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(wake(190, PROCESS, WakeCause::Hrtimer, 0xabc, b"swapper"));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::User, "sentry", ""), 15);
    assert_eq!(account.time(Category::Runnable, "runtime", ""), 1 + 5);
    // The first thread until it made the other one, and that one.
    assert_eq!(account.time(Category::User, "runtime", ""), 10 + 14 + 5);
    assert_eq!(account.time(Category::Timer, "sentry", ""), 10);
    assert!(account.elements.iter().all(|(_, role, _)| role != "unknown"));
}

#[test]
fn sums_per_thread_cause_and_call_agree_with_the_records() {
    let mut records = launch();
    for round in 0..5 {
        let at = 200 + round * 100;
        records.push(switch(at + 10, PROCESS, INTERRUPTIBLE, STRANGER));
        records.push(wake(at + 50, PROCESS, WakeCause::Hrtimer, 0xabc, b"swapper"));
        records.push(switch(at + 60, STRANGER, 0, PROCESS));
        records.push(syscall(at, at + 70, PROCESS, 0, 0));
    }
    let histories = histories(&records);
    let spans = spans(&histories, 130, 700);
    let process = histories.tasks.iter().position(|task| task.tid == PROCESS).unwrap();
    let totals = &threads(&histories, &spans, &(130..700))[process];
    assert_eq!((totals.blocked_ns, totals.runnable_ns, totals.kernel_ns), (5 * 40, 5 * 10, 5 * 20));
    assert_eq!((totals.sleeps, totals.wakeups, totals.preemptions, totals.migrations), (5, 5, 0, 0));
    assert_eq!(totals.on_cpu_ns, 570 - 5 * 50);
    let woken = &wakeups(&histories, &spans);
    assert_eq!((woken.len(), woken[0].count, woken[0].waited_ns, woken[0].wake.cause.kind()), (1, 5, 200, "hrtimer"));
    let called = &calls(&histories, &spans, &(0..u64::MAX));
    assert_eq!((called.len(), called[0].count, called[0].time_ns, called[0].on_cpu_ns), (1, 5, 350, 100));
}

#[test]
fn calls_that_move_parts_of_files_are_summed_by_direction() {
    let call = |since_ns, at_ns, file: FileUse, result| {
        let header = Header { flags: file as u8, ..header(at_ns, PROCESS, Kind::Syscall) };
        Record::Syscall(Syscall { header, since_ns, result, number: 0, ..Syscall::zeroed() })
    };
    let calls = [
        call(200, 210, FileUse::Read, 4096),
        call(220, 250, FileUse::Read, 4096),
        call(260, 300, FileUse::Read, 0),
        call(310, 320, FileUse::Write, 100),
        // A failure, a frame from a tap device, a pipe, and one outside of the window.
        call(330, 340, FileUse::Read, -5),
        call(350, 360, FileUse::Tap, 1514),
        call(370, 380, FileUse::None, 7),
        call(990, 1010, FileUse::Write, 100),
    ];
    let histories = histories(&[launch(), calls.to_vec()].concat());
    let sums = file_calls(&histories, &(100..1000));
    let seen: Vec<_> = sums
        .iter()
        .map(|((_, write), sum)| (*write, sum.times.count(), sum.time_ns, sum.sizes.count(), sum.bytes))
        .collect();
    assert_eq!(seen, [(false, 3, 80, 3, 8192), (true, 1, 10, 1, 100)]);
    let reads = &sums.iter().find(|((_, write), _)| !write).unwrap().1;
    assert_eq!(reads.sizes.buckets(), (vec![0, 4096], vec![1, 2]));
}

#[test]
fn a_halted_vcpu_polls_sleeps_and_waits_for_a_cpu() {
    let mut records = launch();
    let exit = |at_ns| KvmExit { header: header(at_ns, PROCESS, Kind::KvmExit), reason: 12, ..KvmExit::zeroed() };
    let entry = |at_ns| Record::KvmEntry(KvmEntry { header: header(at_ns, PROCESS, Kind::KvmEntry) });
    let halt = KvmHaltWake { header: header(315, PROCESS, Kind::KvmHaltWake), halted_ns: 130 };
    let mut leaves = switch(200, PROCESS, INTERRUPTIBLE, STRANGER);
    if let Record::Switch(leaves) = &mut leaves {
        (leaves.syscall, leaves.syscall_arg, leaves.syscall_since_ns) = (IOCTL, KVM_RUN, 150);
    }
    records.extend([entry(160), Record::KvmExit(exit(180)), leaves]);
    records.extend([wake(300, PROCESS, WakeCause::Hrtimer, 1, b"swapper"), switch(310, STRANGER, 0, PROCESS)]);
    records.extend([Record::KvmHaltWake(halt), entry(320), Record::KvmExit(exit(330))]);
    records.push(syscall(150, 340, PROCESS, IOCTL, KVM_RUN));
    let histories = histories(&records);
    let spans = spans(&histories, 100, 350);
    let slices = vcpu_slices(&View { records: &records, histories: &histories, names: &Names::default() }, &spans);
    let seen: Vec<_> = slices.iter().map(|slice| (slice.state, slice.start_ns, slice.end_ns)).collect();
    let expected = [
        ("kvm_run", 150, 160),
        ("guest", 160, 180),
        ("exit", 180, 185),
        ("poll", 185, 200),
        ("halt", 200, 300),
        ("run_queue", 300, 310),
        ("poll", 310, 315),
        ("exit", 315, 320),
        ("guest", 320, 330),
        ("exit", 330, 340),
        ("vmm", 340, 350),
    ];
    assert_eq!(seen, expected);
    assert_eq!(slices[2].detail.as_deref(), Some("0xc"));
}

#[test]
fn a_wake_up_by_a_known_task_has_both_ends() {
    let mut records = launch();
    records.extend([new_task(140, PROCESS, OTHER), switch(150, STRANGER, 0, OTHER)]);
    records.push(switch(160, OTHER, INTERRUPTIBLE, STRANGER));
    let mut by_process = wake(170, OTHER, WakeCause::Task, 0, b"runsc");
    let mut by_chance = wake(190, OTHER, WakeCause::Hrtimer, 7, b"runsc");
    for record in [&mut by_process, &mut by_chance] {
        let Record::Wake(wake) = record else { panic!("a wake-up") };
        (wake.waker_tid, wake.waker_scope) = (PROCESS, SCOPE);
    }
    records.extend([by_process, switch(175, STRANGER, 0, OTHER), switch(180, OTHER, INTERRUPTIBLE, STRANGER)]);
    records.extend([by_chance, switch(195, STRANGER, 0, OTHER)]);
    let histories = histories(&records);
    let spans = spans(&histories, 100, 200);
    let flows = flows(&histories, &spans, 100, 200);
    let tid = |index: usize| histories.tasks[index].tid;
    let seen: Vec<_> =
        flows.iter().map(|flow| (flow.at_ns, tid(flow.woken), flow.waker().map(tid), flow.waited_ns)).collect();
    // The timer came while the process had a CPU; that does not make it the waker.
    assert_eq!(seen, [(170, OTHER, Some(PROCESS), Some(10)), (190, OTHER, None, Some(10))]);
}

/// A random but possible time of three threads on two CPUs.
fn possible_time(random: &mut StdRng) -> Vec<Record> {
    let mut records = vec![
        new_task(100, LAUNCHER, PROCESS),
        switch(110, STRANGER, 0, PROCESS),
        exec(130, PROCESS, b"runsc\0run\0"),
        new_task(140, PROCESS, 31),
        new_task(141, PROCESS, 32),
    ];
    let mut at = 150;
    // What each CPU runs since when, who waits for one, and who sleeps.
    let mut cpus = [(PROCESS, at), (STRANGER, at)];
    let (mut ready, mut asleep) = (vec![31, 32], Vec::new());
    for _ in 0..random.random_range(50..400) {
        at += random.random_range(1..20);
        let cpu = random.random_range(0..2);
        let (running, since) = cpus[cpu];
        let mut one_of = |tids: &mut Vec<u32>| {
            let place = random.random_range(0..tids.len().max(1));
            (!tids.is_empty()).then(|| tids.swap_remove(place))
        };
        let (sleeper, waiter) = (one_of(&mut asleep), one_of(&mut ready));
        match random.random_range(0..4) {
            0 if running != STRANGER => {
                records.push(syscall(random.random_range(since..=at), at, running, 0, 0));
                // The next call begins later.
                cpus[cpu].1 = at;
            }
            1 if let Some(tid) = sleeper => {
                records.push(wake(at, tid, WakeCause::Hrtimer, 0xabc, b"swapper"));
                ready.extend([tid].into_iter().chain(waiter));
                continue;
            }
            _ => {
                let sleeps = random.random_bool(0.5);
                records.push(switch(at, running, u32::from(sleeps), waiter.unwrap_or(STRANGER)));
                let left = if sleeps { &mut asleep } else { &mut ready };
                left.extend(Some(running).filter(|tid| *tid != STRANGER));
                cpus[cpu] = (waiter.unwrap_or(STRANGER), at);
                asleep.extend(sleeper);
                continue;
            }
        }
        asleep.extend(sleeper);
        ready.extend(waiter);
    }
    records
}

#[test]
fn what_is_fed_in_parts_and_forgotten_in_between_is_read_alike() {
    let shown = |histories: &Histories, start, end| {
        let spans = spans(histories, start, end);
        let totals = threads(histories, &spans, &(start..end));
        let times =
            |of: ThreadTotals| (of.user_ns, of.kernel_ns, of.runnable_ns, of.blocked_ns, of.wakeups, of.switches);
        let of_threads = histories.tasks.iter().zip(totals).map(|(task, totals)| (task.tid, times(totals)));
        // Threads that did nothing any more may be forgotten.
        let mut of_threads: Vec<_> = of_threads.filter(|(_, times)| *times != (0, 0, 0, 0, 0, 0)).collect();
        of_threads.sort();
        let woken: Vec<_> =
            wakeups(histories, &spans).iter().map(|count| (count.tid, count.count, count.waited_ns)).collect();
        let called = calls(histories, &spans, &(start..end))
            .iter()
            .map(|call| (call.count, call.time_ns, call.on_cpu_ns))
            .sum_all();
        (of_threads, woken, called)
    };
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let records = possible_time(&mut random);
        let cut = random.random_range(5..records.len());
        let (start, end) = (records[cut].header().at_ns, records.last().unwrap().header().at_ns);
        let mut parts = Histories::new(source());
        parts.feed(&records[..cut], &[]);
        parts.drop_before(start);
        let kept: usize = parts.tasks.iter().map(|task| task.moves.len() + task.calls.len()).sum();
        assert!(kept <= 4 * parts.tasks.len(), "seed {seed}: {kept} moves and calls are kept of {cut} records");
        parts.feed(&records[cut..], &[]);
        assert_eq!(shown(&parts, start, end), shown(&histories(&records), start, end), "seed {seed}, cut at {cut}");
    }
}

/// Sums of triples.
trait SumAll {
    fn sum_all(self) -> (u64, u64, u64);
}

impl<I: Iterator<Item = (u64, u64, u64)>> SumAll for I {
    fn sum_all(self) -> (u64, u64, u64) {
        self.fold((0, 0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1, sum.2 + next.2))
    }
}

#[test]
fn any_recording_adds_up() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut records = launch();
        let mut at = 130;
        for _ in 0..random.random_range(0..200) {
            at += random.random_range(0..20);
            let tids = [LAUNCHER, PROCESS, OTHER, 31, STRANGER];
            let mut tid = || tids[random.random_range(0..tids.len())];
            let (one, two) = (tid(), tid());
            let record = match random.random_range(0..10) {
                0 => new_task(at, one, two),
                1 => exec(at, one, b"boot\0"),
                2 => wake(at, one, WakeCause::Softirq, random.random_range(0..12), b"x"),
                3 => wakes(at, one, two),
                4 => packet(at, one, two),
                5 => syscall(at - random.random_range(0..50), at, one, [0, 44][random.random_range(0..2)], 0),
                6 => Record::KvmEntry(KvmEntry { header: header(at, one, Kind::KvmEntry) }),
                7 => {
                    let header = header(at, one, Kind::Traps);
                    let faults = Faults { read: random.random_range(0..40), ..Faults::default() };
                    let (timed_ns, interrupt_ns) = (random.random_range(0..40), random.random_range(0..40));
                    Record::Traps(Traps { header, faults, timed: 1, timed_ns, interrupt_ns, padding: 0 })
                }
                _ => having_run(
                    random.random_range(0..at),
                    switch(at, one, [0, 1, 2, DEAD][random.random_range(0..4)], two),
                ),
            };
            records.push(record);
        }
        let (start, end) = (90, at + 10);
        let histories = histories(&records);
        let spans = spans(&histories, start, end);
        for (task, spans) in histories.tasks.iter().zip(&spans) {
            let in_order = spans.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns);
            assert!(in_order && spans.iter().all(|span| span.start_ns < span.end_ns), "seed {seed}, task {}", task.tid);
        }
        // The path of whatever thread is the whole time, and nothing saves more than that.
        for tid in [LAUNCHER, PROCESS, OTHER] {
            Account::of(&records, tid, start, end);
        }
        let woken = wakeups(&histories, &spans);
        let flows = flows(&histories, &spans, start, end);
        for (index, task) in histories.tasks.iter().enumerate().filter(|(_, task)| task.is_counted()) {
            let of_task = flows.iter().filter(|flow| flow.woken == index).filter_map(|flow| flow.waited_ns);
            let sums = woken.iter().filter(|sum| sum.tid == task.tid);
            // Numbers are used again, so that only single ones can be compared.
            if histories.tasks.iter().filter(|other| other.tid == task.tid).count() == 1 {
                let (of_task, sums) = (of_task.sum::<u64>(), sums.map(|sum| sum.waited_ns).sum::<u64>());
                assert_eq!(of_task, sums, "seed {seed}, {}", task.tid);
            }
        }
    }
}

#[test]
fn a_life_that_can_be_is_without_gaps() {
    for seed in 0..300 {
        let records = possible_time(&mut StdRng::seed_from_u64(seed));
        let end = records.last().unwrap().header().at_ns;
        let histories = histories(&records);
        for (task, spans) in histories.tasks.iter().zip(spans(&histories, 100, end)).filter(|(task, _)| task.member) {
            let gap_free = spans.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns);
            assert!(gap_free, "seed {seed}, task {}", task.tid);
            assert_eq!(task.missing(), Missing::default(), "seed {seed}, task {}: nothing is missing", task.tid);
        }
    }
}
