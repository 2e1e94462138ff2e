//! What busy threads do: the system calls and functions in which they are found while they have a CPU, right after the window.

use super::Who;
use crate::{
    correlate::Names,
    measure::on_cpu::{self, Look},
    probe::Snapshot,
    symbols::Symbols,
};
use procfs::process::{MMapPath, MemoryMap, Process};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

/// Part of a CPU from which on a thread is looked at.
const LEAST: f64 = 0.05;
/// Threads that are looked at.
const MOST: usize = 8;
/// For how long.
const TIME: Duration = Duration::from_millis(100);
/// Parts that are told.
const PARTS: usize = 3;
/// Part of the looks below which a part is not told.
const SHOWN: f64 = 0.05;
/// Letters of the longest name that is shown.
const LONGEST: usize = 120;
/// How kernels call the function behind a system call.
const CALLS: [&str; 5] = ["__x64_sys_", "__arm64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_"];

/// Looks at one thread.
#[derive(Debug, Default)]
pub(super) struct Hot {
    /// In the kernel, each a stack with the innermost function first; empty: it was in its own code, and `own` says where.
    looks: Vec<(Vec<u64>, Option<String>)>,
}

/// Looks at the threads that have used most of a CPU, by their slots.
pub(super) fn look(counted: &Snapshot, who: &BTreeMap<u32, Who>) -> BTreeMap<u32, Hot> {
    let least_ns = (counted.span_ns as f64 * LEAST) as u64;
    let single = counted.threads.iter().filter(|(slot, _)| who.get(slot).is_some_and(|who| who.threads == 1));
    // A vCPU is in its guest, which its exits tell of.
    let mut busy: Vec<_> =
        single.filter(|(_, thread)| thread.vcpu == 0 && thread.on_cpu_ns >= least_ns.max(1)).collect();
    busy.sort_by_key(|(_, thread)| std::cmp::Reverse(thread.on_cpu_ns));
    busy.truncate(MOST);
    let tids: Vec<u32> = busy.iter().map(|(_, thread)| thread.tid).collect();
    let mut looks = on_cpu::looks(&tids, TIME);
    let mut programs: HashMap<u32, Option<Program>> = HashMap::new();
    let mut hot = BTreeMap::new();
    for (&slot, thread) in busy {
        let looks = looks.remove(&thread.tid).unwrap_or_default();
        let program = programs.entry(thread.tgid).or_insert_with(|| Program::of(thread.tgid));
        let own = |look: &Look| {
            let address = look.user.first().filter(|_| look.kernel.is_empty())?;
            Some(program.as_ref().map_or_else(|| "own code".to_owned(), |program| program.function(*address)))
        };
        hot.insert(
            slot,
            Hot {
                looks: looks
                    .into_iter()
                    .map(|look| (own(&look), look.kernel))
                    .map(|(own, kernel)| (kernel, own))
                    .collect(),
            },
        );
    }
    hot
}

impl Hot {
    /// Addresses of the kernel whose names are needed.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.looks.iter().flat_map(|(kernel, _)| kernel.iter().copied())
    }

    /// Where it was found most often, such as `epoll_wait 92 %, main 8 %`; nothing without looks.
    pub(super) fn told(&self, names: &Names) -> Option<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (kernel, own) in &self.looks {
            let name = match own {
                Some(own) => own.clone(),
                None => call_of(&names.functions(kernel)),
            };
            *counts.entry(name).or_default() += 1;
        }
        let total = self.looks.len();
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let share = |count: usize| count as f64 / total as f64;
        let shown = counts.into_iter().filter(|(_, count)| share(*count) >= SHOWN).take(PARTS);
        let parts: Vec<_> = shown.map(|(name, count)| format!("{name} {:.0} %", share(count) * 100.0)).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The system call that a stack of the kernel belongs to; of another one, such as an interrupt's, the outermost function.
fn call_of(functions: &[&str]) -> String {
    let call =
        functions.iter().rev().find_map(|function| CALLS.iter().find_map(|prefix| function.strip_prefix(prefix)));
    call.or(functions.first().copied()).map_or_else(|| "kernel".to_owned(), str::to_owned)
}

/// A program that runs, and where it is loaded.
struct Program {
    symbols: Symbols,
    /// Its addresses are by this much larger than those in its file.
    moved: u64,
    /// What is mapped where: its own file, and the names of others.
    mapped: Vec<((u64, u64), Mapped)>,
}

enum Mapped {
    Itself,
    Other(String),
}

impl Program {
    fn of(pid: u32) -> Option<Self> {
        let process = Process::new(pid.cast_signed()).ok()?;
        let (path, maps) = (process.exe().ok()?, process.maps().ok()?);
        let is_own = |map: &MemoryMap| matches!(&map.pathname, MMapPath::Path(of) if *of == path);
        let start = maps.iter().find(|map| is_own(map) && map.offset == 0)?.address.0;
        let (symbols, moved) = Symbols::loaded_at(Path::new(&format!("/proc/{pid}/exe")), start).unwrap_or_default();
        let named = maps.iter().map(|map| {
            let what = match &map.pathname {
                _ if is_own(map) => Mapped::Itself,
                MMapPath::Path(path) => Mapped::Other(file_name(path)),
                MMapPath::Vdso => Mapped::Other("vdso".to_owned()),
                _ => Mapped::Other("code without a file".to_owned()),
            };
            (map.address, what)
        });
        Some(Self { symbols, moved, mapped: named.collect() })
    }

    /// The function at an address, or the file that it is in, in brackets.
    fn function(&self, address: u64) -> String {
        let at = self.mapped.iter().find(|((start, end), _)| (*start..*end).contains(&address));
        match at.map(|(_, what)| what) {
            Some(Mapped::Itself) => {
                let function = self.symbols.function(address.wrapping_sub(self.moved));
                function.map_or_else(|| "own code".to_owned(), shown)
            }
            Some(Mapped::Other(name)) => format!("[{name}]"),
            None => "own code".to_owned(),
        }
    }
}

fn file_name(path: &Path) -> String {
    shown(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// A name that somebody else gave, so that it can't steer a terminal or fill a screen.
fn shown(name: &str) -> String {
    name.chars().take(LONGEST).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_the_outermost_that_is_one() {
        let stack = ["do_epoll_wait", "__x64_sys_epoll_wait", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"];
        assert_eq!(call_of(&stack), "epoll_wait");
        assert_eq!(call_of(&["clear_page", "__arm64_sys_read", "invoke_syscall"]), "read");
        assert_eq!(call_of(&["clear_page", "handle_mm_fault", "exc_page_fault"]), "clear_page");
        assert_eq!(call_of(&[]), "kernel");
    }

    #[test]
    fn the_shares_are_of_all_looks_and_rare_places_are_left_out() {
        let names = Names::of_running_kernel();
        let mut looks = vec![(Vec::new(), Some("spin".to_owned())); 97];
        looks.extend(vec![(Vec::new(), Some("other".to_owned())); 3]);
        assert_eq!(Hot { looks }.told(&names).as_deref(), Some("spin 97 %"));
        assert_eq!(Hot::default().told(&names), None);
    }
}
