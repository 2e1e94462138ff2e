//! The kernel's own count of the CPU time of a thread, and what state it is in: what the probes say is held against it, and it stands
//! for threads to which nothing has happened that a probe could see.

use std::fs;

/// CPU time of a thread in nanoseconds, as of its last tick; `None` when it has ended, or the kernel does not count.
pub fn run_ns(tid: u32) -> Option<u64> {
    // `/proc/TID` is found for any thread, and is that thread's own: the sum of its process is not made for this file.
    let text = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The letter for what a thread does, such as `R` or `S`; `None` when it has ended. By the file of the thread: that of the process
/// sums up over all its threads, which takes as long as there are many.
pub fn state(pid: u32, tid: u32) -> Option<char> {
    let text = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // After the name, which may hold anything, also parentheses.
    let after = text.iter().rposition(|&byte| byte == b')')? + 2;
    text.get(after).map(|&letter| char::from(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_runs_is_seen_to() {
        let (pid, tid) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        assert_eq!(state(pid, tid), Some('R'));
        let Some(before) = run_ns(tid) else { return };
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(run_ns(tid).unwrap() > before);
        assert_eq!((state(pid, u32::MAX), run_ns(u32::MAX)), (None, None));
    }
}
