//! What happened to each task, task by task: the records of a recording, sorted out by thread.

use super::file_calls::Transfer;
use crate::{
    host::kallsyms::KernelSymbols,
    probe::{ExitReasons, Record, syscall_name},
    sandbox::{RoleRule, rule_of},
};
use sandscope_ebpf::{
    event::{COMM_BYTES, Exec, Faults, NO_SYSCALL, Switch, WakeCause},
    map::FileUse,
};
use std::{collections::HashMap, mem::take};

/// `TASK_DEAD` in `task_struct.__state`: switched out for the last time.
const TASK_DEAD: u32 = 0x80;
/// `CLONE_THREAD` of `clone(2)`.
const CLONE_THREAD: u64 = 0x10000;

/// Translators of numbers into names.
#[derive(Debug, Default)]
pub struct Names {
    /// Kernel functions; must have learnt the addresses of the recording, see [`Names::learn`].
    pub symbols: KernelSymbols,
    /// Reasons of KVM exits.
    pub exits: ExitReasons,
    /// Threads by number, where their names tell their roles.
    pub threads: HashMap<u32, NamedThread>,
}

/// A thread whose name was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedThread {
    /// Its number.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its role, if a rule tells it.
    pub role: Option<&'static str>,
}

impl Names {
    /// Looks up the kernel functions that a recording mentions.
    pub fn learn(&mut self, records: &[Record]) {
        self.symbols.learn(records.iter().filter_map(|record| match record {
            Record::Wake(wake) if has_function(wake.header.flags) => Some(wake.detail),
            _ => None,
        }));
    }
}

fn has_function(cause: u8) -> bool {
    cause == WakeCause::Hrtimer as u8 || cause == WakeCause::Timer as u8
}

/// Why a task was woken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wake {
    /// Kind of cause: `task`, `hrtimer`, `irq`, `timer`, `softirq`.
    pub cause: &'static str,
    /// Function, interrupt number or softirq name; empty for tasks.
    pub detail: String,
    /// Task that was running on the waker's CPU: its role where it belongs to the sandbox or works for it, else its name.
    pub waker: String,
    /// Whether that task is part of the sandbox.
    pub waker_is_member: bool,
}

/// What a thread outside the sandbox is there for, and so what it does while nothing is seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It acts by itself, as the launcher and the client do: one that is never switched has a CPU all the time.
    Acts,
    /// It waits for what the sandbox says, as the reader of its console does.
    Listens,
    /// It is a daemon's: it waits until it is asked, and what it then waits for is a part of its work.
    Serves,
}

/// A thread outside the sandbox that works for it: the launcher, the client, a daemon's.
#[derive(Debug, Clone)]
pub struct Bystander {
    /// Its number.
    pub tid: u32,
    /// What it does.
    pub role: String,
    /// What it is there for.
    pub duty: Duty,
    /// When the probes were told to forget it; `None`: not before the end of the recording.
    pub until_ns: Option<u64>,
}

/// One change of a task's place on the CPUs.
#[derive(Debug, Clone)]
pub(super) enum Move {
    /// It got a CPU.
    In {
        /// Which one.
        cpu: u16,
    },
    /// It left the CPU.
    Out {
        /// `task_struct.__state`; 0 when it stays runnable.
        state: u32,
        /// Call it was in.
        call: Option<OpenCall>,
        /// Its page faults since it got the CPU.
        faults: Faults,
    },
    /// It was woken; by which task of the histories, if by one of them.
    Woken(Wake, Option<usize>),
}

/// A system call that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenCall {
    pub(super) number: i32,
    pub(super) argument: u64,
    pub(super) since_ns: u64,
}

/// A system call from entry to return, or to the end of what is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: i32,
    pub(super) argument: u64,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// What it did with a regular file, if it did anything.
    pub(super) transfer: Option<Transfer>,
}

