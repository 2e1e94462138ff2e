//! Watches a sandbox for a window of time: what it does when nothing is asked of it, and what that costs.
//!
//! ```text
//! open (snapshot, counters, helpers) ─► time passes ─► close ─► Window ─► rows of the dataset, summary
//! ```
//!
//! Used for sandboxes that an experiment has started and for those that ran before.

mod attached;
mod checks;
mod content;
mod ended;
mod guest_symbols;
mod hot;
mod looked_at;
mod members;
mod roles;
mod rows;
mod summary;
mod target;
mod untold;

pub use attached::Attached;
pub(crate) use content::nanoseconds;
pub use content::{Content, ContentPart, ContentSummary};
pub use guest_symbols::{GuestSymbols, Moved};
pub use members::Members;
pub use rows::Translators;
pub use summary::{Busy, Cause, Cost, ExitRate, Place, WindowSummary, summarise};
pub use target::{Found, SYNTAX, Target};

use crate::{
    measure::{
        counters::{self, Counters},
        helpers::{self, Ksmd},
        idle_states::{self, IdleState},
        run_time,
        throttling::Throttling,
    },
    probe::{Aggregate, Ended, Snapshot, syscall_name},
    role::{RoleRule, ThreadRule, rule_of},
};
use anyhow::Result;
use ended::Sums;
use hot::Hot;
use roles::Machines;
use sandscope_ebpf::{
    map::Membership,
    sums::{State, Thread},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    time::Duration,
};

/// Role of the kernel's threads that work for a sandbox.
const HELPER: &str = "helper";

/// Whom to watch.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What it is called in the results.
    pub name: String,
    /// Number of its scope, in which its threads are.
    pub scope: u16,
    /// Roles of its processes.
    pub roles: &'static [RoleRule],
    /// Roles of its threads by their names.
    pub thread_roles: &'static [ThreadRule],
}

/// A window that is open.
pub struct Opening {
    subject: Subject,
    before: Snapshot,
    last: Option<Snapshot>,
    counters: Counters,
    idle_states: Vec<IdleState>,
    ksmd: Option<Ksmd>,
    stolen_ns: Option<u64>,
    helpers: BTreeSet<u32>,
    throttling: Throttling,
    /// The kernel's own count of the CPU time of each thread when the window was opened.
    run_ns: HashMap<u32, u64>,
    /// Those that have ended since then and whose places others have.
    ended: Sums,
    /// Those of them since the last tick.
    ended_since_tick: Sums,
}

/// Who a thread was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its name.
    pub comm: String,
    /// Its role.
    pub role: String,
    /// Number of the vCPU that it runs, as KVM counts them, where that can be told.
    pub vcpu: Option<u32>,
    /// The system call that it was in when it was looked at; `None` if it ran, or that can't be read.
    pub syscall: Option<String>,
    /// How many threads of that name this is the sum of: 1, or as many as have ended and have given their places to others.
    pub threads: u64,
}

/// A window that is over.
pub struct Window {
    /// Who was watched.
    pub subject: Subject,
    /// What was counted in it, of the threads of the sandbox and its helpers.
    pub counted: Snapshot,
    /// Who the threads were, by slot.
    pub threads: BTreeMap<u32, Who>,
    /// Where those of them that used most of a CPU were found, by slot.
    hot: BTreeMap<u32, Hot>,
    /// Counters of the kernel and the processor.
    pub counters: Vec<counters::Value>,
    /// What the host's CPUs did.
    pub idle_states: Vec<IdleState>,
    /// Share of `ksmd`; `None` where there is none.
    pub ksmd_ns: Option<u64>,
    /// Time that the host's hypervisor took; `None` where it does not say.
    pub stolen_ns: Option<u64>,
    /// Time in which CPU limits kept its threads from running; `None` where no control group counts it.
    pub throttled_ns: Option<u64>,
    /// What in these figures can't be, each in a sentence; empty when all checks hold.
    pub doubts: Vec<String>,
    /// Memory of the maps.
    pub maps_bytes: u64,
}

