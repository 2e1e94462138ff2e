//! The manifest: under which conditions a run was made, so that its figures can be judged and compared.
//!
//! What is not known is null, which means "not measured". Of files it keeps names and hashes, not where on the host
//! they are.

use super::{SCHEMA_VERSION, error::Error, host::Host, tables::Run};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Everything that is known about a run beside its rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// What is run, such as `cold-start`.
    pub experiment: String,
    /// When it started, nanoseconds since the Unix epoch.
    pub started_at_unix_ns: i64,
    /// The command line, see [`command_line`].
    pub command_line: Vec<String>,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Version of sandscope.
    pub sandscope_version: String,
    /// Version of the schema.
    pub schema_version: u32,
    /// The machine.
    pub host: Host,
    /// What each kind of sandbox says of itself: versions, platforms, hashes of binaries, by name.
    pub sandboxes: BTreeMap<String, BTreeMap<String, String>>,
    /// What runs inside the sandboxes.
    pub workloads: Vec<Artifact>,
    /// What could be probed.
    pub probes: Probes,
    /// What was controlled, and to which value.
    pub conditions: BTreeMap<String, String>,
}

/// A file that takes part in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// The name people use, such as `rust`.
    pub name: String,
    /// Name of the file, without its directories.
    pub file_name: String,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// Length of its content.
    pub size_bytes: u64,
}

/// What a run could probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Whether any probe could be used.
    pub available: bool,
    /// Probes that could not, and why.
    pub missing: BTreeMap<String, String>,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When it ended, nanoseconds since the Unix epoch; `None` while it goes on.
    pub finished_at_unix_ns: Option<i64>,
    /// Records of all probes that found no room.
    pub lost_events_count: u64,
    /// Instances that were started.
    pub instances_count: u32,
    /// Instances of these that failed.
    pub failed_count: u32,
}

impl Manifest {
    /// What is known at the start of a run on this host, at this moment, by this command line.
    pub fn new(experiment: &str, seed: u64) -> Self {
        Self {
            experiment: experiment.to_owned(),
            started_at_unix_ns: unix_ns(SystemTime::now()),
            command_line: command_line(std::env::args_os()),
            seed,
            sandscope_version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: SCHEMA_VERSION,
            host: Host::gather(Path::new("/")),
            sandboxes: BTreeMap::new(),
            workloads: Vec::new(),
            probes: Probes::default(),
            conditions: BTreeMap::new(),
        }
    }

    /// The row of the run.
    pub(super) fn row(&self, outcome: &Outcome) -> Run {
        let missing: Vec<_> = self.probes.missing.iter().map(|(probe, reason)| format!("{probe}: {reason}")).collect();
        Run {
            experiment: self.experiment.clone(),
            started_at_unix_ns: self.started_at_unix_ns,
            finished_at_unix_ns: outcome.finished_at_unix_ns,
            command_line: self.command_line.join(" "),
            seed: self.seed,
            sandscope_version: self.sandscope_version.clone(),
            schema_version: self.schema_version,
            host_name: self.host.name.clone(),
            kernel_release: self.host.kernel_release.clone(),
            architecture: self.host.architecture.clone(),
            cpu_model: self.host.cpu_model.clone(),
            cpus_count: self.host.cpus_count,
            memory_bytes: self.host.memory_bytes,
            probes_available: self.probes.available,
            probes_missing: (!missing.is_empty()).then(|| missing.join("; ")),
            lost_events_count: outcome.lost_events_count,
            instances_count: outcome.instances_count,
            failed_count: outcome.failed_count,
            manifest_json: serde_json::to_string(self)
                .expect("all keys are strings, and no value refuses to be written"),
        }
    }
}

impl Artifact {
    /// Reads a file to know its length and hash; of a folder, those of all files in it and their paths.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(name: &str, path: &Path) -> Result<Self, Error> {
        let mut content = Content { hash: Sha256::new(), size_bytes: 0 };
        if path.is_dir() {
            content.add_folder(path, Path::new(""))?;
        } else {
            content.add_file(path)?;
        }
        Ok(Self {
            name: name.to_owned(),
            file_name: file_name(path),
            sha256: content.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            size_bytes: content.size_bytes,
        })
    }
}

/// What was read so far.
struct Content {
    hash: Sha256,
    size_bytes: u64,
}

impl Content {
    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = file.read(&mut buffer).map_err(Error::file("read", path))?;
            if length == 0 {
                return Ok(());
            }
            self.hash.update(&buffer[..length]);
            self.size_bytes += length as u64;
        }
    }

    /// In the order of their names, each path with its length before its content, so that no two folders read the same.
    fn add_folder(&mut self, folder: &Path, inside: &Path) -> Result<(), Error> {
        let entries = fs::read_dir(folder).map_err(Error::file("list", folder))?;
        let mut entries: Vec<_> = entries.collect::<Result<_, _>>().map_err(Error::file("list", folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, inside) = (entry.path(), inside.join(entry.file_name()));
            let metadata = entry.metadata().map_err(Error::file("examine", &path))?;
            self.hash.update(inside.as_os_str().as_encoded_bytes());
            self.hash.update(metadata.len().to_le_bytes());
            if metadata.is_dir() {
                self.add_folder(&path, &inside)?;
            } else if metadata.is_symlink() {
                let link = fs::read_link(&path).map_err(Error::file("read", &path))?;
                self.hash.update(link.as_os_str().as_encoded_bytes());
            } else {
                self.add_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Arguments as they may be shown to others: of each absolute path, alone or after `=`, only the file name.
pub fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let shorten = |argument: OsString| {
        let argument = argument.to_string_lossy();
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (format!("{option}="), value),
            _ => (String::new(), argument.as_ref()),
        };
        let path = Path::new(value);
        option + &if path.is_absolute() { file_name(path) } else { value.to_owned() }
    };
    arguments.into_iter().map(shorten).collect()
}

/// Nanoseconds since the Unix epoch; it fits until the year 2262.
pub fn unix_ns(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Name of a file without its directories; `/` has only itself.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_keep_no_directories() {
        let arguments =
            ["/home/ada/bin/sandscope", "run", "--out=/home/ada/results/", "--image", "/srv/a b/c", "x/y", "/"];
        assert_eq!(
            command_line(arguments.map(OsString::from)),
            ["sandscope", "run", "--out=results", "--image", "c", "x/y", "/"]
        );
    }

    #[test]
    fn an_artifact_is_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let artifact = Artifact::read("letters", &path).unwrap();
        // The example of FIPS 180-2, appendix B.1.
        assert_eq!(artifact.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((artifact.file_name.as_str(), artifact.size_bytes), ("abc", 3));
        let missing = Artifact::read("letters", &directory.path().join("none")).unwrap_err().to_string();
        assert!(missing.starts_with("can't open ") && missing.contains("none"), "{missing}");
    }

    #[test]
    fn missing_probes_are_told_in_the_row() {
        let mut manifest = Manifest::new("cold-start", 7);
        assert_eq!(manifest.row(&Outcome::default()).probes_missing, None);
        manifest.probes.missing.insert("kvm".to_owned(), "no tracepoint".to_owned());
        manifest.probes.missing.insert("block".to_owned(), "no BTF".to_owned());
        let row = manifest.row(&Outcome::default());
        assert_eq!(row.probes_missing.as_deref(), Some("block: no BTF; kvm: no tracepoint"));
        let json: serde_json::Value = serde_json::from_str(&row.manifest_json).unwrap();
        assert_eq!(json["probes"]["missing"]["kvm"], "no tracepoint");
        assert_eq!(json["seed"], 7);
    }
}
