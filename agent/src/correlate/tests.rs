//! Written-down recordings with known accounts, and random ones that must add up.

use super::{
    Bystander, Category, Duty, Histories, Names, Phase, Share, Span, ThreadTotals, attribute, calls, exits, file_calls,
    flows, states, threads, vcpu_slices, wakeups,
};
use crate::{probe::Record, sandbox::RoleRule};
use bytemuck::Zeroable;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sandscope_ebpf::event::{
    Block, Exec, Header, Kind, KvmEntry, KvmExit, KvmHaltWake, KvmPio, NO_SYSCALL, Switch, Syscall, TaskNew, Wake,
    WakeCause,
};
use sandscope_ebpf::map::FileUse;

const SCOPE: u16 = 3;
const LAUNCHER: u32 = 10;
const PROCESS: u32 = 20;
const OTHER: u32 = 30;
/// A thread of a daemon.
const DAEMON: u32 = 40;
/// The reader of the console, of which nothing is ever seen here: it must explain nothing.
const CONSOLE: u32 = 50;
/// Some thread outside.
const STRANGER: u32 = 99;
const INTERRUPTIBLE: u32 = 1;
const UNINTERRUPTIBLE: u32 = 2;
const DEAD: u32 = 0x80;
const IOCTL: i32 = 16;
const KVM_RUN: u64 = 0xae80;

const RULES: &[RoleRule] = &[
    RoleRule { role: "sentry", contains: "boot", forked: Some("stub") },
    RoleRule { role: "runtime", contains: "runsc", forked: None },
];

fn header(at_ns: u64, tid: u32, kind: Kind) -> Header {
    Header { at_ns, tid, scope: SCOPE, kind: kind as u8, flags: 0 }
}

fn new_task(at_ns: u64, parent: u32, child_tid: u32) -> Record {
    Record::TaskNew(TaskNew { header: header(at_ns, parent, Kind::TaskNew), child_tid, ..TaskNew::zeroed() })
}

fn exec(at_ns: u64, tid: u32, args: &[u8]) -> Record {
    let mut exec = Exec { header: header(at_ns, tid, Kind::Exec), ..Exec::zeroed() };
    exec.args[..args.len()].copy_from_slice(args);
    exec.args_bytes = args.len() as u32;
    exec.old_tid = tid;
    Record::Exec(Box::new(exec))
}

/// A CPU goes from `prev` to `next`; threads other than the stranger are in scope.
fn switch(at_ns: u64, prev: u32, prev_state: u32, next: u32) -> Record {
    let scope = |tid| if tid == STRANGER { 0 } else { SCOPE };
    let mut header = header(at_ns, prev, Kind::Switch);
    header.scope = scope(prev);
    let mut record = Switch::zeroed();
    record.header = header;
    (record.next_tid, record.next_scope) = (next, scope(next));
    (record.prev_state, record.syscall) = (prev_state, NO_SYSCALL);
    Record::Switch(record)
}

fn wake(at_ns: u64, tid: u32, cause: WakeCause, detail: u64, waker_comm: &[u8]) -> Record {
    let mut header = header(at_ns, tid, Kind::Wake);
    header.flags = cause as u8;
    let mut record = Wake { header, detail, waker_tid: STRANGER, ..Wake::zeroed() };
    record.waker_comm[..waker_comm.len()].copy_from_slice(waker_comm);
    Record::Wake(record)
}

fn syscall(since_ns: u64, at_ns: u64, tid: u32, number: i32, arg: u64) -> Record {
    let header = header(at_ns, tid, Kind::Syscall);
    Record::Syscall(Syscall { header, since_ns, arg, number, ..Syscall::zeroed() })
}

fn histories(records: &[Record]) -> Histories {
    let bystander = |tid, role: &str, duty| Bystander { tid, role: role.to_owned(), duty, until_ns: None };
    let bystanders = [
        bystander(LAUNCHER, "launcher", Duty::Acts),
        bystander(DAEMON, "daemon", Duty::Serves),
        bystander(CONSOLE, "console", Duty::Listens),
    ];
    Histories::of(records, SCOPE, &bystanders, RULES, &Names::default())
}

