//! Written-down recordings with known accounts, and random ones that must add up.

use super::{
    Bystander, Category, Duty, Histories, Missing, Names, Source, ThreadTotals, View, calls, exits, file_calls, flows,
    threads, vcpu_slices, wakeups,
};
use super::{path::testing::*, testing::*};
use crate::probe::{Distribution, Record};
use bytemuck::Zeroable;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sandscope_ebpf::event::{
    Faults, Header, Kind, KvmEntry, KvmExit, KvmHaltWake, KvmMmio, KvmPio, Syscall, Traps, WakeCause,
};
use sandscope_ebpf::map::FileUse;

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
    assert_eq!(counts[0].times.as_ref().map(Distribution::buckets), Some((vec![3], vec![1])));
}

#[test]
fn an_exit_for_a_device_is_told_from_a_first_touch_of_memory() {
    let mut records = launch();
    let entry = |at_ns| Record::KvmEntry(KvmEntry { header: header(at_ns, PROCESS, Kind::KvmEntry) });
    let exit = |at_ns| {
        Record::KvmExit(KvmExit { header: header(at_ns, PROCESS, Kind::KvmExit), reason: 0x400, isa: 2, guest_ip: 0 })
    };
    let access = |at_ns, address| {
        Record::KvmMmio(KvmMmio { header: header(at_ns, PROCESS, Kind::KvmMmio), address, ..KvmMmio::zeroed() })
    };
    // A device, memory, and the device twice in one exit; an access that comes with no exit is of none.
    records.extend([entry(145), exit(150), access(152, 0xc000_1050), entry(155), exit(160), entry(163)]);
    records.extend([
        access(164, 0xc000_2000),
        exit(170),
        access(171, 0xc000_1070),
        access(172, 0xc000_3000),
        entry(180),
    ]);
    records.push(syscall(140, 190, PROCESS, IOCTL, KVM_RUN));
    let account = Account::of(&records, PROCESS, RUNS_NS, 200);
    assert_eq!(account.time(Category::Exit, "runtime", "0x400 (mmio 0xc0001000)"), 5 + 10);
    // By what the words contain: all of them.
    assert_eq!(account.time(Category::Exit, "runtime", "0x400"), 3 + 5 + 10);
    let histories = histories(&records);
    let counts = exits(&View { records: &records, histories: &histories, names: &Names::default() }, &(0..u64::MAX));
    let told: Vec<_> = counts
        .iter()
        .filter(|count| count.source == "kvm_exit")
        .map(|count| (count.reason.as_str(), count.detail.as_deref(), count.count))
        .collect();
    assert_eq!(told, [("0x400", None, 1), ("0x400", Some("mmio 0xc0001000"), 2)]);
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
