//! A file lock that its owner holds as long as it lives, whatever way it dies: how the living are told from the dead.

use anyhow::{Context as _, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, test_kill_process},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// How long a dead owner's lock may stay taken: a child that it was about to start has a copy until it notices.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// A lock that is held; dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of this file, which is made if need be and gets the owner's process number; `None` when somebody who
    /// lives holds it.
    ///
    /// # Errors
    /// When the file can't be opened, locked or written.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = file.with_context(|| format!("could not open {}", path.display()))?;
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if owner_lives(&file) || Instant::now() > deadline => return Ok(None),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error).with_context(|| format!("could not lock {}", path.display())),
            }
        }
        let sign = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        sign.with_context(|| format!("could not write {}", path.display()))?;
        Ok(Some(Self { _file: file }))
    }

    /// Takes the lock of this directory as soon as nobody holds it.
    ///
    /// # Errors
    /// When the directory can't be opened or locked.
    pub fn take(directory: &Path) -> Result<Self> {
        let file = File::open(directory).with_context(|| format!("could not open {}", directory.display()))?;
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("could not lock {}", directory.display()))?;
        Ok(Self { _file: file })
    }
}

/// Whether there is a process of the number in the file.
fn owner_lives(mut file: &File) -> bool {
    let mut number = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut number));
    let owner = read.ok().and_then(|_| Pid::from_raw(number.parse().ok()?));
    owner.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