fn spans(histories: &Histories, start_ns: u64, end_ns: u64) -> Vec<Vec<Span>> {
    histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect()
}

fn account(records: &[Record], start_ns: u64, end_ns: u64) -> Vec<Share> {
    let histories = histories(records);
    let spans = spans(&histories, start_ns, end_ns);
    attribute(&histories, &spans, records, &[Phase { name: "all", start_ns, end_ns }], &Names::default()).shares
}

/// Time of a category and role; the detail must begin with `detail`.
fn time(shares: &[Share], category: Category, role: &str, detail: &str) -> u64 {
    let matches = |share: &&Share| {
        share.category == category
            && share.role.as_deref().unwrap_or_default() == role
            && share.detail.as_deref().unwrap_or_default().starts_with(detail)
    };
    shares.iter().filter(matches).map(|share| share.time_ns).sum()
}

/// The launcher forks at 100, the process gets a CPU at 110 and executes at 130.
fn launch() -> Vec<Record> {
    vec![
        new_task(100, LAUNCHER, PROCESS),
        switch(105, LAUNCHER, INTERRUPTIBLE, STRANGER),
        switch(110, STRANGER, 0, PROCESS),
        exec(130, PROCESS, b"runsc\0run\0"),
    ]
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

#[test]
fn a_daemon_is_at_work_also_while_it_waits_for_a_disk() {
    let shares = account(&daemon_at_work(), 50, 350);
    assert_eq!(time(&shares, Category::Outside, "launcher", "running"), 10);
    // What a daemon slept through before it was asked, and after it was done, explains nothing.
    assert_eq!(time(&shares, Category::Unattributed, "", ""), 40 + 50);
    assert_eq!(time(&shares, Category::Outside, "daemon", "waiting for a CPU"), 10 + 10);
    assert_eq!(time(&shares, Category::Outside, "daemon", "running"), 30 + 30);
    assert_eq!(time(&shares, Category::Outside, "daemon", "fsync"), 10 + 10);
    assert_eq!(time(&shares, Category::Outside, "daemon", "waits for kworker in fsync"), 100);
    let daemon = threads(&histories(&daemon_at_work()), &spans(&histories(&daemon_at_work()), 50, 350))[1].clone();
    assert_eq!((daemon.user_ns, daemon.kernel_ns, daemon.runnable_ns), (60, 20, 20));
}

#[test]
fn a_call_that_a_daemon_begins_after_it_has_served_is_not_the_sandboxs() {
    // Everything of `daemon_at_work` but the return from the call.
    let records: Vec<_> = daemon_at_work().into_iter().filter(|record| !matches!(record, Record::Syscall(_))).collect();
    let until = |until_ns| {
        let daemon = Bystander { tid: DAEMON, role: "daemon".to_owned(), duty: Duty::Serves, until_ns };
        let histories = Histories::of(&records, SCOPE, &[daemon], RULES, &Names::default());
        calls(&histories, &spans(&histories, 50, 350), &(0..u64::MAX)).iter().map(|call| call.time_ns).sum::<u64>()
    };
    assert_eq!((until(None), until(Some(200)), until(Some(120))), (300 - 140, 200 - 140, 0));
}

#[test]
fn what_a_daemon_starts_is_the_sandboxs_and_goes_before_it() {
    let mut records = daemon_at_work();
    // Beside it on another CPU: a child, which executes at once, runs until 200 and sleeps until a timer.
    records.insert(4, switch(200, PROCESS, INTERRUPTIBLE, STRANGER));
    records.insert(3, exec(122, PROCESS, b"runsc\0run\0"));
    records.insert(3, switch(120, STRANGER, 0, PROCESS));
    records.insert(3, new_task(120, DAEMON, PROCESS));
    records.push(wake(320, PROCESS, WakeCause::Timer, 0, b"idle"));
    let histories = histories(&records);
    let child = histories.tasks.iter().find(|task| task.tid == PROCESS).unwrap();
    assert!(child.member);
    assert_eq!((child.role_at(121), child.role_at(123)), ("daemon", "runtime"));
    let shares = account(&records, 50, 350);
    assert_eq!(time(&shares, Category::User, "daemon", ""), 2);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 78);
    // While the child sleeps, the daemon's work is the explanation, and then what ends the child's sleep.
    assert_eq!(time(&shares, Category::Outside, "daemon", "waits for kworker in fsync"), 50);
    assert_eq!(time(&shares, Category::WaitTimer, "runtime", ""), 20);
    assert_eq!(time(&shares, Category::Runnable, "runtime", ""), 30);
}

