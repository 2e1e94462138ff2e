//! Sorts a recording out by task: records in, histories out. It can be given more records later, and told to forget what they no
//! longer need.

use super::{
    exit_reason::{DevicePages, ExitReason},
    fault_prices::{FaultPrices, Timed},
    file_calls::Transfer,
    history::{
        Birth, Bystander, Call, Crossing, Executed, History, Interruptions, Move, NamedThread, OpenCall, Running,
        Sampled, Wake, is_itself,
    },
    names::{Called, Cause},
    stacks::{Stacks, called_from},
    texts::{Text, Texts},
};
use crate::{
    printable,
    probe::{Record, object_text},
    role::{RoleRule, rule_of},
};
use sandscope_ebpf::{
    event::{Exec, NO_SYSCALL, Switch, THROTTLED},
    map::FileUse,
};
use std::{
    collections::{HashMap, HashSet},
    mem::take,
    path::{Path, PathBuf},
};

/// `TASK_DEAD` in `task_struct.__state`: switched out for the last time.
const TASK_DEAD: u32 = 0x80;
/// `CLONE_THREAD` of `clone(2)`.
const CLONE_THREAD: u64 = 0x10000;

/// Whose records are of interest, and how they are read.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The scope.
    pub scope: u16,
    /// Threads outside of the sandbox that work for it. One may work for several sandboxes at once, as the client of a burst does,
    /// and is in the scope of one of them alone.
    pub bystanders: Vec<Bystander>,
    /// Roles of the sandbox's own processes.
    pub rules: &'static [RoleRule],
    /// Nanoseconds of a page fault that lie outside of what is timed of it.
    pub untimed_fault_ns: u64,
    /// What page faults of instances that are like this one took, for records whose faults were not timed.
    pub fault_prices: FaultPrices,
    /// Files that it executes, as it calls them, with where they are on the host: whose functions can be looked up.
    pub programs: Vec<(String, PathBuf)>,
}

impl Source {
    /// Whether a record tells something about the scope or who works for it.
    pub fn concerns(&self, record: &Record) -> bool {
        let header = record.header();
        let of_next = |record: &Record| match record {
            Record::Switch(switch) => self.has(switch.next_scope, switch.next_tid),
            _ => false,
        };
        self.has(header.scope, header.tid) || of_next(record)
    }

    fn has(&self, scope: u16, tid: u32) -> bool {
        scope == self.scope || (scope != 0 && self.bystanders.iter().any(|bystander| bystander.tid == tid))
    }
}

/// The histories of all tasks of one instance.
#[derive(Debug, Default)]
pub struct Histories {
    /// In the order in which they appeared.
    pub tasks: Vec<History>,
    /// Words in them.
    pub texts: Texts,
    /// Memory of devices that guests of the instance have reached for.
    device_pages: DevicePages,
    /// Stacks in them.
    pub stacks: Stacks,
    /// Who had each CPU since when, as far as the switches of these tasks tell.
    pub(super) cpus: foldhash::HashMap<u16, Vec<(u64, Occupant)>>,
    source: Source,
    /// Threads whose names tell their roles.
    named: HashMap<u32, NamedThread>,
    by_tid: foldhash::HashMap<u32, usize>,
    end_ns: u64,
}

/// Who has a CPU from an instant on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupant {
    /// One of the tasks, by its place.
    Task(usize),
    /// Others; the name is of the last of them, where it is known.
    Others(Option<Text>),
}

impl Histories {
    /// No histories yet.
    pub fn new(source: Source) -> Self {
        let mut histories = Self { source, ..Self::default() };
        for bystander in histories.source.bystanders.clone() {
            let Bystander { tid, tgid, ref role, duty, until_ns } = bystander;
            let role = histories.texts.keep(role);
            let history = History::new(tid, tgid, role, role, false);
            histories.add(History { duty: Some(duty), died_ns: until_ns, ..history });
        }
        histories
    }

    /// The histories of a whole recording.
    pub fn of(records: &[Record], source: Source, named: &[NamedThread]) -> Self {
        let mut histories = Self::new(source);
        histories.feed(records, named);
        histories
    }

