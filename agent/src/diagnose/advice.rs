//! Why time on a critical path is spent as it is, and what can be done about it: one mechanism per kind of element, and closer ones
//! where the system call and what it is about tell more.

use super::Share;
use crate::results::PathElement;

/// What is known of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Why it takes time.
    pub why: &'static str,
    /// What to do.
    pub next_step: &'static str,
}

/// Part of a share from which a mechanism is worth an advice of its own.
const LARGE: f64 = 0.25;

/// The advice on a share of the path of one category: on each mechanism that is a large part of it, whichever roles it is in, or on
/// the category where none is. The largest first.
pub fn of(share: &Share<'_>) -> Vec<Advice> {
    let mut sums: Vec<(Advice, f64)> = Vec::new();
    for part in &share.parts {
        let advice = on(&part.element);
        match sums.iter_mut().find(|(known, _)| *known == advice) {
            Some((_, sum_ns)) => *sum_ns += part.mean_ns,
            None => sums.push((advice, part.mean_ns)),
        }
    }
    sums.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let large = sums.into_iter().filter(|(_, sum_ns)| *sum_ns >= LARGE * share.mean_ns);
    let mut all: Vec<Advice> = large.map(|(advice, _)| advice).collect();
    if let (true, Some(part)) = (all.is_empty(), share.parts.first()) {
        all.push(on(&PathElement {
            role: None,
            syscall: None,
            object: None,
            detail: None,
            function: None,
            ..part.element.clone()
        }));
    }
    all
}

/// Sentences one after the other.
pub fn joined(advices: &[Advice], sentence: impl Fn(&Advice) -> &'static str) -> String {
    advices.iter().map(sentence).collect::<Vec<_>>().join(" ")
}

/// The advice on an element.
fn on(element: &PathElement) -> Advice {
    let (why, next_step) = match element.category.as_str() {
        "rcu" => on_grace_period(element),
        "runnable" => on_run_queue(element),
        "guest" => (
            "The guest's kernel or program runs.",
            "The console's lines and the phases tell how far it was; a smaller kernel, fewer drivers and no probing for devices \
             shorten it. `--timeline all` keeps each exit of it.",
        ),
        "exit" => ("The host handles exits of the guest.", "The table `exits` has their reasons, ports and addresses."),
        "kvm_run" => (
            "The guest runs, or KVM handles its exits: this host's KVM does not trace entries.",
            "A host with hardware virtualisation, or the lab VM (docs/lab.md), tells the two apart.",
        ),
        "user" => (
            "Its own instructions run.",
            "Profile that program: an optimised build, fewer packages that are initialised at its start, or keeping it running \
             and starting from that.",
        ),
        "fault" => (
            "It touches memory for the first time, and the kernel has to find, clear or copy a page each time.",
            "A smaller program, fewer pages that are written at its start, or huge pages for its heap.",
        ),
        "interrupt" => (
            "Interrupts of the host came while it ran.",
            "Move interrupts of busy devices to other CPUs (/proc/irq/N/smp_affinity).",
        ),
        "kernel" => on_call(element),
        "throttled" => (
            "Its cgroup has used up its CPU limit for the period.",
            "Raise the limit (--vcpus, cpu.max), at least for the start, or lower the number of threads that compete for it.",
        ),
        "block_io" => (
            "What it reads or writes has to come from, or go to, a disk.",
            "Keep the files in the page cache (--cache primed shows what that brings), make them smaller, or place them on a faster \
             device.",
        ),
        "lock" => (
            "Somebody else is at work in the same part of the kernel, under the lock that the named function takes.",
            "Start fewer at the same time, or give each less to do there: fewer mounts and namespaces, or some that are made ahead \
             and used again. The column `stack` of the table `attribution` has the whole call path.",
        ),
        "workqueue" => (
            "The kernel has left work to one of its workers, and waits until that is done.",
            "The named function tells which: taking down namespaces, cgroups and mounts is usual, and less of it takes less time.",
        ),
        "journal" => (
            "The file system's journal has to be written to the disk first.",
            "Fewer fsync() and renames at the start, or the files in a tmpfs.",
        ),
        "timer" => (
            "It sleeps for a fixed time, and who waits for it waits as long.",
            "Find who sets the timer: a poll with an interval, a retry with a back-off, or a language runtime that looks for work \
             only now and then (the Go runtime each 10 ms). An event in place of the poll removes the wait.",
        ),
        "network" => (
            "A packet of which nobody in the sandbox was seen to be the sender.",
            "Look at the table `requests` for retries, and at what answers on the other side.",
        ),
        "device" => ("A device or a part of the kernel without a thread ended its wait.", "The detail names it."),
        "outside" => (
            "Somebody outside of the sandbox has to do something first.",
            "The detail names who: what it does meanwhile is not recorded. A process can be seen with `sandscope attach pid:…`.",
        ),
        _ => (
            "Nothing tells what this time was spent on.",
            "See in the table `attribution` in which phases it is; lost records are the usual reason.",
        ),
    };
    Advice { why, next_step }
}

