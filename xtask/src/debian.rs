//! Takes files out of packages of Debian suites that this machine does not follow, without installing anything.
//!
//! apt does the work, and verifies what it downloads as always, but with a state of its own below `target/debian`: the machine's
//! lists, sources and packages stay as they are. The archive and the proxies are those that the machine's own configuration
//! names; only the suites are added. What was unpacked once stays, so that only the first time needs a network.

use crate::root::target;
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use xshell::{Cmd, Shell, cmd};

/// Signs all suites of Debian; part of every Debian system (package `debian-archive-keyring`).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists that are older are downloaded again before a package is looked up: a newer one may have replaced it.
const LISTS_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Unpacks a package of a suite, unless that was done before, and returns the folder with its content.
///
/// `version` may contain `*`, as in `1.95.0*`; `None` takes the newest. Several programs may do this at once.
///
/// # Errors
/// When the suite has no such package, or it can't be downloaded.
pub fn unpacked(shell: &Shell, suite: &str, package: &str, version: Option<&str>) -> Result<PathBuf> {
    Suite::open(suite)?.unpacked(shell, package, version)
}

/// A suite of Debian, such as `trixie-backports`, with a lock on our copy of it.
pub struct Suite {
    name: String,
    directory: PathBuf,
    /// Held until the end: two apt on one state would fail.
    _lock: File,
}

impl Suite {
    /// Prepares the state for a suite; waits while another program uses it.
    ///
    /// # Errors
    /// When the folder can't be made or locked.
    pub fn open(name: &str) -> Result<Self> {
        let directory = target().join("debian").join(name);
        for folder in ["state/lists/partial", "cache/archives/partial", "archives", "unpacked"] {
            let folder = directory.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        let lock = directory.join("lock");
        let file = File::create(&lock).with_context(|| format!("can't open {}", lock.display()))?;
        file.lock().with_context(|| format!("can't lock {}", lock.display()))?;
        Ok(Self { name: name.to_owned(), directory, _lock: file })
    }

    /// The package of the highest version number among those whose name matches a regular expression.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest(&self, shell: &Shell, pattern: &str) -> Result<String> {
        self.update(shell)?;
        let options = self.options();
        let names = cmd!(shell, "apt-cache {options...} search --names-only {pattern}").quiet().read()?;
        names
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .max_by_key(|name| numbers(name))
            .map(str::to_owned)
            .with_context(|| format!("{} has no package like {pattern}", self.name))
    }

    /// The packages that a package depends on, by name.
    ///
    /// # Errors
    /// When the suite has no such package.
    pub fn dependencies(&self, shell: &Shell, package: &str) -> Result<Vec<String>> {
        self.update(shell)?;
        let options = self.options();
        let text = cmd!(shell, "apt-cache {options...} depends --important {package}").quiet().read()?;
        let names = text.lines().filter_map(|line| line.trim_start_matches([' ', '|']).strip_prefix("Depends: "));
        Ok(names.map(|name| name.trim_matches(['<', '>']).to_owned()).collect())
    }

    /// As [`unpacked`].
    ///
    /// # Errors
    /// As [`unpacked`].
    pub fn unpacked(&self, shell: &Shell, package: &str, version: Option<&str>) -> Result<PathBuf> {
        let wanted = match version {
            Some(version) => format!("{package}={version}"),
            None => package.to_owned(),
        };
        let folder = self.directory.join("unpacked").join(wanted.replace('*', ""));
        if folder.is_dir() {
            return Ok(folder);
        }
        let archive = self.download(shell, &wanted)?;
        let partial = folder.with_added_extension("partial");
        shell.remove_path(&partial)?;
        cmd!(shell, "dpkg -x {archive} {partial}").quiet().run()?;
        // Only a complete folder gets the name that the next call looks for.
        fs::rename(&partial, &folder).with_context(|| format!("can't name {}", folder.display()))?;
        shell.remove_path(&archive)?;
        Ok(folder)
    }

    /// Downloads a package and returns its archive.
    fn download(&self, shell: &Shell, wanted: &str) -> Result<PathBuf> {
        self.update(shell)?;
        let archives = self.directory.join("archives");
        // Whatever is there was left by a download that was interrupted.
        shell.remove_path(&archives)?;
        let _directory = shell.push_dir(shell.create_dir(&archives)?);
        let options = self.options();
        cmd!(shell, "apt-get {options...} --quiet=2 download {wanted}")
            .quiet()
            .run()
            .with_context(|| format!("can't download {wanted} of {}", self.name))?;
        let mut found = shell.read_dir(&archives)?;
        found.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        match <[PathBuf; 1]>::try_from(found) {
            Ok([archive]) => Ok(archive),
            Err(found) => bail!("{wanted} of {} is {} packages", self.name, found.len()),
        }
    }

    /// Downloads the list of packages if ours is old.
    fn update(&self, shell: &Shell) -> Result<()> {
        let stamp = self.directory.join("updated");
        let is_fresh = stamp
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < LISTS_AGE));
        if is_fresh {
            return Ok(());
        }
        let archive = archive(shell)?;
        let source = format!("deb [signed-by={KEYRING}] {archive} {} main\n", self.name);
        shell.write_file(self.directory.join("sources.list"), source)?;
        shell.write_file(self.directory.join("state/status"), "")?;
        let options = self.options();
        let updated = cmd!(shell, "apt-get {options...} --quiet=2 update").quiet().run();
        match updated {
            Ok(()) => shell.write_file(&stamp, "")?,
            // Without a network the lists of yesterday are good enough.
            Err(error) if stamp.is_file() => {
                eprintln!("the package lists of {} can't be refreshed ({error}); those of before are used", self.name);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't download the package lists of {}", self.name));
            }
        }
        Ok(())
    }

    /// Makes apt use our state and nothing of the machine's but its settings.
    fn options(&self) -> Vec<String> {
        let path = |below: &str| self.directory.join(below).display().to_string();
        let none = || "/dev/null".to_owned();
        [
            ("Dir::State", path("state")),
            ("Dir::State::status", path("state/status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", none()),
            ("Dir::Etc::preferences", none()),
            ("Dir::Etc::preferencesparts", none()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::GzipIndexes", "true".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            // The user `_apt` may not see the folder of the build.
            ("APT::Sandbox::User", "root".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
        .collect()
    }
}

/// The archive from which this machine takes its own Debian packages.
fn archive(shell: &Shell) -> Result<String> {
    ensure!(Path::new(KEYRING).is_file(), "there is no {KEYRING}: packages are taken from Debian, on a Debian system");
    let release = shell.read_file("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release has no VERSION_CODENAME")?;
    let fields = "$(RELEASE) $(COMPONENT) $(REPO_URI)";
    let targets: Cmd<'_> = cmd!(shell, "apt-get indextargets --format {fields}").quiet();
    let targets = targets.read()?;
    let wanted = format!("{} main ", codename.trim_matches('"'));
    let archive = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    Ok(archive.context("the machine's own apt sources do not name Debian's archive")?.to_owned())
}

/// The numbers in a name, to order `6.9.1` before `6.10.0`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(numbers("linux-image-6.10.2+deb13") > numbers("linux-image-6.9.12+deb13"));
        assert!(numbers("linux-image-6.1.0-9-cloud-amd64") < numbers("linux-image-6.1.0-37-cloud-amd64"));
    }
}