impl Opening {
    /// Opens a window on what is in a scope. `processes` are those known to belong to it, whose threads may have done nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn open(subject: Subject, processes: &BTreeSet<u32>, aggregate: &Aggregate) -> Result<Self> {
        let seen = aggregate.snapshot(subject.scope)?;
        let own = seen.threads.values().filter(|thread| !Membership(thread.membership).is_bystander());
        let processes: BTreeSet<u32> = own.map(|thread| thread.tgid).chain(processes.iter().copied()).collect();
        let helpers: BTreeSet<u32> = helpers::of(&processes).into_iter().collect();
        for &tid in &helpers {
            aggregate.mark(tid, Membership::bystander(subject.scope));
        }
        let threads = processes.iter().flat_map(|&pid| members::threads_of(pid)).collect();
        let (counters, idle_states) = (Counters::start(&threads), idle_states::read());
        let (ksmd, stolen_ns) = (Ksmd::read(), helpers::stolen_ns());
        let throttling = Throttling::of(&processes);
        aggregate.restart_unseen(subject.scope);
        let before = counts(aggregate, subject.scope)?;
        let known = before.threads.values().map(|thread| thread.tid);
        let run_ns = known.filter_map(|tid| Some((tid, run_time::run_ns(tid)?))).collect();
        Ok(Self {
            subject,
            before,
            last: None,
            counters,
            idle_states,
            ksmd,
            stolen_ns,
            helpers,
            throttling,
            run_ns,
            ended: Sums::default(),
            ended_since_tick: Sums::default(),
        })
    }

    /// Adds threads that have ended and whose places are free again. To be told of all of them, of any scope.
    pub fn note_ended(&mut self, ended: &Ended) {
        let known = self.last.as_ref().unwrap_or(&self.before);
        let ended = ended.of_scope(self.subject.scope, |slot| known.threads.contains_key(&slot));
        if ended.is_empty() {
            return;
        }
        let names = self.who_ended(&ended);
        let mut since_opening = ended.clone();
        self.before.give_up(&mut since_opening);
        self.ended.add(&since_opening, &names);
        let since_tick = match &mut self.last {
            Some(last) => {
                let mut since_tick = ended;
                last.give_up(&mut since_tick);
                since_tick
            }
            None => since_opening,
        };
        self.ended_since_tick.add(&since_tick, &names);
    }

    /// Who those are that are counted of the threads that have ended, by their slots. Of a thread that has ended nothing is left to be
    /// asked for but its name; its process may live, and is asked once.
    fn who_ended(&self, ended: &Ended) -> HashMap<u32, Who> {
        let mut roles: HashMap<u32, Option<&'static str>> = HashMap::new();
        let counted = ended.threads.iter().filter(|(_, thread)| self.is_counted(thread));
        let named = counted.map(|(&slot, thread)| {
            let comm = printable(&thread.comm);
            let of_process = roles.entry(thread.tgid).or_insert_with(|| process_role(self.subject.roles, thread.tgid));
            let role = self.role_by_name(&comm).or(*of_process).map_or_else(|| comm.clone(), str::to_owned);
            (slot, Who { comm, role, vcpu: None, syscall: None, threads: 1 })
        });
        named.collect()
    }

    fn role_by_name(&self, comm: &str) -> Option<&'static str> {
        self.subject.thread_roles.iter().find(|rule| comm.starts_with(rule.begins)).map(|rule| rule.role)
    }

    /// What has happened since the last tick, or since the window was opened; it stays open. Counters of the processor are left
    /// for its end.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn tick(&mut self, aggregate: &Aggregate) -> Result<Window> {
        let now = counts(aggregate, self.subject.scope)?;
        let counted = now.clone().since(self.last.as_ref().unwrap_or(&self.before));
        self.last = Some(now);
        let ended = std::mem::take(&mut self.ended_since_tick);
        Ok(self.window(counted, &ended, aggregate, Vec::new()))
    }

    /// Closes the window.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn close(mut self, aggregate: &Aggregate) -> Result<Window> {
        let counters = std::mem::replace(&mut self.counters, Counters::none()).stop();
        let counted = counts(aggregate, self.subject.scope)?.since(&self.before);
        let mut window = self.window(counted, &self.ended, aggregate, counters);
        window.hot = hot::look(&window.counted, &window.threads);
        for tid in &self.helpers {
            aggregate.mark(*tid, Membership::NONE);
        }
        Ok(window)
    }

    fn window(
        &self,
        mut counted: Snapshot,
        ended: &Sums,
        aggregate: &Aggregate,
        counters: Vec<counters::Value>,
    ) -> Window {
        // Launchers, clients and daemons are in the scope, but not of the sandbox.
        counted.threads.retain(|_, thread| self.is_counted(thread));
        let kept: BTreeSet<u32> = counted.threads.keys().copied().collect();
        counted.wakes.retain(|key, _| kept.contains(&key.slot.into()));
        counted.preemptions.retain(|key, _| kept.contains(&key.slot));
        counted.exits.retain(|_, exits| kept.contains(&exits.slot));
        let (at_ns, span_ns) = (counted.at_ns, counted.span_ns);
        counted.threads.values_mut().for_each(|thread| self.settle(thread, at_ns, span_ns));
        let processes: BTreeSet<u32> = counted.threads.values().map(|thread| thread.tgid).collect();
        let machines = Machines::among(processes.iter().copied());
        let mut threads = counted.threads.iter().map(|(&slot, thread)| (slot, self.who(thread, &machines))).collect();
        ended.add_to(&mut counted, &mut threads);
        let ksmd = self.ksmd.zip(Ksmd::read());
        let stolen = self.stolen_ns.zip(helpers::stolen_ns());
        Window {
            subject: self.subject.clone(),
            doubts: checks::doubts(&counted, &threads, checks::online_cpus()),
            hot: BTreeMap::new(),
            counted,
            threads,
            counters,
            idle_states: idle_states::between(&self.idle_states, idle_states::read()),
            ksmd_ns: ksmd.map(|(before, now)| now.share_since(before, &processes)),
            stolen_ns: stolen.map(|(before, now)| now.saturating_sub(before)),
            throttled_ns: self.throttling.since(),
            maps_bytes: aggregate.bytes(),
        }
    }

    /// Says what the state was in which a thread spent the last part of the window, where no event tells: nothing has happened to
    /// it since it was looked at, or the kernel has not told that it left its CPU.
    fn settle(&self, thread: &mut Thread, at_ns: u64, span_ns: u64) {
        let is_unseen = thread.state == State::Unseen as u32;
        let open_ns = if is_unseen { span_ns } else { at_ns.saturating_sub(thread.since_ns).min(span_ns) };
        if !is_unseen && (thread.state != State::Running as u32 || open_ns < untold::LONG_NS) {
            return;
        }
        let Some(run_time::Status { state, .. }) = run_time::status(thread.tgid, thread.tid) else { return };
        if !is_unseen && state == 'R' {
            return;
        }
        let before = self.run_ns.get(&thread.tid);
        let run_ns = before.and_then(|before| Some(run_time::run_ns(thread.tid)?.saturating_sub(*before)));
        let (on_cpu_ns, other_ns) = untold::settled(state, run_ns, open_ns);
        if !is_unseen {
            thread.on_cpu_ns -= open_ns.min(thread.on_cpu_ns);
        }
        thread.on_cpu_ns += on_cpu_ns;
        if state == 'R' {
            thread.runnable_ns += other_ns;
        } else {
            thread.blocked_ns += other_ns;
        }
    }

    fn is_counted(&self, thread: &Thread) -> bool {
        !Membership(thread.membership).is_bystander() || self.helpers.contains(&thread.tid)
    }

    fn who(&self, thread: &Thread, machines: &Machines) -> Who {
        let comm = match thread.comm[0] {
            // While it lives.
            0 => fs::read(format!("/proc/{}/comm", thread.tid)).unwrap_or_default(),
            _ => thread.comm.to_vec(),
        };
        let (comm, syscall) = (printable(&comm), syscall_of(thread.tid));
        if self.helpers.contains(&thread.tid) {
            return Who { comm, role: HELPER.to_owned(), vcpu: None, syscall, threads: 1 };
        }
        let known = machines.know(thread, &comm);
        let by_fact = known.map(|known| known.role);
        // What the kernel made is in no call of its own, though the one that its maker was in can be read.
        let syscall = syscall.filter(|_| by_fact != Some(HELPER));
        let by_name = self.role_by_name(&comm).or(by_fact);
        let role = by_name.or_else(|| process_role(self.subject.roles, thread.tgid));
        let role = role.map_or_else(|| comm.clone(), str::to_owned);
        Who { comm, role, vcpu: known.and_then(|known| known.vcpu), syscall, threads: 1 }
    }
}

