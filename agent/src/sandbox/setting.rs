//! Settings of the kernel that a run changes, and that are as they were before when it is over, however it ends.

use super::{
    journal::{Journal, Resource},
    undo::undo,
};
use crate::measure::memory::ksm;
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Settings that were changed. Dropping it restores them.
pub struct Settings {
    directory: PathBuf,
}

impl Settings {
    /// Changes settings, given as files and what to write to them. `directory` is one of the run's own, in which what they were is
    /// written down before.
    ///
    /// # Errors
    /// When one can't be read or changed; then those before it are restored.
    pub fn change(directory: &Path, settings: &[(PathBuf, String)]) -> Result<Self> {
        let mut journal = Journal::open(directory)?;
        let changed = Self { directory: directory.to_owned() };
        for (path, value) in settings {
            let before = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
            journal.record(&Resource::Setting { path: path.clone(), value: before.trim().to_owned() })?;
            fs::write(path, value).with_context(|| format!("could not write {value} to {}", path.display()))?;
        }
        Ok(changed)
    }

    /// Restores them.
    ///
    /// # Errors
    /// When one can't be; names it.
    pub fn restore(self) -> Result<()> {
        undo(&self.directory).into_iter().next().map_or(Ok(()), Err)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // Nothing is left to do after `restore`, which removes the directory.
        for failure in undo(&self.directory) {
            tracing::warn!("{failure:#}");
        }
    }
}

/// Writes a setting back. What is in the journal of a killed agent is not believed blindly: only KSM's are changed by any.
pub(super) fn restore(path: &Path, value: &str) -> Result<()> {
    let is_ours = path.parent() == Some(Path::new(ksm::FOLDER)) || cfg!(test);
    ensure!(is_ours, "{} is no setting that sandscope changes: left alone", path.display());
    fs::write(path, value).with_context(|| format!("could not write {value} back to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_restored_also_by_who_finds_the_journal_of_the_dead() {
        let home = tempfile::tempdir().unwrap();
        let setting = home.path().join("run");
        let value = || fs::read_to_string(&setting).unwrap();
        fs::write(&setting, "0\n").unwrap();
        let directory = home.path().join("instance");
        for is_killed in [false, true] {
            fs::create_dir(&directory).unwrap();
            let settings = Settings::change(&directory, &[(setting.clone(), "1".to_owned())]).unwrap();
            assert_eq!(value(), "1");
            if is_killed {
                std::mem::forget(settings);
                assert!(undo(&directory).is_empty());
            } else {
                settings.restore().unwrap();
            }
            assert_eq!(value(), "0");
            assert!(!directory.exists());
        }
    }

    #[test]
    fn nothing_stays_changed_when_one_setting_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let setting = home.path().join("run");
        fs::write(&setting, "0").unwrap();
        let directory = home.path().join("instance");
        fs::create_dir(&directory).unwrap();
        let both = [(setting.clone(), "1".to_owned()), (home.path().join("absent"), "1".to_owned())];
        assert!(Settings::change(&directory, &both).is_err());
        assert_eq!(fs::read_to_string(&setting).unwrap(), "0");
    }
}