    /// Reads what was recorded next. Records that do not concern the source are passed over.
    pub fn feed(&mut self, records: &[Record], named: &[NamedThread]) {
        self.named.extend(named.iter().map(|thread| (thread.tid, thread.clone())));
        for history in &mut self.tasks {
            history.calls.retain(|call| call.result.is_some());
        }
        for record in records {
            self.read(record);
        }
        self.end_ns = records.last().map_or(self.end_ns, |record| record.header().at_ns.max(self.end_ns));
        self.settle();
    }

    /// Whose records they are made of.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The last instant that was recorded; 0 if none was.
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Number of the thread outside of the sandbox that has a role.
    pub fn bystander(&self, role: &str) -> Option<u32> {
        self.source.bystanders.iter().find(|bystander| bystander.role == role).map(|bystander| bystander.tid)
    }

    /// Notes when the probes were told to forget the bystanders.
    pub fn forget_bystanders(&mut self, bystanders: &[Bystander]) {
        for bystander in bystanders {
            let of = |history: &&mut History| history.duty.is_some() && history.tid == bystander.tid;
            if let Some(history) = self.tasks.iter_mut().find(of) {
                history.died_ns = bystander.until_ns;
            }
        }
    }

    /// Drops all that the time after this instant does not depend on. Nothing before it can be asked for any more.
    pub fn drop_before(&mut self, at_ns: u64) {
        let mut places = vec![None; self.tasks.len()];
        let mut kept = Vec::new();
        for (place, mut history) in take(&mut self.tasks).into_iter().enumerate() {
            if history.died_ns.is_some_and(|died| died < at_ns) && history.duty.is_none() {
                continue;
            }
            let before = history.moves.partition_point(|&(at, _)| at < at_ns);
            let last = history.moves[..before].iter().rposition(|(_, step)| !matches!(step, Move::Woken(_)));
            history.moves.drain(..last.unwrap_or(0));
            history.calls.retain(|call| call.end_ns >= at_ns || call.result.is_none());
            let crossings = history.crossings.partition_point(|&(at, _)| at < at_ns);
            history.crossings.drain(..crossings.saturating_sub(1));
            history.interruptions.retain(|&(at, _)| at >= at_ns);
            history.samples.clear();
            places[place] = Some(kept.len());
            kept.push(history);
        }
        let moved = |task: usize| places[task];
        for history in &mut kept {
            history.born = history.born.and_then(|born| Some(Birth { parent: moved(born.parent)?, ..born }));
            for (_, step) in &mut history.moves {
                if let Move::Woken(wake) = step {
                    wake.running.task = wake.running.task.and_then(moved);
                }
            }
        }
        self.by_tid = take(&mut self.by_tid).into_iter().filter_map(|(tid, task)| Some((tid, moved(task)?))).collect();
        self.cpus.clear();
        self.tasks = kept;
    }

    /// Where on the host the programs are that tasks have executed, as far as the source knows.
    pub fn executed_programs(&self) -> impl Iterator<Item = &Path> {
        let executed: HashSet<Text> =
            self.tasks.iter().flat_map(|task| &task.executed).map(|executed| executed.path).collect();
        let known = self.source.programs.iter();
        known
            .filter(move |(name, _)| self.texts.find(name).is_some_and(|name| executed.contains(&name)))
            .map(|(_, file)| file.as_path())
    }

    /// Which execution a task is a part of at an instant: its own last one, or that of who made it. A task, and the place among what it
    /// executed.
    pub fn execution_of(&self, task: usize, at_ns: u64) -> Option<(usize, usize)> {
        let (mut task, mut at_ns) = (task, at_ns);
        // Each maker was born before who it made; records may say otherwise.
        for _ in 0..self.tasks.len() {
            let history = &self.tasks[task];
            match history.executed_last(at_ns) {
                Some(place) => return Some((task, place)),
                None => (task, at_ns) = history.born.map(|born| (born.parent, born.at_ns))?,
            }
        }
        None
    }

    /// Where on the host the program is that a task runs at an instant, if that is one of the source's.
    pub fn program_of(&self, task: usize, at_ns: u64) -> Option<&Path> {
        let (mut task, mut at_ns) = (task, at_ns);
        for _ in 0..self.tasks.len() {
            let (executor, place) = self.execution_of(task, at_ns)?;
            let executed = &self.tasks[executor].executed[place];
            let path = self.texts.get(executed.path);
            if !is_itself(path) {
                let known = self.source.programs.iter().find(|(name, _)| name == path);
                return known.map(|(_, file)| file.as_path());
            }
            // What it was until then.
            (task, at_ns) = (executor, executed.at_ns.checked_sub(1)?);
        }
        None
    }