impl Window {
    /// CPU time of the threads that `wanted` accepts.
    fn cpu_ns(&self, wanted: impl Fn(&Who) -> bool) -> u64 {
        let of = |slot: &u32| self.threads.get(slot).is_some_and(&wanted);
        self.counted.threads.iter().filter(|(slot, _)| of(slot)).map(|(_, thread)| thread.on_cpu_ns).sum()
    }
}

/// Everything counted so far of the threads of a scope.
fn counts(aggregate: &Aggregate, scope: u16) -> Result<Snapshot> {
    let mut counts = aggregate.snapshot(scope)?;
    untold::arrivals(&mut counts);
    Ok(counts)
}

/// Role of a process by what it executed, while it lives.
fn process_role(rules: &'static [RoleRule], pid: u32) -> Option<&'static str> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<_> = arguments.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    rule_of(rules, &path.to_string_lossy(), &arguments).map(|rule| rule.role)
}

/// Looks at a thread that runs each time, and the time between two.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

/// The system call that a thread is in; `None` when it runs, has ended or must not be looked at. One that runs is looked at again: who
/// wakes up often is asleep most of the time all the same.
fn syscall_of(tid: u32) -> Option<String> {
    let path = format!("/proc/{tid}/syscall");
    for _ in 0..LOOKS {
        let text = fs::read_to_string(&path).ok()?;
        // `running`, -1 outside of a call, or the number with its arguments.
        let word = text.split(' ').next()?.trim();
        if word != "running" {
            return word.parse().ok().filter(|number| *number >= 0).map(syscall_name);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    None
}

/// Text up to the first NUL or line end; what is no printable UTF-8 becomes the replacement character.
fn printable(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0 || byte == b'\n').unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).replace(char::is_control, "\u{fffd}")
}
