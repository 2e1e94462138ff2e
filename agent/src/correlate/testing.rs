//! Records as tests write them down.

use super::{Bystander, Duty, FaultPrices, Histories, Source, Span, fault_prices::Timed};
use crate::{probe::Record, role::RoleRule};
use bytemuck::Zeroable;
use sandscope_ebpf::event::{
    Block, Exec, Header, Kind, NO_SYSCALL, Object, ObjectKind, Sample, Switch, Syscall, TaskNew, WaitStack, Wake,
    WakeCause,
};

pub const SCOPE: u16 = 3;
pub const LAUNCHER: u32 = 10;
pub const PROCESS: u32 = 20;
pub const OTHER: u32 = 30;
/// A thread of a daemon.
pub const DAEMON: u32 = 40;
/// The reader of the console, of which nothing is ever seen here: it must explain nothing.
pub const CONSOLE: u32 = 50;
/// Some thread outside.
pub const STRANGER: u32 = 99;
/// Numbers of system calls on x86-64, and on other architectures of calls that do not send anything.
pub const READ: i32 = 0;
pub const WAIT: i32 = 61;
pub const INTERRUPTIBLE: u32 = 1;
pub const UNINTERRUPTIBLE: u32 = 2;
pub const DEAD: u32 = 0x80;
pub const IOCTL: i32 = 16;
pub const KVM_RUN: u64 = 0xae80;

pub const RULES: &[RoleRule] = &[
    RoleRule { role: "sentry", contains: "boot", forked: Some("stub") },
    RoleRule { role: "runtime", contains: "runsc", forked: None },
];

pub fn header(at_ns: u64, tid: u32, kind: Kind) -> Header {
    Header { at_ns, tid, scope: SCOPE, kind: kind as u8, flags: 0 }
}

pub fn new_task(at_ns: u64, parent: u32, child_tid: u32) -> Record {
    Record::TaskNew(TaskNew { header: header(at_ns, parent, Kind::TaskNew), child_tid, ..TaskNew::zeroed() })
}

/// A thread of the same process.
pub fn new_thread(at_ns: u64, parent: u32, child_tid: u32) -> Record {
    const CLONE_THREAD: u64 = 0x10000;
    let header = header(at_ns, parent, Kind::TaskNew);
    Record::TaskNew(TaskNew { header, child_tid, clone_flags: CLONE_THREAD, tgid: parent })
}

pub fn exec(at_ns: u64, tid: u32, args: &[u8]) -> Record {
    let mut exec = Exec { header: header(at_ns, tid, Kind::Exec), ..Exec::zeroed() };
    exec.args[..args.len()].copy_from_slice(args);
    exec.args_bytes = args.len() as u32;
    exec.old_tid = tid;
    Record::Exec(Box::new(exec))
}

/// A CPU goes from `prev` to `next`; threads other than the stranger are in scope.
pub fn switch(at_ns: u64, prev: u32, prev_state: u32, next: u32) -> Record {
    let scope = |tid| if tid == STRANGER { 0 } else { SCOPE };
    let mut header = header(at_ns, prev, Kind::Switch);
    header.scope = scope(prev);
    let mut record = Switch::zeroed();
    record.header = header;
    (record.next_tid, record.next_scope) = (next, scope(next));
    (record.prev_state, record.syscall) = (prev_state, NO_SYSCALL);
    Record::Switch(record)
}

pub fn wake(at_ns: u64, tid: u32, cause: WakeCause, detail: u64, waker_comm: &[u8]) -> Record {
    let mut header = header(at_ns, tid, Kind::Wake);
    header.flags = cause as u8;
    let mut record = Wake { header, detail, waker_tid: STRANGER, ..Wake::zeroed() };
    record.waker_comm[..waker_comm.len()].copy_from_slice(waker_comm);
    Record::Wake(record)
}

/// Where the thread waits that is woken next.
pub fn wait_stack(at_ns: u64, tid: u32, calls: &[u64], is_lock: bool) -> Record {
    let header = Header { flags: is_lock.into(), ..header(at_ns, tid, Kind::WaitStack) };
    let mut stack = WaitStack { header, ..WaitStack::zeroed() };
    stack.frames[..calls.len()].copy_from_slice(calls);
    Record::WaitStack(Box::new(stack))
}

pub fn syscall(since_ns: u64, at_ns: u64, tid: u32, number: i32, arg: u64) -> Record {
    let header = header(at_ns, tid, Kind::Syscall);
    Record::Syscall(Syscall { header, since_ns, arg, number, ..Syscall::zeroed() })
}

