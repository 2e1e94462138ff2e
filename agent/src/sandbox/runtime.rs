//! Finds the program of a runtime, and says what it is.

use super::{
    Support,
    child::{SEARCH_PATH, run},
};
use anyhow::{Context as _, Result};
use rustix::thread::{CapabilitySet, capabilities};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a program may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a file that are read at once: large enough that the hash, not the reading, takes the time.
const READ_BYTES: usize = 256 * 1024;

/// A program that runs sandboxes.
#[derive(Debug)]
pub struct Runtime {
    /// Where it is.
    pub path: PathBuf,
}

impl Runtime {
    /// The program of this name in [`SEARCH_PATH`].
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Self> {
        let mut paths = SEARCH_PATH.split(':').map(|directory| Path::new(directory).join(name));
        let path = paths.find(|path| path.is_file());
        Ok(Self { path: path.with_context(|| format!("there is no {name} in {SEARCH_PATH}"))? })
    }

    /// First line of what it says to `--version`.
    ///
    /// # Errors
    /// When it can't be started, fails, or says nothing.
    pub fn version(&self) -> Result<String> {
        let output = run(&self.path, Path::new("/"), &["--version".as_ref()], VERSION_LIMIT)?;
        let line =
            output.lines().next().with_context(|| format!("{} says nothing to --version", self.path.display()))?;
        Ok(line.trim().to_owned())
    }

    /// Whether this host can run containers with the program of this name.
    pub fn support(name: &str) -> Support {
        let evidence = match Self::find(name).and_then(|runtime| Ok((runtime.version()?, runtime.path))) {
            Ok((version, path)) => format!("{}: {version}", path.display()),
            Err(error) => {
                return Support::Unsupported { evidence: format!("{error:#}"), remedy: remedy(name) };
            }
        };
        match missing_capabilities() {
            None => Support::Ok { evidence },
            Some(missing) => Support::Unsupported {
                evidence: format!("{evidence}; but {missing}"),
                remedy: "run as root: containers and their networks need it".into(),
            },
        }
    }

    /// Path, version and hash, for the manifest; the keys begin with `prefix`.
    ///
    /// # Errors
    /// When the program can't be read.
    pub fn provenance(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([
            (format!("{prefix}.path"), self.path.display().to_string()),
            (format!("{prefix}.version"), self.version()?),
            (format!("{prefix}.sha256"), sha256(&self.path)?),
        ]))
    }
}

fn remedy(name: &str) -> String {
    format!("install {name}: `cargo xtask setup`, or `apt-get install {name}`")
}

/// Which of the capabilities are missing that namespaces, mounts and network devices need.
pub fn missing_capabilities() -> Option<String> {
    let effective = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => return Some(format!("the capabilities of this process can't be read: {error}")),
    };
    let needed = [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN")];
    let missing: Vec<_> = needed.iter().filter(|(flag, _)| !effective.contains(*flag)).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| format!("this process lacks {}", missing.join(" and ")))
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// When it can't be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut read = || -> std::io::Result<()> {
        let mut file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        while let bytes @ [_, ..] = file.fill_buf()? {
            hash.update(bytes);
            let length = bytes.len();
            file.consume(length);
        }
        Ok(())
    };
    read().with_context(|| format!("could not read {}", path.display()))?;
    let mut digits = String::new();
    for byte in hash.finalize() {
        write!(digits, "{byte:02x}").expect("writing to a String can't fail");
    }
    Ok(digits)
}