/// `ioctl(KVM_RUN)`: the vCPU runs. The request number is the same on every architecture.
const KVM_RUN: u64 = 0xae80;

impl Call {
    pub(super) fn is_kvm_run(&self) -> bool {
        self.argument == KVM_RUN
    }

    /// Name of the call; for KVM's requests with the request.
    pub(super) fn name(&self) -> String {
        call_name(self.number, self.argument)
    }
}

/// Name of a system call; for KVM's requests with the request.
pub(super) fn call_name(number: i32, argument: u64) -> String {
    // `include/uapi/linux/kvm.h`; requests without a size are the same everywhere.
    match argument {
        KVM_RUN => "ioctl(KVM_RUN)".to_owned(),
        0xae01 => "ioctl(KVM_CREATE_VM)".to_owned(),
        0xae41 => "ioctl(KVM_CREATE_VCPU)".to_owned(),
        _ => syscall_name(number),
    }
}

/// One crossing of the border between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    Entry,
    Exit { reason: u32, isa: u32 },
}

/// Everything known of one task.
#[derive(Debug)]
pub struct History {
    /// Thread number.
    pub tid: u32,
    /// Process number.
    pub tgid: u32,
    /// Name at the end of the recording.
    pub comm: String,
    /// Part of the sandbox; else a bystander that works for it.
    pub member: bool,
    /// What a bystander is there for; `None` for the sandbox's own.
    pub(super) duty: Option<Duty>,
    /// Position among the vCPUs in order of their first run, if it is one.
    pub vcpu: Option<u32>,
    /// Roles, each from an instant on.
    roles: Vec<(u64, String)>,
    forked_role: Option<&'static str>,
    /// Its beginning was not seen.
    is_stray: bool,
    pub(super) born_ns: Option<u64>,
    pub(super) died_ns: Option<u64>,
    pub(super) moves: Vec<(u64, Move)>,
    pub(super) calls: Vec<Call>,
    pub(super) crossings: Vec<(u64, Crossing)>,
}

impl History {
    fn new(tid: u32, tgid: u32, role: String, member: bool, born_ns: Option<u64>) -> Self {
        Self {
            tid,
            tgid,
            comm: String::new(),
            member,
            duty: None,
            vcpu: None,
            roles: vec![(0, role)],
            forked_role: None,
            is_stray: false,
            born_ns,
            died_ns: None,
            moves: Vec::new(),
            calls: Vec::new(),
            crossings: Vec::new(),
        }
    }

    /// What the task was to the sandbox at an instant.
    pub fn role_at(&self, at_ns: u64) -> &str {
        let after = self.roles.partition_point(|&(since, _)| since <= at_ns);
        &self.roles[after.saturating_sub(1)].1
    }

    /// Whether what it does is counted: the agent's own threads are not.
    pub(super) fn is_counted(&self) -> bool {
        self.member || self.is_daemon()
    }

    /// Whether it is a thread of a daemon that works for the sandbox.
    pub(super) fn is_daemon(&self) -> bool {
        self.duty == Some(Duty::Serves)
    }

    /// Name of the last call that had returned at an instant.
    pub(super) fn last_call(&self, at_ns: u64) -> Option<String> {
        let after = self.calls.partition_point(|call| call.start_ns <= at_ns);
        self.calls[..after].last().filter(|call| call.end_ns <= at_ns).map(Call::name)
    }

    /// Whether the task existed at an instant.
    pub fn lives_at(&self, at_ns: u64) -> bool {
        self.born_ns.is_none_or(|born| born <= at_ns) && self.died_ns.is_none_or(|died| at_ns <= died)
    }

    /// The first instant after `at_ns` at which the task got another role.
    pub(super) fn next_role_change(&self, at_ns: u64) -> u64 {
        let next = self.roles.partition_point(|&(since, _)| since <= at_ns);
        self.roles.get(next).map_or(u64::MAX, |&(since, _)| since)
    }