    /// When a vCPU entered `KVM_RUN` for the first time.
    pub(super) fn first_kvm_run(&self) -> Option<u64> {
        let calls = self.tasks.iter().flat_map(|history| &history.calls);
        calls.filter(|call| call.called.is_kvm_run()).map(|call| call.start_ns).min()
    }

    /// The task that had a number at an instant.
    pub fn task_at(&self, tid: u32, at_ns: u64) -> Option<&History> {
        self.tasks.iter().find(|task| task.tid == tid && task.lives_at(at_ns))
    }

    /// Role of a thread at an instant; thread numbers are used again, so the instant matters.
    pub fn role_of(&self, tid: u32, at_ns: u64) -> &str {
        self.task_at(tid, at_ns).map_or("unknown", |task| self.texts.get(task.role_at(at_ns)))
    }

    fn add(&mut self, history: History) -> usize {
        let place = self.tasks.len();
        self.by_tid.insert(history.tid, place);
        self.tasks.push(history);
        place
    }

    /// The task that has this number at the moment.
    fn place(&mut self, tid: u32) -> usize {
        match self.by_tid.get(&tid) {
            Some(&place) => place,
            // A task whose beginning was lost, or that existed before.
            None => {
                let unknown = self.texts.keep("unknown");
                let stray = History::new(tid, tid, unknown, unknown, true);
                self.add(History { is_stray: true, ..stray })
            }
        }
    }

    fn task(&mut self, tid: u32) -> &mut History {
        let place = self.place(tid);
        &mut self.tasks[place]
    }

    fn read(&mut self, record: &Record) {
        let header = *record.header();
        if let Record::Switch(switch) = record {
            return self.read_switch(switch);
        }
        if !self.source.has(header.scope, header.tid) {
            return;
        }
        match record {
            Record::TaskNew(new) => {
                let same_process = new.clone_flags & CLONE_THREAD != 0;
                self.read_birth(header.at_ns, header.tid, new.child_tid, same_process);
            }
            Record::Exec(exec) => self.read_exec(exec),
            Record::Wake(wake) => {
                let task = self.by_tid.get(&wake.waker_tid).copied();
                let who = match task {
                    Some(task) => self.tasks[task].role_at(header.at_ns),
                    None => self.texts.keep(&printable::name(&wake.waker_comm)),
                };
                // One that exists but is of another scope is no task of these.
                let task = task.filter(|_| self.source.has(wake.waker_scope, wake.waker_tid));
                let cause = Cause::of(header.flags.into(), wake.detail);
                let woken = self.task(header.tid);
                let wake = Wake { cause, running: Running { task, who }, stack: woken.stack.take() };
                woken.moves.push((header.at_ns, Move::Woken(wake)));
            }
            Record::WaitStack(stack) => {
                let stack = self.stacks.keep(&stack.frames, header.flags != 0);
                self.task(header.tid).stack = Some(stack);
            }
            Record::Sample(sample) => {
                let mut frames = sample.frames.iter().copied().take_while(|&frame| frame != 0);
                // The first is where it is, the others are where it will return to.
                let calls = frames.next().into_iter().chain(frames.map(called_from)).collect();
                let leaf_caller = called_from(sample.leaf_return);
                self.task(header.tid).samples.push(Sampled { at_ns: header.at_ns, calls, leaf_caller });
            }
            Record::Object(object) => {
                if let Some(text) = object_text(object) {
                    let text = self.texts.keep(&text);
                    self.task(header.tid).object = Some((object.since_ns, text));
                }
            }
            Record::Syscall(call) => {
                let does = |use_: FileUse| header.flags == use_ as u8;
                let bytes = u64::try_from(call.result).ok().filter(|_| does(FileUse::Read) || does(FileUse::Write));
                let task = self.task(header.tid);
                let object = task.object.take().filter(|&(since_ns, _)| since_ns == call.since_ns);
                task.calls.push(Call {
                    called: Called::of(call.number, call.arg),
                    start_ns: call.since_ns,
                    end_ns: header.at_ns,
                    result: Some(call.result),
                    object: object.map(|(_, text)| text),
                    transfer: bytes.map(|bytes| Transfer { is_write: does(FileUse::Write), bytes }),
                });
            }
            Record::Traps(traps) => {
                let interruptions = Interruptions {
                    faults: traps.faults,
                    timed: traps.timed,
                    timed_ns: traps.timed_ns,
                    interrupt_ns: traps.interrupt_ns,
                };
                self.task(header.tid).interruptions.push((header.at_ns, interruptions));
            }
            Record::KvmEntry(_) => self.task(header.tid).crossings.push((header.at_ns, Crossing::Entry)),
            Record::KvmExit(exit) => {
                let crossing = Crossing::Exit(ExitReason::of(exit.reason, exit.isa));
                self.task(header.tid).crossings.push((header.at_ns, crossing));
            }
            Record::KvmMmio(access) => {
                let page = self.device_pages.of(access.address);
                // Before the vCPU goes back into the guest.
                if let Some((_, Crossing::Exit(reason))) = self.task(header.tid).crossings.last_mut() {
                    reason.reaches_for(page);
                }
            }
            Record::Switch(_)
            | Record::Exit(_)
            | Record::KvmUserspaceExit(_)
            | Record::KvmPio(_)
            | Record::KvmHaltWake(_)
            | Record::KvmHaltPoll(_)
            | Record::Listen(_)
            | Record::Block(_)
            | Record::Frame(_) => {}
        }
    }