/// Waits for RCU grace periods. Who waits in which call: the kernel's source, and the measurements in docs/causes.md.
fn on_grace_period(element: &PathElement) -> (&'static str, &'static str) {
    let object = element.object.as_deref().unwrap_or_default();
    let is_move = object.ends_with("cgroup.procs") || object.ends_with("/tasks") || object.ends_with("cgroup.threads");
    match element.syscall.as_deref() {
        Some("write") if is_move => (
            "Moving a process into a cgroup takes a lock whose writer waits until every CPU has left its read section (an RCU grace \
             period).",
            "Mount cgroups with `favordynmods` (Linux 6.0 or later), or create the process inside its cgroup (clone3 with \
             CLONE_INTO_CGROUP, as newer runtimes do).",
        ),
        Some("membarrier") => (
            "A program registers for membarrier(), which waits for an RCU grace period once per process that has threads.",
            "A version of the program that registers only where it needs to (gVisor after 2024 does), or fewer executions of it per \
             start.",
        ),
        Some("dup" | "dup2" | "dup3" | "fcntl" | "open" | "openat" | "socket" | "accept4" | "pipe2" | "eventfd2") => (
            "The table of open files grows while several threads share it: the old one is freed after an RCU grace period.",
            "Let the program open and duplicate to low descriptor numbers, or do so before it has threads.",
        ),
        Some(
            "umount2" | "mount" | "pivot_root" | "move_mount" | "unshare" | "setns" | "clone" | "clone3" | "exit_group",
        ) => (
            "Mounts and namespaces are taken down only after an RCU grace period.",
            "Fewer mounts in the mount namespace that is copied, or namespaces that are made ahead and used again.",
        ),
        _ => (
            "The kernel waits until every CPU has passed through a quiescent state (an RCU grace period), some 5 to 20 ms.",
            "`echo 1 > /sys/kernel/rcu_expedited` shows what the start would take without it; it is no setting for production.",
        ),
    }
}

fn on_run_queue(element: &PathElement) -> (&'static str, &'static str) {
    match element.detail.as_deref() {
        Some("idle CPU") => (
            "The CPU was idle: what takes time is to wake it.",
            "Shallower idle states (cpupower idle-set, or the `haltpoll` governor in a VM).",
        ),
        detail if detail.is_some() && detail == element.role.as_deref() => (
            "Its own threads compete for the CPUs.",
            "More CPUs (--cpus, --vcpus), or fewer threads of its own (GOMAXPROCS for programs in Go).",
        ),
        _ => (
            "It could run, and somebody else had the CPU.",
            "Look for other load on the host (top), or give the sandbox CPUs of its own (--cpus).",
        ),
    }
}

fn on_call(element: &PathElement) -> (&'static str, &'static str) {
    match element.syscall.as_deref() {
        Some("execve" | "execveat") => (
            "The kernel loads a program and takes down the memory of the one before.",
            "Fewer programs in a row, smaller ones, and a parent with little memory.",
        ),
        Some("clone" | "clone3" | "fork" | "vfork") => (
            "The kernel copies the page tables of the parent, or makes namespaces.",
            "A parent with little memory (or vfork), and namespaces that are made ahead.",
        ),
        Some("mmap" | "munmap" | "mprotect" | "madvise" | "brk") => (
            "The kernel maps, unmaps or protects memory.",
            "Fewer and larger mappings, and no return of memory that is used again at once.",
        ),
        Some("mount" | "umount2" | "pivot_root" | "unshare" | "setns") => (
            "The kernel makes or takes down mounts and namespaces.",
            "Fewer mounts in the namespace that is copied, or namespaces that are made ahead.",
        ),
        Some("ioctl(KVM_CREATE_VM)" | "ioctl(KVM_CREATE_VCPU)" | "ioctl") => (
            "KVM or another driver works for the VMM.",
            "A smaller machine (memory, vCPUs, devices), or one that is restored from a snapshot.",
        ),
        _ => ("The kernel works in system calls.", "The table `syscalls` has their counts and times by role."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_an_advice_of_its_own() {
        let element = |category: &str| PathElement {
            category: category.to_owned(),
            role: Some("runtime".to_owned()),
            syscall: None,
            object: None,
            detail: None,
            function: None,
        };
        let all: Vec<_> = crate::correlate::Category::ALL.iter().map(|(_, name)| on(&element(name))).collect();
        for (number, advice) in all.iter().enumerate() {
            assert!(advice.why.ends_with('.') && advice.next_step.ends_with('.'), "{advice:?}");
            assert!(all[..number].iter().all(|other| other.why != advice.why), "{advice:?} is there twice");
        }
    }

    #[test]
    fn the_call_and_its_object_decide_which_grace_period_it_is() {
        let rcu = |syscall: &str, object: Option<&str>| {
            on(&PathElement {
                category: "rcu".to_owned(),
                role: None,
                syscall: Some(syscall.to_owned()),
                object: object.map(str::to_owned),
                detail: None,
                function: None,
            })
        };
        assert!(rcu("write", Some("…/cgroup.procs")).next_step.contains("favordynmods"));
        assert!(!rcu("write", Some("…/data")).next_step.contains("favordynmods"));
        assert!(rcu("membarrier", None).why.contains("membarrier"));
        assert!(rcu("dup3", None).why.contains("open files"));
    }
}
