//! Written-down recordings and the rows that must come of them.

use super::*;
use crate::{correlate::testing::*, record::tables::Attribution};
use rustix::time::{ClockId, clock_gettime};
use sandscope_ebpf::event::WakeCause;
use std::time::Duration;

const WRITE: i32 = 1;
/// Threads of a second instance are those of the first, so much higher.
const APART: u32 = 1000;

/// The launcher forks at 100 and sleeps; the process executes `runsc run`, moves itself into a cgroup, for which it waits until a grace
/// period has passed, reads a block, and wakes the launcher at 290, which sees that it is ready at 295.
fn start() -> Vec<Record> {
    let mut records = launch();
    records.extend([
        object(150, 200, PROCESS, &["cgroup.procs", "a1"]),
        leaves_in(WRITE, 150, switch(160, PROCESS, UNINTERRUPTIBLE, STRANGER)),
        wake(190, PROCESS, WakeCause::Task, 0, b"rcu_preempt"),
        switch(195, STRANGER, 0, PROCESS),
        syscall(150, 200, PROCESS, WRITE, 0),
        leaves_in(READ, 210, switch(215, PROCESS, UNINTERRUPTIBLE, STRANGER)),
        block(212, 250, PROCESS),
        wake(250, PROCESS, WakeCause::Softirq, 4, b"swapper/0"),
        switch(255, STRANGER, 0, PROCESS),
        syscall(210, 260, PROCESS, READ, 0),
        wakes(290, PROCESS, LAUNCHER),
        switch(292, STRANGER, 0, LAUNCHER),
    ]);
    records
}

fn course(launch_ns: u64) -> Course {
    Course { launch_ns: Some(launch_ns), response_ns: Some(launch_ns + 195), seen_by: "launcher", ..Course::default() }
}

fn explained(source: Source, parts: Vec<Vec<Record>>, course: &Course) -> Explanation {
    let mut explainer = Explainer::new(source);
    for records in parts {
        explainer.feed(Recording { records, lost: Lost::default() }, &[], course, &mut Names::default());
    }
    explainer.finish(course, None)
}

/// Rows of an account, in the order of the path as far as it is one: category, role, call, object, time.
fn told(rows: &[Attribution]) -> Vec<(&str, &str, &str, &str, u64)> {
    fn word(text: &Option<String>) -> &str {
        text.as_deref().unwrap_or("")
    }
    fn line(row: &Attribution) -> (&str, &str, &str, &str, u64) {
        (row.category.as_str(), word(&row.role), word(&row.syscall), word(&row.object), row.time_ns)
    }
    let mut told: Vec<_> = rows.iter().map(line).collect();
    told.sort_unstable();
    told
}

/// The same records of another instance, later.
fn of_another(records: Vec<Record>, scope: u16, later_ns: u64) -> Vec<Record> {
    let moved = |tid: &mut u32, of: u16| {
        if of == SCOPE {
            *tid += APART;
        }
    };
    let other = |scoped: &mut u16| {
        if *scoped == SCOPE {
            *scoped = scope;
        }
    };
    let change = |mut record: Record| {
        let of = record.header().scope;
        let header = match &mut record {
            Record::TaskNew(new) => {
                (new.child_tid, new.tgid) = (new.child_tid + APART, new.tgid.max(1) - 1 + u32::from(new.tgid > 0));
                &mut new.header
            }
            Record::Exec(exec) => {
                exec.old_tid += APART;
                &mut exec.header
            }
            Record::Switch(switch) => {
                moved(&mut switch.next_tid, switch.next_scope);
                other(&mut switch.next_scope);
                switch.syscall_since_ns += later_ns;
                &mut switch.header
            }
            Record::Wake(wake) => {
                moved(&mut wake.waker_tid, wake.waker_scope);
                other(&mut wake.waker_scope);
                &mut wake.header
            }
            Record::Syscall(call) => {
                call.since_ns += later_ns;
                &mut call.header
            }
            Record::Object(object) => {
                object.since_ns += later_ns;
                &mut object.header
            }
            Record::Block(block) => {
                (block.queued_ns, block.issued_ns) = (block.queued_ns + later_ns, block.issued_ns + later_ns);
                &mut block.header
            }
            other => panic!("{other:?} is not in these tests"),
        };
        moved(&mut header.tid, of);
        other(&mut header.scope);
        header.at_ns += later_ns;
        record
    };
    records.into_iter().map(change).collect()
}