    /// Whether this task is the one that executed a file as thread `tid` at that instant.
    pub(super) fn executed_at(&self, tid: u32, at_ns: u64) -> bool {
        self.tid == tid && self.roles.iter().any(|&(since, _)| since == at_ns)
    }

    /// When it first entered the guest, or asked KVM to.
    pub(super) fn first_run_ns(&self) -> Option<u64> {
        let crossing = self.crossings.first().map(|&(at_ns, _)| at_ns);
        let run = self.calls.iter().find(|call| call.is_kvm_run()).map(|call| call.start_ns);
        crossing.into_iter().chain(run).min()
    }

    /// What the task was in the end.
    pub fn role(&self) -> &str {
        self.role_at(u64::MAX)
    }
}

/// The histories of all tasks of one instance.
#[derive(Debug, Default)]
pub struct Histories {
    /// In the order in which they appeared.
    pub tasks: Vec<History>,
    by_tid: HashMap<u32, usize>,
}

impl Histories {
    /// Sorts a recording out by task.
    ///
    /// `bystanders` are the threads outside the sandbox that work for it; `rules` tell the roles of the sandbox's own.
    pub fn of(
        records: &[Record],
        scope: u16,
        bystanders: &[Bystander],
        rules: &'static [RoleRule],
        names: &Names,
    ) -> Self {
        let mut histories = Self::default();
        for bystander in bystanders {
            let Bystander { tid, ref role, duty, until_ns } = *bystander;
            let history = History::new(tid, tid, role.clone(), false, None);
            histories.add(History { duty: Some(duty), died_ns: until_ns, ..history });
        }
        for record in records.iter().filter(|record| record.concerns(scope)) {
            histories.read(record, scope, rules, names);
        }
        histories.finish(records.last().map_or(0, |record| record.header().at_ns));
        histories
    }

    /// When a vCPU entered `KVM_RUN` for the first time.
    pub(super) fn first_kvm_run(&self) -> Option<u64> {
        let calls = self.tasks.iter().flat_map(|history| &history.calls);
        calls.filter(|call| call.is_kvm_run()).map(|call| call.start_ns).min()
    }

    fn add(&mut self, history: History) -> &mut History {
        let index = self.tasks.len();
        self.by_tid.insert(history.tid, index);
        self.tasks.push(history);
        &mut self.tasks[index]
    }

    /// The task that has this number at the moment.
    fn get(&mut self, tid: u32) -> &mut History {
        match self.by_tid.get(&tid) {
            Some(&index) => &mut self.tasks[index],
            // A task whose beginning was lost, or that existed before.
            None => {
                let stray = History::new(tid, tid, "unknown".to_owned(), true, None);
                self.add(History { is_stray: true, ..stray })
            }
        }
    }

