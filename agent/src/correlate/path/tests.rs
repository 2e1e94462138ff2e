//! Written-down recordings whose critical path is known.

use super::{Category, Detail, Graph, Held, testing::*};
use crate::{
    correlate::{Activity, Called, Missing, Names, Span, testing::*, threads},
    probe::Record,
};
use bytemuck::Zeroable;
use sandscope_ebpf::event::{Block, Faults, Kind, PAGE_FAULT, THROTTLED, Traps, WakeCause};

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
fn who_of_the_sandbox_held_a_lock_is_on_the_path_and_who_waited_for_it_is_told_beside() {
    let held_of = |records: &[Record], start_ns| {
        let (histories, names) = (histories(records), Names::default());
        let graph = Graph::of(&histories, records, &names, start_ns, 200);
        let path = graph.path(PROCESS);
        assert!(path.iter().all(|element| element.charge.category != Category::Lock));
        graph.held_locks(&path).into_values().collect::<Vec<_>>()
    };
    let held = |is_lock, start_ns| {
        let mut records = launch();
        records.extend([new_thread(132, PROCESS, OTHER), switch(133, STRANGER, 0, OTHER)]);
        records.push(leaves_in(READ, 140, switch(150, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        records.push(wait_stack(180, PROCESS, &[0x10], is_lock));
        records.extend([wakes(180, OTHER, PROCESS), switch(185, STRANGER, 0, PROCESS)]);
        held_of(&records, start_ns)
    };
    assert_eq!(held(true, RUNS_NS), [Held { count: 1, time_ns: 30 }]);
    // Before the path begins nothing is waited for.
    assert_eq!(held(true, 170), [Held { count: 1, time_ns: 10 }]);
    assert_eq!(held(false, RUNS_NS), []);
    let twice = |is_lock| {
        let mut records = launch();
        records.extend([new_thread(132, PROCESS, OTHER), switch(133, STRANGER, 0, OTHER)]);
        records.push(leaves_in(READ, 140, switch(150, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        records.push(wait_stack(180, PROCESS, &[0x10], is_lock));
        records.extend([wakes(180, OTHER, PROCESS), switch(182, STRANGER, 0, PROCESS)]);
        // Too short a wait to be asked where it is, as it finds the lock taken again.
        records.push(leaves_in(READ, 140, switch(185, PROCESS, UNINTERRUPTIBLE, STRANGER)));
        records.extend([wakes(190, OTHER, PROCESS), switch(191, STRANGER, 0, PROCESS)]);
        held_of(&records, RUNS_NS)
    };
    assert_eq!(twice(true), [Held { count: 1, time_ns: 40 }]);
    assert_eq!(twice(false), []);
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
    // Unless the call says what it is for.
    const CLOCK_NANOSLEEP: i32 = 230;
    let mut asleep = records.clone();
    asleep[records.len() - 2] = leaves_in(CLOCK_NANOSLEEP, 148, records[records.len() - 2].clone());
    let account_of = Account::of(&asleep, PROCESS, RUNS_NS, 200);
    assert_eq!(account_of.time(Category::Timer, "runtime", "nobody was seen to end this wait"), 30);
    assert_eq!(unexplained(&account_of), 0);
    // Of a thread that is not known, nothing is.
    let account = Account::of(&records, 12345, RUNS_NS, 200);
    assert_eq!(unexplained(&account), 70);
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