    fn read_birth(&mut self, at_ns: u64, parent_tid: u32, tid: u32, same_process: bool) {
        let parent_place = self.place(parent_tid);
        let named = self.named.get(&tid).filter(|_| same_process).cloned();
        let parent = &self.tasks[parent_place];
        let (forked_role, duty) = (parent.forked_role, parent.duty);
        let (mut role, mut comm) = (parent.role(), parent.comm);
        let tgid = if same_process { parent.tgid } else { tid };
        // Processes that a bystander starts belong to the sandbox; its own threads do not.
        let member = parent.member || !same_process;
        if let Some(forked) = forked_role.filter(|_| !same_process) {
            role = self.texts.keep(forked);
        }
        if let Some(thread) = named {
            comm = self.texts.keep(&thread.comm);
            role = thread.role.map_or(role, |role| self.texts.keep(role));
        }
        let child = History::new(tid, tgid, role, comm, member);
        self.add(History {
            born: Some(Birth { at_ns, parent: parent_place }),
            duty: duty.filter(|_| same_process),
            forked_role: forked_role.filter(|_| same_process),
            ..child
        });
    }

    fn read_exec(&mut self, exec: &Exec) {
        let at_ns = exec.header.at_ns;
        self.renumber(exec.old_tid, exec.header.tid, at_ns);
        let words = exec_words(exec);
        let comm = self.texts.keep(&printable::name(&exec.comm));
        let rule = rule_of(self.source.rules, &words[0], &words[1..]);
        let role = rule.map_or(comm, |rule| self.texts.keep(rule.role));
        let (path, arguments) = (self.texts.keep(&words[0]), self.texts.keep(&words[1..].join(" ")));
        let task = self.task(exec.header.tid);
        task.comm = comm;
        task.forked_role = rule.and_then(|rule| rule.forked);
        task.roles.push((at_ns, role));
        task.executed.push(Executed { at_ns, path, arguments });
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
                let interruptions = take(&mut first.interruptions);
                let thread = &mut self.tasks[thread];
                thread.moves.extend(moves);
                thread.calls.extend(calls);
                thread.crossings.extend(crossings);
                thread.interruptions.extend(interruptions);
            }
        }
        self.tasks[thread].tid = tid;
    }

    fn read_switch(&mut self, switch: &Switch) {
        let header = switch.header;
        let (leaves, arrives) =
            (self.source.has(header.scope, header.tid), self.source.has(switch.next_scope, switch.next_tid));
        if !leaves && !arrives {
            return;
        }
        if leaves {
            let within = (switch.syscall != NO_SYSCALL).then_some(OpenCall {
                called: Called::of(switch.syscall, switch.syscall_arg),
                since_ns: switch.syscall_since_ns,
            });
            let task = self.task(header.tid);
            task.moves.push((
                header.at_ns,
                Move::Out {
                    state: switch.prev_state,
                    within,
                    exec_ns: switch.prev_exec_ns,
                    throttled: header.flags & THROTTLED != 0,
                },
            ));
            if switch.prev_state & TASK_DEAD != 0 {
                task.died_ns = Some(header.at_ns);
            }
        } else {
            let others = self.texts.keep(&printable::name(&switch.prev_comm));
            if let Some((_, Occupant::Others(name))) = self.cpus.get_mut(&switch.cpu).and_then(|cpu| cpu.last_mut()) {
                *name = Some(others);
            }
        }
        let occupant = if arrives {
            let place = self.place(switch.next_tid);
            self.tasks[place].moves.push((header.at_ns, Move::In { cpu: switch.cpu }));
            Occupant::Task(place)
        } else {
            Occupant::Others(None)
        };
        self.cpus.entry(switch.cpu).or_default().push((header.at_ns, occupant));
        if leaves && switch.prev_state & TASK_DEAD != 0 {
            self.by_tid.remove(&header.tid);
        }
    }

    /// Says what a page fault of each task takes: the mean of those that were timed of it, or where these are few, of its process, of
    /// all, or of instances like this one.
    fn price_faults(&mut self) {
        let mut of_processes: HashMap<u32, Timed> = HashMap::new();
        let mut of_all = Timed::default();
        let of_tasks: Vec<Timed> = self.tasks.iter().map(History::timed_faults).collect();
        for (task, own) in self.tasks.iter().zip(&of_tasks) {
            *of_processes.entry(task.tgid).or_default() += *own;
            of_all += *own;
        }
        for (task, own) in self.tasks.iter_mut().zip(of_tasks) {
            let of_process = of_processes.get(&task.tgid).copied().unwrap_or_default();
            let here = own.mean_ns().or_else(|| of_process.mean_ns()).or_else(|| of_all.any_mean_ns());
            let mean_ns = here.or_else(|| self.source.fault_prices.mean_ns(self.texts.get(task.role())));
            task.fault_ns = mean_ns.map_or(0, |mean_ns| mean_ns + self.source.untimed_fault_ns);
        }
    }

    /// What page faults took that were timed here, by role.
    pub fn timed_faults(&self) -> FaultPrices {
        let mut prices = FaultPrices::default();
        for task in &self.tasks {
            prices.note(self.texts.get(task.role()), task.timed_faults());
        }
        prices
    }

    /// Adds the calls that have not returned, puts the calls in order and numbers the vCPUs.
    fn settle(&mut self) {
        for history in &mut self.tasks {
            history.calls.sort_by_key(|call| call.start_ns);
            let end_ns = history.died_ns.unwrap_or(self.end_ns);
            let mut open: Vec<Call> = Vec::new();
            for (_, step) in &history.moves {
                let Move::Out { within: Some(within), .. } = step else { continue };
                if within.called == Called::FAULT {
                    continue;
                }
                // A daemon's thread goes on after it has served this sandbox.
                let is_later = within.since_ns >= end_ns;
                let returned = history.calls.binary_search_by_key(&within.since_ns, |known| known.start_ns).is_ok();
                if !is_later && !returned && open.last().is_none_or(|last| last.start_ns != within.since_ns) {
                    open.push(Call {
                        called: within.called,
                        start_ns: within.since_ns,
                        end_ns,
                        result: None,
                        object: None,
                        transfer: None,
                    });
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
        self.price_faults();
        let mut first_runs: Vec<(u64, usize)> = self
            .tasks
            .iter()
            .enumerate()
            .filter_map(|(index, history)| Some((history.first_run_ns()?, index)))
            .collect();
        first_runs.sort_unstable();
        let mut numbered: HashSet<u32> = self.tasks.iter().filter_map(|task| task.vcpu).collect();
        let mut next = 0;
        for (_, index) in first_runs {
            if self.tasks[index].vcpu.is_none() {
                while numbered.contains(&next) {
                    next += 1;
                }
                self.tasks[index].vcpu = Some(next);
                numbered.insert(next);
            }
        }
    }
}

/// The executed path and the arguments, made harmless for a terminal.
pub(super) fn exec_words(exec: &Exec) -> Vec<String> {
    let args = &exec.args[..(exec.args_bytes as usize).min(exec.args.len())];
    let args = args.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    std::iter::once(printable::name(&exec.path)).chain(args.map(printable::name)).collect()
}
