//! A thread of a process that still has its memory.
//!
//! The first thread of a process may end before the others (`pthread_exit` in `main`). The process then looks like one that has
//! ended: its state is that of a zombie, and what is under its number has no memory, no files and no program any more. Its other
//! threads run, and have all of it. Everything under `/proc/NUMBER` is there for the number of any thread.

use procfs::process::Process;

/// A thread of this process that has not ended: the first one, if it lives. `None` when all have ended.
pub fn thread_of(pid: i32) -> Option<i32> {
    let process = Process::new(pid).ok()?;
    if process.stat().is_ok_and(|stat| lives(stat.state)) {
        return Some(pid);
    }
    let threads = process.tasks().ok()?.flatten();
    threads.filter(|thread| thread.stat().is_ok_and(|stat| lives(stat.state))).map(|thread| thread.tid).next()
}

/// Whether a thread in this state has not ended.
pub fn lives(state: char) -> bool {
    !matches!(state, 'Z' | 'X')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn who_lives_is_known_by_its_own_number_and_who_has_ended_by_none() {
        let own = std::process::id().cast_signed();
        assert_eq!(thread_of(own), Some(own));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // A zombie until it is waited for.
        while thread_of(pid).is_some() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert_eq!(thread_of(pid), None, "and after");
    }
}
