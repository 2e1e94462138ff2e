//! A file lock that its owner holds as long as it lives, whatever way it dies: how the living are told from the dead.

use anyhow::{Context as _, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    path::Path,
};

/// A lock that is held; dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of this file, which is made if need be; `None` when somebody holds it.
    ///
    /// # Errors
    /// When the file can't be opened or locked.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.with_context(|| format!("could not open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not lock {}", path.display())),
        }
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