#[test]
fn a_start_has_these_rows() {
    let explanation = explained(source(), vec![start()], &course(100));
    let rows = told(explanation.attribution());
    assert_eq!(rows.iter().map(|row| row.4).sum::<u64>(), 195, "{rows:#?}");
    assert_eq!(
        rows,
        [
            ("block_io", "runtime", "read", "", 35),
            ("kernel", "runtime", "read", "", 10),
            ("kernel", "runtime", "write", "…/a1/cgroup.procs", 15),
            ("rcu", "runtime", "write", "…/a1/cgroup.procs", 30),
            ("runnable", "launcher", "", "", 2),
            ("runnable", "launcher", "", "", 10),
            ("runnable", "runtime", "", "", 10),
            // Each phase says so.
            ("unattributed", "", "", "", 0),
            ("unattributed", "", "", "", 0),
            ("user", "launcher", "", "", 3),
            ("user", "launcher", "", "", 20),
            ("user", "runtime", "", "", 60),
        ]
    );
}

#[test]
fn stretches_that_read_the_same_are_one_row() {
    let waits = |at_ns: u64, waker: &[u8]| {
        [
            leaves_in(WRITE, at_ns, switch(at_ns + 5, PROCESS, INTERRUPTIBLE, STRANGER)),
            wake(at_ns + 15, PROCESS, WakeCause::Task, 0, waker),
            switch(at_ns + 18, STRANGER, 0, PROCESS),
            syscall(at_ns, at_ns + 20, PROCESS, WRITE, 0),
        ]
    };
    let mut records = launch();
    // Two workers of the kernel, and both are called `kworker`.
    records.extend(waits(150, b"kworker/0:1").into_iter().chain(waits(200, b"kworker/u8:3")));
    records.extend([wakes(290, PROCESS, LAUNCHER), switch(292, STRANGER, 0, LAUNCHER)]);
    let explanation = explained(source(), vec![records], &course(100));
    let waited: Vec<_> = told(explanation.attribution()).into_iter().filter(|row| row.0 == "outside").collect();
    assert_eq!(waited, [("outside", "runtime", "write", "", 20)]);
}

#[test]
fn looks_at_own_code_are_counted_by_where_it_was_and_those_at_calls_and_waits_are_not() {
    let mut records = start();
    // Own code of the process twice, a system call of its, and the launcher, which is no part of the sandbox.
    records.extend(
        [(140, PROCESS), (145, PROCESS), (155, PROCESS), (265, PROCESS), (105, LAUNCHER)]
            .map(|(at_ns, tid)| sample(at_ns, tid, 0x40_1000)),
    );
    records.sort_by_key(|record| record.header().at_ns);
    let explanation = explained(source(), vec![records], &course(100));
    let rows: Vec<_> =
        explanation.samples().iter().map(|row| (&*row.role, row.on_path, &*row.stack, row.count)).collect();
    // Nobody said where on the host that program is.
    assert_eq!(rows.iter().map(|row| row.3).sum::<u32>(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| (row.0, row.1, row.2) == ("runtime", true, "[unknown]")), "{rows:?}");
}

#[test]
fn instances_that_share_a_recording_have_their_own_rows_alone() {
    let second = of_another(start(), 4, 40);
    let mut records: Vec<Record> = start().into_iter().chain(second).collect();
    records.sort_by_key(|record| record.header().at_ns);
    let recording = Recording { records, lost: Lost::default() };
    let bystander = Bystander { tid: LAUNCHER + APART, ..source().bystanders[0].clone() };
    let sources = [source(), Source { scope: 4, bystanders: vec![bystander], ..source() }];
    let parts = split(&recording, &[&sources[0], &sources[1]]);
    let alone = explained(source(), vec![start()], &course(100));
    for ((number, part), source) in (0..).zip(parts).zip(sources) {
        let explanation = explained(source, vec![part.records], &course(100 + 40 * number));
        assert_eq!(told(explanation.attribution()), told(alone.attribution()), "instance {number}");
        let [block] = explanation.block() else { panic!("{:?}", explanation.block()) };
        assert_eq!((block.tid, block.queued_ns, block.completed_ns), (PROCESS + APART * number as u32, 112, 150));
        assert_eq!(explanation.events(), alone.events(), "instance {number}");
    }
}