    fn read(&mut self, record: &Record, scope: u16, rules: &'static [RoleRule], names: &Names) {
        let header = *record.header();
        match record {
            Record::TaskNew(new) => {
                let same_process = new.clone_flags & CLONE_THREAD != 0;
                let parent = self.get(header.tid);
                let role = match parent.forked_role.filter(|_| !same_process) {
                    Some(role) => role.to_owned(),
                    None => parent.role().to_owned(),
                };
                // Processes that a bystander starts belong to the sandbox; its own threads do not.
                let member = parent.member || !same_process;
                let duty = parent.duty.filter(|_| same_process);
                let (comm, tgid, forked_role) = (parent.comm.clone(), parent.tgid, parent.forked_role);
                let tgid = if same_process { tgid } else { new.child_tid };
                let named = names.threads.get(&new.child_tid).filter(|_| same_process);
                let role = named.and_then(|thread| thread.role).map_or(role, str::to_owned);
                let mut child = History::new(new.child_tid, tgid, role, member, Some(header.at_ns));
                child.comm = named.map_or(comm, |thread| thread.comm.clone());
                child.duty = duty;
                child.forked_role = forked_role.filter(|_| same_process);
                self.add(child);
            }
            Record::Exec(exec) => self.read_exec(exec, rules),
            Record::Switch(switch) => self.read_switch(switch, scope),
            Record::Wake(wake) => {
                let waker = self.waker_name(wake.waker_tid, wake.waker_scope == scope, &wake.waker_comm);
                let known = self.by_tid.get(&wake.waker_tid).copied();
                let waker_is_member = known.is_some_and(|index| self.tasks[index].member);
                let (cause, detail) = cause_name(u16::from(header.flags), wake.detail, names);
                // A task that an interrupt merely came upon wakes nobody.
                let by = known.filter(|_| header.flags == WakeCause::Task as u8);
                let woken = Wake { cause, detail, waker, waker_is_member };
                self.get(header.tid).moves.push((header.at_ns, Move::Woken(woken, by)));
            }
            Record::Syscall(call) => {
                let does = |use_: FileUse| header.flags == use_ as u8;
                let bytes = u64::try_from(call.result).ok().filter(|_| does(FileUse::Read) || does(FileUse::Write));
                let call = Call {
                    number: call.number,
                    argument: call.arg,
                    start_ns: call.since_ns,
                    end_ns: header.at_ns,
                    transfer: bytes.map(|bytes| Transfer { is_write: does(FileUse::Write), bytes }),
                };
                self.get(header.tid).calls.push(call);
            }
            Record::KvmEntry(_) => self.get(header.tid).crossings.push((header.at_ns, Crossing::Entry)),
            Record::KvmExit(exit) => {
                let crossing = Crossing::Exit { reason: exit.reason, isa: exit.isa };
                self.get(header.tid).crossings.push((header.at_ns, crossing));
            }
            Record::Exit(_)
            | Record::KvmUserspaceExit(_)
            | Record::KvmPio(_)
            | Record::KvmMmio(_)
            | Record::KvmHaltWake(_)
            | Record::KvmHaltPoll(_)
            | Record::Listen(_)
            | Record::Block(_)
            | Record::Frame(_) => {}
        }
    }

    fn read_exec(&mut self, exec: &Exec, rules: &'static [RoleRule]) {
        self.renumber(exec.old_tid, exec.header.tid, exec.header.at_ns);
        let history = self.get(exec.header.tid);
        history.comm = text(&exec.comm);
        let words = exec_words(exec);
        let rule = rule_of(rules, &words[0], &words[1..]);
        let role = rule.map_or_else(|| history.comm.clone(), |rule| rule.role.to_owned());
        history.forked_role = rule.and_then(|rule| rule.forked);
        history.roles.push((exec.header.at_ns, role));
    }

    /// A thread that executes takes the number of its process's first thread, which is dead by then. The kernel swaps the two
    /// numbers somewhat before it tells of the exec, so records in between came under the new number.
    fn renumber(&mut self, old_tid: u32, tid: u32, at_ns: u64) {
        if old_tid == tid {
            return;
        }
        let Some(thread) = self.by_tid.remove(&old_tid) else { return };
        if let Some(first) = self.by_tid.insert(tid, thread) {
            let first = &mut self.tasks[first];
            first.died_ns = Some(at_ns);
            if first.is_stray {
                let (moves, calls, crossings) =
                    (take(&mut first.moves), take(&mut first.calls), take(&mut first.crossings));
                let thread = &mut self.tasks[thread];
                thread.moves.extend(moves);
                thread.calls.extend(calls);
                thread.crossings.extend(crossings);
            }
        }
        self.tasks[thread].tid = tid;
    }