#[test]
fn a_daemon_that_wakes_by_itself_explains_nothing() {
    let records = [
        switch(60, LAUNCHER, INTERRUPTIBLE, STRANGER),
        switch(100, DAEMON, INTERRUPTIBLE, STRANGER),
        wake(200, DAEMON, WakeCause::Hrtimer, 0, b"idle"),
        switch(200, STRANGER, 0, DAEMON),
        switch(201, DAEMON, INTERRUPTIBLE, STRANGER),
    ];
    let shares = account(&records, 100, 300);
    assert_eq!(time(&shares, Category::Outside, "daemon", ""), 1);
    assert_eq!(time(&shares, Category::Unattributed, "", ""), 199);
}

#[test]
fn a_launch_is_the_launchers_time_until_its_child_exists() {
    let shares = account(&launch(), 50, 200);
    assert_eq!(time(&shares, Category::Outside, "launcher", "running"), 50);
    // From 100 the child waits for a CPU, also while the launcher still runs: the sandbox comes first.
    assert_eq!(time(&shares, Category::Runnable, "launcher", ""), 10);
    assert_eq!(time(&shares, Category::User, "launcher", ""), 20);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 70);
    assert_eq!(time(&shares, Category::Unattributed, "", ""), 0);
}

#[test]
fn a_system_call_is_kernel_time_while_it_has_a_cpu() {
    let mut records = launch();
    records.push(switch(150, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(wake(170, PROCESS, WakeCause::Hrtimer, 0xabc, b"swapper"));
    records.push(switch(175, STRANGER, 0, PROCESS));
    // Number 0 is `read` on x86-64.
    records.push(syscall(140, 180, PROCESS, 0, 0));
    let shares = account(&records, 130, 200);
    let name = crate::probe::syscall_name(0);
    assert_eq!(time(&shares, Category::Kernel, "runtime", &name), 10 + 5);
    assert_eq!(time(&shares, Category::WaitTimer, "runtime", "0xabc"), 20);
    assert_eq!(time(&shares, Category::Runnable, "runtime", ""), 5);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 10 + 20);
}

#[test]
fn silence_belongs_to_what_ended_it_not_to_who_waited_longest() {
    let mut records = launch();
    records.push(new_task(140, PROCESS, OTHER));
    records.push(switch(145, STRANGER, 0, OTHER));
    // OTHER waits from 150, PROCESS from 160; a packet wakes PROCESS at 180, a worker wakes OTHER at 195.
    records.push(switch(150, OTHER, INTERRUPTIBLE, STRANGER));
    records.push(switch(160, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(wake(180, PROCESS, WakeCause::Softirq, 3, b"swapper"));
    records.push(switch(180, STRANGER, 0, PROCESS));
    records.push(switch(185, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(wake(195, OTHER, WakeCause::Task, 0, b"kworker/0:1"));
    records.push(switch(195, STRANGER, 0, OTHER));
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::WaitNetwork, "runtime", "packet"), 20);
    assert_eq!(time(&shares, Category::Outside, "kworker", "wakes runtime"), 10);
    assert_eq!(time(&shares, Category::Unattributed, "", ""), 0);
}

#[test]
fn a_wait_that_signals_cannot_end_during_a_request_is_block_io() {
    let mut records = launch();
    records.push(switch(140, PROCESS, UNINTERRUPTIBLE, STRANGER));
    let block =
        Block { header: header(168, PROCESS, Kind::Block), queued_ns: 139, device: (254 << 20) | 1, ..Block::zeroed() };
    records.push(Record::Block(block));
    records.push(wake(170, PROCESS, WakeCause::Irq, 40, b"swapper"));
    records.push(switch(170, STRANGER, 0, PROCESS));
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::BlockIo, "runtime", "device 254:1"), 30);
}

#[test]
fn a_waker_that_is_faster_than_the_switch_leaves_no_wait() {
    let mut records = launch();
    records.push(wake(149, PROCESS, WakeCause::Task, 0, b"x"));
    records.push(switch(150, PROCESS, INTERRUPTIBLE, STRANGER));
    records.push(switch(160, STRANGER, 0, PROCESS));
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::Runnable, "runtime", ""), 10);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 60);
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
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::Guest, "runtime", ""), 15 + 7);
    assert_eq!(time(&shares, Category::Exit, "runtime", "0x7b"), 3 + 5);
    // Before the first entry nobody can say what `KVM_RUN` does.
    assert_eq!(time(&shares, Category::KvmRun, "runtime", ""), 5);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 10 + 25);

    let histories = histories(&records);
    assert_eq!(histories.tasks.iter().filter_map(|task| task.vcpu).collect::<Vec<_>>(), [0]);
    let counts = exits(&records, SCOPE, &histories, &Names::default(), &(0..u64::MAX));
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
    let counts = exits(&records, SCOPE, &histories(&records), &Names::default(), &(0..u64::MAX));
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
    let role = |tid| histories.tasks.iter().find(|task| task.tid == tid).map(|task| task.role().to_owned());
    assert_eq!(role(PROCESS).unwrap(), "runtime");
    assert_eq!(role(OTHER).unwrap(), "sentry");
    assert_eq!(role(31).unwrap(), "stub");
    let before = histories.tasks.iter().find(|task| task.tid == OTHER).map(|task| task.role_at(145).to_owned());
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
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 20);
    assert_eq!(time(&shares, Category::User, "launcher", ""), 35);
}

