//! Virtual machines that run on this host: found by what their VMMs execute, what those were told, the machine of KVM that they have open,
//! or the socket at which they listen.

mod command_line;
mod kind;
mod machine;
mod socket;

pub use kind::Kind;

use super::{Found, process::Process};
use crate::{printable::printable, steady::Members};
use anyhow::{Result, bail};
use kind::{Sure, Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Machines that an error lists, and letters of each name.
const MOST_LISTED: usize = 20;
const MOST_LETTERS: usize = 80;

/// A virtual machine that runs.
struct Vm {
    /// The process that the others come from.
    main: i32,
    /// All processes that have it open, or are its VMM.
    pids: BTreeSet<i32>,
    sure: Sure,
    names: Vec<(Why, String)>,
    /// The paths of its sockets, each with the process that knows it by that.
    sockets: Vec<(i32, String)>,
}

impl Vm {
    /// Why this is the one that is looked for; `None` if it is not.
    fn answers_to(&self, wanted: &str, all: &BTreeMap<i32, Process>) -> Option<Why> {
        let is_number = wanted.parse().is_ok_and(|pid: i32| self.pids.contains(&pid));
        let number = is_number.then_some(Why::Given);
        let named = self.names.iter().filter(|(_, name)| name == wanted).map(|&(why, _)| why);
        let is_socket = |(pid, own): &(i32, String)| {
            all.get(pid).is_some_and(|process| socket::is_same(Path::new(wanted), process, own))
        };
        let is_path = wanted.contains('/') && self.sockets.iter().any(is_socket);
        number.into_iter().chain(named).chain(is_path.then_some(Why::Socket)).min()
    }

    /// Its number, and what it is called.
    fn shown(&self) -> String {
        let name = self.names.iter().min_by_key(|(why, _)| *why).map(|(_, name)| name);
        let short: Option<String> = name.map(|name| name.chars().take(MOST_LETTERS).collect());
        short.map_or_else(|| format!("pid:{}", self.main), |name| format!("pid:{} ({})", self.main, printable(&name)))
    }
}

/// The VM of this kind, or of any, that has this name, number or socket.
///
/// # Errors
/// When there is none, or more than one; says which there are.
pub fn find(target: String, kind: Option<Kind>, wanted: &str) -> Result<Found> {
    let all = Process::all();
    let vms = running(kind, &all);
    let answers: Vec<(Why, &Vm)> = vms.iter().filter_map(|vm| Some((vm.answers_to(wanted, &all)?, vm))).collect();
    // Those that match for the best reason; of these, what is surely a VMM before what only looks like one.
    let best = answers.iter().map(|(why, vm)| (*why, vm.sure)).min();
    let best: Vec<&Vm> = answers.iter().filter(|(why, vm)| Some((*why, vm.sure)) == best).map(|(_, vm)| *vm).collect();
    let program = kind.map_or("VMM", Kind::shown);
    match best[..] {
        [vm] => Ok(Found { name: target, members: Members { roots: vm.pids.clone(), groups: Vec::new() } }),
        [] => bail!("no {program} process has the name, the number or the socket {wanted:?}{}", others(program, &vms)),
        _ => bail!("{} {program} processes match {wanted:?}; attach to one of {}", best.len(), listed(&best)),
    }
}

/// What else there is, as the end of a sentence.
fn others(program: &str, vms: &[Vm]) -> String {
    let known: Vec<&Vm> = vms.iter().filter(|vm| vm.sure == Sure::Program).collect();
    match known.len() {
        0 => format!(", and no other {program} runs that this user may see"),
        _ => format!("; those that run are {}", listed(&known)),
    }
}

fn listed(vms: &[&Vm]) -> String {
    let shown: Vec<String> = vms.iter().take(MOST_LISTED).map(|vm| vm.shown()).collect();
    let more = vms.len().saturating_sub(MOST_LISTED);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// The machines whose VMM is, or may be, of this kind; of any that is known, or has a machine of KVM open, for `None`.
fn running(kind: Option<Kind>, all: &BTreeMap<i32, Process>) -> Vec<Vm> {
    let mut holders = BTreeMap::new();
    let mut known: BTreeMap<i32, Vec<(Kind, Sure)>> = BTreeMap::new();
    for process in all.values() {
        let open = machine::opened_by(process);
        let kinds = recognised(kind, process, !open.is_empty());
        if !open.is_empty() || !kinds.is_empty() {
            holders.insert(process.pid, open);
            known.insert(process.pid, kinds);
        }
    }
    let has_vm = |pid: &i32| holders.get(pid).is_some_and(|open| !open.is_empty());
    let vms = machine::grouped(&holders, all).into_iter().filter_map(|pids| {
        let main = machine::main(&pids, all)?;
        let kinds = pids.iter().flat_map(|pid| &known[pid]).map(|(_, sure)| *sure);
        // Any that has a machine open is some VMM.
        let by_vm = (kind.is_none() && pids.iter().any(has_vm)).then_some(Sure::Program);
        let sure = kinds.chain(by_vm).min()?;
        let (mut names, mut sockets) = (Vec::new(), Vec::new());
        for process in pids.iter().filter_map(|pid| all.get(pid)) {
            for (of, _) in &known[&process.pid] {
                names.extend(of.names(process));
                sockets.extend(of.socket(process).map(|path| (process.pid, path)));
            }
            sockets.extend(socket::listening(process).into_iter().map(|path| (process.pid, path)));
        }
        names.extend(sockets.iter().flat_map(|(_, path)| socket::names(path)));
        let main_process = all.get(&main).filter(|_| kind.is_none());
        let programs = main_process.into_iter().flat_map(|main| [main.program(), main.called()]).flatten();
        names.extend(programs.map(|name| (Why::Program, name.to_owned())));
        Some(Vm { main, pids, sure, names, sockets })
    });
    vms.collect()
}

/// The kinds of which a process is: of all, or of this one.
fn recognised(kind: Option<Kind>, process: &Process, has_vm: bool) -> Vec<(Kind, Sure)> {
    let is_asked = |of: &Kind| match kind {
        Some(kind) => kind == *of,
        // Would have the mappings of every process looked through.
        None => *of != Kind::Libkrun || has_vm,
    };
    let kinds = Kind::ALL.into_iter().filter(is_asked);
    kinds.filter_map(|of| Some((of, of.of(process, has_vm)?))).collect()
}

/// Every virtual machine of this host, each once: those of KVM, and those of QEMU without it.
pub fn all() -> Vec<Found> {
    let all = Process::all();
    let open = all.values().map(|process| (process.pid, machine::opened_by(process)));
    // By its file alone: a name that anybody can take makes no VM.
    let emulates = |pid: &i32| {
        let process = all.get(pid).map(|process| Process { arguments: Vec::new(), ..process.clone() });
        process.is_some_and(|process| Kind::Qemu.is_program(&process))
    };
    let holders: BTreeMap<i32, Vec<i32>> = open.filter(|(pid, open)| !open.is_empty() || emulates(pid)).collect();
    let vms = machine::grouped(&holders, &all).into_iter().filter_map(|pids| {
        let main = all.get(&machine::main(&pids, &all)?)?;
        let name = format!("{}:{}", main.comm, main.pid);
        Some(Found { name, members: Members { roots: pids, groups: Vec::new() } })
    });
    vms.collect()
}
