//! Who sent the packet that ended a wait.
//!
//! On loopback, a pair of devices and a tap device the sender's own system call carries a packet all the way to the receiver's socket,
//! in a softirq that runs in its context. So the sender is the thread that was running then. Where the softirq was put off (to
//! `ksoftirqd`, to another CPU), it is the thread that was in a sending call, or had just been.

use crate::correlate::{
    history::{Call, History},
    names::Called,
};
use foldhash::HashSet;
use syscalls::Sysno;

/// A packet that nobody sent for so long comes from outside.
const LONGEST_NS: u64 = 10_000_000;
/// Calls that are looked at for one packet.
const MOST: usize = 64;

/// System calls that can send something into a network. Reading can, too: it acknowledges, and opens the window again.
const SENDING: [&str; 16] = [
    "sendto",
    "sendmsg",
    "sendmmsg",
    "connect",
    "shutdown",
    "write",
    "writev",
    "sendfile",
    "splice",
    "close",
    "exit_group",
    "recvfrom",
    "recvmsg",
    "read",
    "readv",
    "accept4",
];
/// Those that are taken for the sender's without having been seen at it.
const SURELY: usize = 5;

/// Sending calls of all tasks.
pub(super) struct Packets {
    sending: HashSet<i32>,
    /// Beginning, end and task of calls that surely send; in order of their beginnings.
    calls: Vec<(u64, u64, usize)>,
}

impl Packets {
    pub(super) fn of(tasks: &[History]) -> Self {
        let number = |name: &&str| name.parse::<Sysno>().ok().map(|call| call.id());
        let sending: HashSet<i32> = SENDING.iter().filter_map(number).collect();
        let surely: HashSet<i32> = SENDING[..SURELY].iter().filter_map(number).collect();
        let is_sure = |call: &&Call| surely.contains(&call.called.number);
        let of_task = |(task, history): (usize, &History)| {
            history.calls.iter().filter(is_sure).map(move |call| (call.start_ns, call.end_ns, task)).collect::<Vec<_>>()
        };
        let mut calls: Vec<_> = tasks.iter().enumerate().flat_map(of_task).collect();
        calls.sort_unstable();
        Self { sending, calls }
    }

    /// Who else was the last to send something before an instant, and when.
    pub(super) fn last_sent(&self, task: usize, at_ns: u64) -> Option<(usize, u64)> {
        let after = self.calls.partition_point(|&(start_ns, ..)| start_ns < at_ns);
        let recent = self.calls[..after].iter().rev().take(MOST).filter(|&&(.., sender)| sender != task);
        recent.map(|&(_, end_ns, sender)| (sender, end_ns.min(at_ns))).max_by_key(|&(_, sent_ns)| sent_ns)
    }

    fn sends(&self, called: Called) -> bool {
        self.sending.contains(&called.number)
    }

    /// Who sent the packet that woke `receiver` at an instant, and when it left: the running task, if it was in a call that can send.
    pub(super) fn sender(
        &self,
        tasks: &[History],
        receiver: usize,
        running: Option<usize>,
        at_ns: u64,
    ) -> Option<(usize, u64)> {
        let in_call = |&task: &usize| tasks[task].call_at(at_ns).is_some_and(|call| self.sends(call.called));
        if let Some(task) = running.filter(|&task| task != receiver).filter(in_call) {
            return Some((task, at_ns));
        }
        let after = self.calls.partition_point(|&(start_ns, ..)| start_ns <= at_ns);
        let recent = self.calls[..after].iter().rev().take(MOST);
        let recent = recent.filter(|&&(_, end_ns, task)| task != receiver && end_ns + LONGEST_NS > at_ns);
        recent.map(|&(_, end_ns, task)| (task, end_ns.min(at_ns))).max_by_key(|&(_, sent_ns)| sent_ns)
    }
}
