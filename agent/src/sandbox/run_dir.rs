//! The directory that holds all a run leaves on the host while it lives: `/run/sandscope/RUN/`.
//!
//! The agent holds a lock on `RUN/lock` for life. A run directory whose lock is free belongs to a dead agent, and [`clean`]
//! removes what it left, by the same code as an orderly stop. What a living agent owns is never touched.

use super::{lock::Lock, undo::undo};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::geteuid;
use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// File in a run directory whose lock the agent holds as long as it lives.
const RUN_LOCK: &str = "lock";

/// Where run directories are: `/run/sandscope`, or for somebody who is not root the directory for such things of that user.
pub fn default_base() -> PathBuf {
    if geteuid().is_root() {
        return "/run/sandscope".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => PathBuf::from(directory).join("sandscope"),
        None => std::env::temp_dir().join(format!("sandscope-{}", geteuid().as_raw())),
    }
}

/// The directory of the run of this process. Dropping it removes it, with all that the run left.
#[derive(Debug)]
pub struct RunDirectory {
    base: PathBuf,
    path: PathBuf,
    lock: Option<Lock>,
}

impl RunDirectory {
    /// Makes the directory of a run with this identifier.
    ///
    /// # Errors
    /// When the directories can't be made, when somebody else could write to them, or when there is such a run.
    pub fn create(base: &Path, run: &str) -> Result<Self> {
        ensure!(is_name(run), "`{run}` can't name a run: use letters, digits, `-` and `_`");
        let base = open_base(base)?;
        // Held while a run directory comes into being or goes, so that nobody takes one without its lock for a dead agent's.
        let _base_lock = Lock::take(&base)?;
        let path = base.join(run);
        make_directory(&path)?;
        let lock = Lock::try_take(&path.join(RUN_LOCK))?.context("the lock of a new run is taken")?;
        Ok(Self { base, path, lock: Some(lock) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory for the instance with this label.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn instance(&self, label: &str) -> Result<PathBuf> {
        ensure!(is_name(label) && label != RUN_LOCK, "`{label}` can't name an instance");
        let path = self.path.join(label);
        make_directory(&path)?;
        Ok(path)
    }

    /// Removes it with all that the run left. Harmless to call again.
    ///
    /// # Errors
    /// When something could not be removed; names it.
    pub fn remove(&mut self) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        let failures = remove_run(&self.base, &self.path);
        if !failures.is_empty() {
            bail!("{}", failures.join("\n"));
        }
        self.lock = None;
        Ok(())
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!("{error:#}");
        }
    }
}

/// What [`clean`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cleaned {
    /// Runs whose agent was dead and of which nothing is left.
    pub removed: Vec<String>,
    /// Runs whose agent lives; they were left alone.
    pub living: Vec<String>,
    /// What could not be removed, or not be recognised as sandscope's.
    pub failures: Vec<String>,
}

/// Removes what dead agents left in this directory and on the host.
///
/// # Errors
/// When the directory can't be read. What could not be removed of a run is not an error but in [`Cleaned::failures`].
pub fn clean(base: &Path) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    if !base.exists() {
        return Ok(cleaned);
    }
    let base = open_base(base)?;
    let entries = fs::read_dir(&base).with_context(|| format!("could not list {}", base.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match claim(&base, &path) {
            Ok(Claim::Owned(_lock)) => {
                let failures = remove_run(&base, &path);
                if failures.is_empty() {
                    cleaned.removed.push(name);
                }
                cleaned.failures.extend(failures);
            }
            Ok(Claim::Living) => cleaned.living.push(name),
            Ok(Claim::Gone) => (),
            Err(error) => cleaned.failures.push(format!("{error:#}")),
        }
    }
    Ok(cleaned)
}

enum Claim {
    Owned(Lock),
    Living,
    Gone,
}

/// Becomes the owner of a run directory whose owner is dead.
fn claim(base: &Path, path: &Path) -> Result<Claim> {
    let _base_lock = Lock::take(base)?;
    if !path.exists() {
        return Ok(Claim::Gone);
    }
    let lock = path.join(RUN_LOCK);
    if !lock.exists() {
        // Empty: its maker was killed before it made the lock. Otherwise sandscope did not make it.
        fs::remove_dir(path).with_context(|| format!("{} is no run of sandscope: left alone", path.display()))?;
        return Ok(Claim::Gone);
    }
    Ok(Lock::try_take(&lock)?.map_or(Claim::Living, Claim::Owned))
}

/// Removes a run directory that this process owns, with all that the run left; returns what could not be removed.
fn remove_run(base: &Path, path: &Path) -> Vec<String> {
    let instances = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()),
        Err(error) => return vec![format!("could not list {}: {error}", path.display())],
    };
    let failures: Vec<String> =
        instances.flat_map(|instance| undo(&instance)).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        return failures;
    }
    let remove = || -> Result<()> {
        let _base_lock = Lock::take(base)?;
        fs::remove_dir_all(path).with_context(|| format!("could not remove {}", path.display()))
    };
    remove().err().map(|error| format!("{error:#}")).into_iter().collect()
}

/// Makes the base directory unless it is there, and checks that nobody but its owner could have put something there.
fn open_base(base: &Path) -> Result<PathBuf> {
    if let Some(parent) = base.parent() {
        fs::create_dir_all(parent).with_context(|| format!("could not make {}", parent.display()))?;
    }
    match DirBuilder::new().mode(0o700).create(base) {
        Ok(()) => (),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => (),
        Err(error) => return Err(error).with_context(|| format!("could not make {}", base.display())),
    }
    // Links resolved, so that paths compare with those in /proc/self/mountinfo.
    let base = base.canonicalize().with_context(|| format!("could not resolve {}", base.display()))?;
    let metadata = base.metadata().with_context(|| format!("could not examine {}", base.display()))?;
    ensure!(
        metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0,
        "{} belongs to user {} with mode {:o}: only its owner may write to it, and that must be you; remove it",
        base.display(),
        metadata.uid(),
        metadata.mode() & 0o7777,
    );
    Ok(base)
}

fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("could not make {}", path.display()))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_left_alone_and_the_dead_removed() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        assert_eq!(clean(&base).unwrap(), Cleaned::default());

        let living = RunDirectory::create(&base, "living").unwrap();
        living.instance("a1").unwrap();
        fs::create_dir_all(base.join("dead/b1")).unwrap();
        fs::write(base.join("dead/lock"), "").unwrap();
        fs::create_dir(base.join("unborn")).unwrap();
        fs::create_dir_all(base.join("strange/thing")).unwrap();

        let cleaned = clean(&base).unwrap();
        assert_eq!(cleaned.removed, ["dead"]);
        assert_eq!(cleaned.living, ["living"]);
        assert_eq!(cleaned.failures.len(), 1, "{:?}", cleaned.failures);
        assert!(cleaned.failures[0].contains("strange"), "{:?}", cleaned.failures);
        assert!(base.join("strange/thing").exists());
        assert!(!base.join("unborn").exists());
        assert!(living.path().join("a1").exists());

        drop(living);
        assert!(!base.join("living").exists());
    }

    #[test]
    fn a_base_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = RunDirectory::create(directory.path(), "run").unwrap_err();
        assert!(error.to_string().contains("mode 777"), "{error}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", ".hidden"] {
            assert!(RunDirectory::create(directory.path(), name).is_err(), "{name}");
        }
    }
}