    fn read_switch(&mut self, switch: &Switch, scope: u16) {
        let header = switch.header;
        if header.scope == scope {
            let call = (switch.syscall != NO_SYSCALL).then_some(OpenCall {
                number: switch.syscall,
                argument: switch.syscall_arg,
                since_ns: switch.syscall_since_ns,
            });
            let history = self.get(header.tid);
            let out = Move::Out { state: switch.prev_state, call, faults: switch.faults };
            history.moves.push((header.at_ns, out));
            if switch.prev_state & TASK_DEAD != 0 {
                history.died_ns = Some(header.at_ns);
                self.by_tid.remove(&header.tid);
            }
        }
        if switch.next_scope == scope {
            self.get(switch.next_tid).moves.push((header.at_ns, Move::In { cpu: switch.cpu }));
        }
    }

    fn waker_name(&self, tid: u32, in_scope: bool, comm: &[u8; COMM_BYTES]) -> String {
        match self.by_tid.get(&tid) {
            Some(&index) if in_scope => self.tasks[index].role().to_owned(),
            _ => text(comm),
        }
    }

    /// Adds the calls that never returned, puts the calls in order and numbers the vCPUs.
    fn finish(&mut self, end_ns: u64) {
        for history in &mut self.tasks {
            history.calls.sort_by_key(|call| call.start_ns);
            let end_ns = history.died_ns.unwrap_or(end_ns);
            let mut open: Vec<Call> = Vec::new();
            for (_, step) in &history.moves {
                let Move::Out { call: Some(call), .. } = step else {
                    continue;
                };
                // A daemon's thread goes on after it has served this sandbox.
                let is_later = call.since_ns >= end_ns;
                let returned = history.calls.binary_search_by_key(&call.since_ns, |known| known.start_ns).is_ok();
                if !is_later && !returned && open.last().is_none_or(|last| last.start_ns != call.since_ns) {
                    let OpenCall { number, argument, since_ns } = *call;
                    open.push(Call { number, argument, start_ns: since_ns, end_ns, transfer: None });
                }
            }
            // A call that has no return ends at the latest where the next one begins (a lost record).
            history.calls.extend(open);
            history.calls.sort_by_key(|call| call.start_ns);
            for index in 1..history.calls.len() {
                let next = history.calls[index].start_ns;
                let call = &mut history.calls[index - 1];
                call.end_ns = call.end_ns.min(next);
            }
        }
        let mut first_runs: Vec<(u64, usize)> = self
            .tasks
            .iter()
            .enumerate()
            .filter_map(|(index, history)| Some((history.first_run_ns()?, index)))
            .collect();
        first_runs.sort_unstable();
        for (number, (_, index)) in (0..).zip(first_runs) {
            self.tasks[index].vcpu = Some(number);
        }
    }
}

/// Kind and detail of a wake-up's cause, a [`WakeCause`].
pub fn cause_name(cause: u16, detail: u64, names: &Names) -> (&'static str, String) {
    /// `softirq_to_name` of the kernel (`kernel/softirq.c`), the order of which is its ABI in `/proc/softirqs`.
    const SOFTIRQS: [&str; 10] =
        ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
    if cause == WakeCause::Hrtimer as u16 {
        ("hrtimer", names.symbols.name(detail))
    } else if cause == WakeCause::Timer as u16 {
        ("timer", names.symbols.name(detail))
    } else if cause == WakeCause::Irq as u16 {
        ("irq", detail.to_string())
    } else if cause == WakeCause::Softirq as u16 {
        let name = usize::try_from(detail).ok().and_then(|vector| SOFTIRQS.get(vector));
        ("softirq", name.map_or_else(|| detail.to_string(), |&name| name.to_owned()))
    } else {
        ("task", String::new())
    }
}

/// The executed path and the arguments, made harmless for a terminal.
pub(super) fn exec_words(exec: &Exec) -> Vec<String> {
    let args = &exec.args[..(exec.args_bytes as usize).min(exec.args.len())];
    let args = args.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    std::iter::once(text(&exec.path)).chain(args.map(text)).collect()
}

/// Text up to the first NUL; bytes that are no printable UTF-8 become the replacement character.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let lossy = String::from_utf8_lossy(&bytes[..end]);
    lossy.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