/// The same, in a system call.
pub fn leaves_in(call: i32, since_ns: u64, record: Record) -> Record {
    let Record::Switch(mut switch) = record else { panic!("a switch") };
    (switch.syscall, switch.syscall_since_ns) = (call, since_ns);
    Record::Switch(switch)
}

/// The same, with the CPU time that the leaving task has had.
pub fn having_run(exec_ns: u64, record: Record) -> Record {
    let Record::Switch(mut switch) = record else { panic!("a switch") };
    switch.prev_exec_ns = exec_ns;
    Record::Switch(switch)
}

/// A task is woken by another one in scope.
pub fn wakes(at_ns: u64, waker: u32, tid: u32) -> Record {
    let Record::Wake(mut wake) = wake(at_ns, tid, WakeCause::Task, 0, b"x") else { panic!("a wake-up") };
    (wake.waker_tid, wake.waker_scope) = (waker, SCOPE);
    Record::Wake(wake)
}

/// A packet arrives, while a task in scope has the CPU.
pub fn packet(at_ns: u64, tid: u32, running: u32) -> Record {
    let Record::Wake(mut wake) = wake(at_ns, tid, WakeCause::Softirq, 3, b"x") else { panic!("a wake-up") };
    (wake.waker_tid, wake.waker_scope) = (running, SCOPE);
    Record::Wake(wake)
}

/// Page faults that somebody in a role had and that were timed.
pub fn timed_faults(role: &str, count: u64, time_ns: u64) -> FaultPrices {
    let mut prices = FaultPrices::default();
    prices.note(role, Timed { count, time_ns });
    prices
}

pub fn source() -> Source {
    let bystander = |tid, role: &str, duty| Bystander { tid, tgid: tid, role: role.to_owned(), duty, until_ns: None };
    let bystanders = vec![
        bystander(LAUNCHER, "launcher", Duty::Acts),
        bystander(DAEMON, "daemon", Duty::Serves),
        bystander(CONSOLE, "console", Duty::Listens),
    ];
    Source { scope: SCOPE, bystanders, rules: RULES, ..Source::default() }
}

/// What a call is about, by the parts of its path, the last first.
pub fn object(since_ns: u64, at_ns: u64, tid: u32, parts: &[&str]) -> Record {
    let mut object = Object { header: header(at_ns, tid, Kind::Object), since_ns, ..Object::zeroed() };
    object.header.flags = ObjectKind::File as u8;
    for (place, part) in object.name.iter_mut().zip(parts) {
        place[..part.len()].copy_from_slice(part.as_bytes());
    }
    Record::Object(Box::new(object))
}

/// A look at a thread that finds it at this address.
pub fn sample(at_ns: u64, tid: u32, address: u64) -> Record {
    let mut sample = Sample { header: header(at_ns, tid, Kind::Sample), ..Sample::zeroed() };
    sample.frames[0] = address;
    Record::Sample(Box::new(sample))
}

/// A read of 4 KiB that a thread queued.
pub fn block(queued_ns: u64, completed_ns: u64, tid: u32) -> Record {
    let (header, issued_ns) = (header(completed_ns, tid, Kind::Block), queued_ns + 1);
    Record::Block(Block { header, queued_ns, issued_ns, bytes: 4096, device: 8 << 20, ..Block::zeroed() })
}

/// The launcher forks at 100, the process gets a CPU at 110 and executes at 130.
pub fn launch() -> Vec<Record> {
    vec![
        new_task(100, LAUNCHER, PROCESS),
        switch(105, LAUNCHER, INTERRUPTIBLE, STRANGER),
        switch(110, STRANGER, 0, PROCESS),
        exec(130, PROCESS, b"runsc\0run\0"),
    ]
}

/// The process from its execution on: the path of most tests begins where it runs as `runtime`.
pub const RUNS_NS: u64 = 130;

pub fn histories(records: &[Record]) -> Histories {
    Histories::of(records, source(), &[])
}

pub fn spans(histories: &Histories, start_ns: u64, end_ns: u64) -> Vec<Vec<Span>> {
    histories.tasks.iter().map(|task| task.spans(start_ns, end_ns)).collect()
}

/// A daemon is woken at 100, runs from 110 on, waits for a disk in `fsync` from 150 to 250, and runs from 260 to 300.
pub fn daemon_at_work() -> Vec<Record> {
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
