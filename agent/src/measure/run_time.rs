//! The kernel's own count of the CPU time of a thread, what state it is in and what it was made for: what the probes say is held against
//! it, and it stands for threads to which nothing has happened that a probe could see.

use std::fs;

/// The flag of threads that the kernel made for itself (`PF_KTHREAD`). Anybody may have their names, but not this.
pub const OF_KERNEL: u64 = 0x0020_0000;

/// What the kernel says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The letter for what it does, such as `R` or `S`.
    pub state: char,
    /// What it was made for, and what it is in the middle of: `PF_*`.
    pub flags: u64,
}

/// CPU time of a thread in nanoseconds, as of its last tick; `None` when it has ended, or the kernel does not count.
pub fn run_ns(tid: u32) -> Option<u64> {
    // `/proc/TID` is found for any thread, and is that thread's own: the sum of its process is not made for this file.
    let text = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// What the kernel says of a thread; `None` when it has ended. By the file of the thread: that of the process sums up over all its
/// threads, which takes as long as there are many. And not by `procfs`, which takes no name that is not UTF-8.
pub fn status(pid: u32, tid: u32) -> Option<Status> {
    parse(&fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
}

fn parse(stat: &[u8]) -> Option<Status> {
    // After the name, which may hold anything, also parentheses: state, parent, group, session, terminal, its group, flags.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut words = std::str::from_utf8(stat.get(after..)?).ok()?.split_ascii_whitespace();
    Some(Status { state: words.next()?.chars().next()?, flags: words.nth(5)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_runs_is_seen_to() {
        let (pid, tid) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        assert_eq!(status(pid, tid).map(|status| status.state), Some('R'));
        let Some(before) = run_ns(tid) else { return };
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(run_ns(tid).unwrap() > before);
        assert_eq!((status(pid, u32::MAX), run_ns(u32::MAX)), (None, None));
    }

    #[test]
    fn state_and_flags_are_read_whatever_the_name_is() {
        let is = |stat: &[u8], state, flags| assert_eq!(parse(stat), Some(Status { state, flags }));
        is(b"12 (a b) R 1 (c) S 1 12 12 0 -1 16384 0 0", 'S', 16384);
        is(b"12 (vhost-9) S 1 12 12 0 -1 4194624 0 0", 'S', 4_194_624);
        is(b"12 (\xff\xfe) D 1 12 12 0 -1 0 0 0", 'D', 0);
        assert_eq!(parse(b"12 (x"), None);
        assert_eq!(parse(b"12 (x) "), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn threads_of_the_kernel_have_its_flag() {
        assert!(status(2, 2).is_some_and(|status| status.flags & OF_KERNEL != 0), "kthreadd");
        let own = std::process::id();
        assert!(status(own, own).is_some_and(|status| status.flags & OF_KERNEL == 0));
    }
}