#[test]
fn a_thread_that_executes_takes_the_place_of_the_first() {
    let mut records = launch();
    let thread = 31;
    records.push(Record::TaskNew(TaskNew {
        header: header(140, PROCESS, Kind::TaskNew),
        child_tid: thread,
        clone_flags: 0x10000,
        tgid: PROCESS,
    }));
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
    let shares = account(&records, 130, 200);
    assert_eq!(time(&shares, Category::User, "sentry", ""), 15);
    assert_eq!(time(&shares, Category::Runnable, "runtime", ""), 5);
    assert_eq!(time(&shares, Category::User, "runtime", ""), 25 + 5);
    assert_eq!(time(&shares, Category::WaitTimer, "sentry", ""), 10);
    assert!(shares.iter().all(|share| share.role.as_deref() != Some("unknown")), "{shares:?}");
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
    let totals = &threads(&histories, &spans)[process];
    assert_eq!((totals.blocked_ns, totals.runnable_ns, totals.kernel_ns), (5 * 40, 5 * 10, 5 * 20));
    assert_eq!((totals.sleeps, totals.wakeups, totals.preemptions, totals.migrations), (5, 5, 0, 0));
    assert_eq!(totals.on_cpu_ns, 570 - 5 * 50);
    let woken = &wakeups(&histories, &spans);
    assert_eq!((woken.len(), woken[0].count, woken[0].waited_ns, woken[0].cause), (1, 5, 200, "hrtimer"));
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
    let slices = vcpu_slices(&records, SCOPE, &histories, &spans, &Names::default());
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
        flows.iter().map(|flow| (flow.at_ns, tid(flow.woken), flow.waker.map(tid), flow.waited_ns)).collect();
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
fn the_states_of_a_recording_stand_for_all_of_it() {
    let shown = |records: &[Record], start, end| {
        let histories = histories(records);
        let spans = spans(&histories, start, end);
        let totals = threads(&histories, &spans);
        // How often it was switched is counted over all that is known, not over a window.
        let times = |of: ThreadTotals| (of.user_ns, of.kernel_ns, of.runnable_ns, of.blocked_ns, of.wakeups);
        let mut of_threads: Vec<_> =
            histories.tasks.iter().zip(totals).map(|(task, totals)| (task.tid, times(totals))).collect();
        of_threads.sort();
        (of_threads, wakeups(&histories, &spans), calls(&histories, &spans, &(start..end)))
    };
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let records = possible_time(&mut random);
        let cut = random.random_range(5..records.len());
        let kept = states(&records[..cut]);
        assert!(kept.len() <= 20, "seed {seed}: {} records of {cut}", kept.len());
        let (start, end) = (records[cut].header().at_ns, records.last().unwrap().header().at_ns);
        let rest = [kept, records[cut..].to_vec()].concat();
        assert_eq!(shown(&rest, start, end), shown(&records, start, end), "seed {seed}, cut at {cut}");
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
            let record = match random.random_range(0..7) {
                0 => new_task(at, one, two),
                1 => exec(at, one, b"boot\0"),
                2 => wake(at, one, WakeCause::Softirq, random.random_range(0..12), b"x"),
                3 => syscall(at - random.random_range(0..50), at, one, 0, 0),
                4 => Record::KvmEntry(KvmEntry { header: header(at, one, Kind::KvmEntry) }),
                _ => switch(at, one, [0, 1, 2, DEAD][random.random_range(0..4)], two),
            };
            records.push(record);
        }
        let (start, middle, end) = (90, 300, at + 10);
        let phases = [
            Phase { name: "a", start_ns: start, end_ns: middle },
            Phase { name: "b", start_ns: middle, end_ns: end.max(middle) },
        ];
        let histories = histories(&records);
        let spans = spans(&histories, start, end);
        for (task, spans) in histories.tasks.iter().zip(&spans) {
            let gap_free = spans.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns);
            assert!(gap_free && spans.iter().all(|span| span.start_ns < span.end_ns), "seed {seed}, task {}", task.tid);
        }
        let account = attribute(&histories, &spans, &records, &phases, &Names::default());
        let shares = &account.shares;
        let sum = |phase| shares.iter().filter(|share| share.phase == phase).map(|share| share.time_ns).sum::<u64>();
        assert_eq!((sum("a"), sum("b")), (middle - start, end.saturating_sub(middle)), "seed {seed}");
        let mut reached = start;
        let mut shares_again: Vec<_> = shares.iter().map(|share| Share { time_ns: 0, ..share.clone() }).collect();
        for (start_ns, stretch) in account.stretches() {
            assert_eq!(start_ns, reached, "seed {seed}: the stretches leave no gap");
            reached += stretch.time_ns;
            let same = |share: &&mut Share| Share { time_ns: stretch.time_ns, ..(**share).clone() } == stretch;
            shares_again.iter_mut().find(same).unwrap().time_ns += stretch.time_ns;
        }
        assert_eq!(&shares_again, shares, "seed {seed}: the stretches are the shares");
        let woken = wakeups(&histories, &spans);
        let flows = flows(&histories, &spans, start, end);
        for (index, task) in histories.tasks.iter().enumerate().filter(|(_, task)| task.is_counted()) {
            let of_task = flows.iter().filter(|flow| flow.woken == index).filter_map(|flow| flow.waited_ns);
            let sums = woken.iter().filter(|sum| sum.tid == task.tid);
            // Numbers are used again, so that only single ones can be compared.
            if histories.tasks.iter().filter(|other| other.tid == task.tid).count() == 1 {
                assert_eq!(
                    of_task.sum::<u64>(),
                    sums.map(|sum| sum.waited_ns).sum::<u64>(),
                    "seed {seed}, {}",
                    task.tid
                );
            }
        }
    }
}