#[test]
fn what_is_fed_in_two_parts_is_told_once() {
    let mut first = start();
    let second = vec![
        switch(400, LAUNCHER, INTERRUPTIBLE, STRANGER),
        leaves_in(READ, 405, switch(410, PROCESS, UNINTERRUPTIBLE, STRANGER)),
        block(407, 450, PROCESS),
        wake(450, PROCESS, WakeCause::Softirq, 4, b"swapper/0"),
        switch(455, STRANGER, 0, PROCESS),
        syscall(405, 460, PROCESS, READ, 0),
    ];
    let apart = explained(source(), vec![first.clone(), second.clone()], &course(100));
    first.extend(second);
    let at_once = explained(source(), vec![first], &course(100));
    let queued = |of: &Explanation| of.block().iter().map(|row| row.queued_ns).collect::<Vec<_>>();
    assert_eq!(queued(&apart), [112, 307]);
    assert_eq!(queued(&apart), queued(&at_once));
    assert_eq!(told(apart.attribution()), told(at_once.attribution()));
    assert_eq!(apart.events(), at_once.events());
}

#[test]
fn one_that_never_answered_has_sums_and_no_path() {
    let course = Course { response_ns: None, ..course(100) };
    let explanation = explained(source(), vec![start()], &course);
    assert!(explanation.attribution().is_empty() && explanation.phases().is_empty());
    assert_eq!(explanation.unattributed_ns(), None);
    assert!(explanation.sched().iter().any(|row| row.role == "runtime" && row.on_cpu_ns > 0));
}

#[test]
fn one_that_was_not_recorded_has_the_phases_that_the_agent_saw() {
    let explanation = Explainer::new(source()).finish(&course(100), None);
    assert_eq!(explanation.phases().iter().map(|phase| phase.end_ns - phase.start_ns).sum::<u64>(), 195);
    assert!(explanation.attribution().is_empty() && explanation.events().is_empty());
    assert_eq!((explanation.inferred(), explanation.skipped_runs()), (None, None));
}

/// A start in which two threads of a process hand a token to and fro, so many records long.
fn tokens(count: usize) -> Vec<Record> {
    let mut records = launch();
    records.push(new_thread(140, PROCESS, OTHER));
    let mut at_ns = 1000;
    while records.len() < count {
        for (one, other) in [(PROCESS, OTHER), (OTHER, PROCESS)] {
            records.extend([
                syscall(at_ns + 1, at_ns + 4, one, WRITE, 0),
                wakes(at_ns + 5, one, other),
                leaves_in(READ, at_ns + 6, switch(at_ns + 7, one, INTERRUPTIBLE, other)),
                syscall(at_ns + 6, at_ns + 9, other, READ, 0),
            ]);
            at_ns += 10;
        }
    }
    records.push(wakes(at_ns, PROCESS, LAUNCHER));
    records.push(switch(at_ns + 2, STRANGER, 0, LAUNCHER));
    records
}

/// CPU time of this thread: what others do on the machine has no part in it.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[test]
fn what_explaining_takes_grows_with_the_records_and_no_faster() {
    let explain = |count: usize| {
        let records = tokens(count);
        let end_ns = records.last().unwrap().header().at_ns + 5;
        let course = Course { response_ns: Some(end_ns), ..course(100) };
        let begun = cpu_time();
        let explanation = explained(source(), vec![records], &course);
        let took = (cpu_time() - begun).as_secs_f64();
        assert_eq!(explanation.attribution().iter().map(|row| row.time_ns).sum::<u64>(), end_ns - 100);
        assert_eq!(explanation.unattributed_ns(), Some(0));
        println!("{count} records explained in {took:.2} s of CPU time");
        took
    };
    // Ten times as many take ten times as long, a little more for what is sorted and for caches that are too small for them.
    // Others on the machine have no part in CPU time, but in what is left of caches: the quickest of the few is the one they were
    // least in the way of, and the many have a second try.
    let grows_alike = || {
        let few = (0..3).map(|_| explain(100_000)).fold(f64::INFINITY, f64::min);
        let many = explain(1_000_000);
        println!("{few} and {many} s");
        many <= 20.0 * few
    };
    assert!(grows_alike() || grows_alike(), "it took more than twenty times as long, twice");
}
