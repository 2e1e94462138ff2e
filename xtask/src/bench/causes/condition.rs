//! What is brought about on the host for a scene, and undone after it.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// How long somebody outside takes to answer.
pub(super) const ANSWER: Duration = Duration::from_millis(60);
/// Mounts of a namespace that is copied, and how many copy it at a time.
const MOUNTS: &str = "3000";
const STORMS: &str = "3";
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// What a scene needs of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// Grace periods of RCU that take next to no time.
    ShortGracePeriods,
    /// Others that copy a mount namespace with many mounts again and again.
    MountStorm,
    /// Others that want every CPU.
    BusyCpus,
    /// Somebody who answers on a socket beside the workload, after a while.
    Somebody,
    /// A file beside the workload.
    ColdFile,
}

/// Holds while it lives.
pub(super) enum Condition {
    Nothing,
    Setting(String),
    Others(Vec<Child>),
    Files(Vec<PathBuf>),
}

impl Condition {
    /// Brings it about. Programs are those of sandscope; the scenes' own are in `folder`.
    pub(super) fn begin(needs: Needs, programs: &Path, folder: &Path) -> Result<Self> {
        Ok(match needs {
            Needs::Nothing => Self::Nothing,
            Needs::ShortGracePeriods => {
                let was = fs::read_to_string(EXPEDITED).with_context(|| format!("can't read {EXPEDITED}"))?;
                fs::write(EXPEDITED, "1").with_context(|| format!("can't write {EXPEDITED}"))?;
                Self::Setting(was)
            }
            Needs::MountStorm => {
                let subject = programs.join("sandscope-test-subject");
                let mut storm = Command::new(&subject)
                    .args(["mounts", MOUNTS, STORMS])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .with_context(|| format!("can't start {}", subject.display()))?;
                let mut ready = String::new();
                BufReader::new(storm.stdout.take().context("it has an output")?).read_line(&mut ready)?;
                if ready.trim() != "ready" {
                    bail!("the storm says {ready:?} and not that it is ready");
                }
                Self::Others(vec![storm])
            }
            Needs::BusyCpus => {
                let cpus = thread::available_parallelism()?.get();
                let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().context("can't start sh");
                Self::Others((0..cpus * 2).map(|_| spin()).collect::<Result<_>>()?)
            }
            Needs::Somebody => {
                let path = folder.join("somebody");
                let _ = fs::remove_file(&path);
                let listener =
                    UnixListener::bind(&path).with_context(|| format!("can't listen on {}", path.display()))?;
                thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        let _ = stream.read_exact(&mut [0]);
                        thread::sleep(ANSWER);
                        let _ = stream.write_all(b"!");
                    }
                });
                Self::Files(vec![path])
            }
            Needs::ColdFile => {
                let path = folder.join("cold-file");
                let mut file = File::create(&path).with_context(|| format!("can't make {}", path.display()))?;
                file.write_all(&vec![0x5a; 32 << 20])?;
                file.sync_all()?;
                Self::Files(vec![path])
            }
        })
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Setting(was) => {
                let _ = fs::write(EXPEDITED, was);
            }
            Self::Others(others) => {
                for other in others {
                    let _ = other.kill();
                    let _ = other.wait();
                }
            }
            Self::Files(paths) => {
                for path in paths {
                    let _ = fs::remove_file(path);
                }
            }
        }
    }
}
