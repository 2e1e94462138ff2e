//! Starts programs on behalf of the sandboxes, so that they can't outlive the agent and can't block or flood it.
//!
//! A child has a session of its own, an environment of nothing but `PATH` and [`MARKER`], no standard input, and a
//! [`Console`] for its output. The kernel kills it when the *thread* that started it ends (`PR_SET_PDEATHSIG`): whoever
//! starts children that shall live has to be a thread that lives as long as the agent, the [`super::launcher::Launcher`].

use super::{
    console::Console,
    processes::{MARKER, awaited},
};
use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal, set_child_subreaper,
        set_parent_process_death_signal, setsid,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

/// Directories in which programs are looked for, by the agent and by its children. Fixed, so that a run does not depend on
/// the environment that somebody typed it in.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lines of the console that go into an error message.
const SHOWN_LINES: usize = 5;

/// How long the rest of a dead child's output is awaited before it is quoted.
const OUTPUT_LIMIT: Duration = Duration::from_millis(200);

/// Wherever a child is killed: how long it may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A program that is ready to be started: all that may take time is done.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    command: Command,
    namespaces: Vec<(OwnedFd, LinkNameSpaceType)>,
}

impl Program {
    /// The program at this path, marked as part of the instance with this directory, and what it will print.
    ///
    /// # Errors
    /// When the agent is out of file descriptors or threads.
    pub fn new(path: &Path, instance: &Path) -> Result<(Self, Console)> {
        let (console, output) = Console::new()?;
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env(MARKER, instance)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("could not duplicate a pipe")?)
            .stderr(output)
            .current_dir("/");
        Ok((Self { path: path.to_owned(), command, namespaces: Vec::new() }, console))
    }

    /// Adds an argument.
    pub fn argument(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn arguments(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Makes the child enter this namespace before it executes the program.
    pub fn enter(&mut self, namespace: OwnedFd, kind: LinkNameSpaceType) -> &mut Self {
        self.namespaces.push((namespace, kind));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the kernel refuses to fork or to execute the program; names it.
    pub fn spawn(self) -> Result<Child> {
        static SUBREAPER: Once = Once::new();
        // So that descendants whose parents die stay below the agent, where stopping finds and reaps them. It can't fail on
        // any kernel since 3.4.
        SUBREAPER.call_once(|| {
            let _ = set_child_subreaper(Some(getpid()));
        });

        let Self { path, mut command, namespaces } = self;
        let agent = getpid();
        let prepare = move || {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // If the agent died before the line above, nobody is left to send the signal.
            if getppid() != Some(agent) {
                return Err(Errno::SRCH.into());
            }
            for (namespace, kind) in &namespaces {
                move_into_link_name_space(namespace.as_fd(), Some(*kind))?;
            }
            Ok(())
        };
        // SAFETY: needed for steps between fork and exec that `Command` has no method for. The closure makes system calls and
        // neither allocates nor takes a lock, which is all that may be done there.
        unsafe { command.pre_exec(prepare) };
        let process = {
            let mut awaited = awaited();
            let process = command.spawn().with_context(|| format!("could not execute {}", path.display()))?;
            awaited.insert(process.id().cast_signed());
            process
        };
        Ok(Child { path, process, status: None })
    }
}

/// A started program. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    path: PathBuf,
    process: std::process::Child,
    status: Option<ExitStatus>,
}

impl Child {
    /// How it ended, if it did. Does not block.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none()
            && let Ok(Some(status)) = self.process.try_wait()
        {
            awaited().remove(&self.process.id().cast_signed());
            self.status = Some(status);
        }
        self.status
    }

    /// Says that it ended and what it printed last, if it ended.
    pub fn failure(&mut self, console: &Console) -> Option<String> {
        let status = self.exit_status()?;
        Some(format!("{} ended with {status}{}", self.path.display(), quote(console)))
    }

    /// Waits until it ends, but not longer than `limit`.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        let Some(process) = self.descriptor()? else {
            return Ok(self.status);
        };
        while self.exit_status().is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = left.try_into().context("the time limit is too long")?;
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => (),
                Err(error) => return Err(error).context("could not wait for a child"),
            }
        }
        Ok(self.status)
    }

    /// Kills it, if it still runs, and takes its status. Harmless to call again.
    ///
    /// # Errors
    /// When it does not go within five seconds.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(process) = self.descriptor()? {
            // It may have ended meanwhile, which is as good.
            let _ = pidfd_send_signal(&process, Signal::KILL);
            if self.wait(KILL_LIMIT)?.is_none() {
                let pid = self.process.id();
                bail!(
                    "{} (process {pid}) still runs {} s after SIGKILL: see /proc/{pid}/stack for what it waits for",
                    self.path.display(),
                    KILL_LIMIT.as_secs()
                );
            }
        }
        Ok(())
    }

    /// The process, if its status was not taken yet: until then its number can't be another's.
    fn descriptor(&mut self) -> Result<Option<OwnedFd>> {
        if self.exit_status().is_some() {
            return Ok(None);
        }
        let pid = Pid::from_raw(self.process.id().cast_signed()).context("a child has the process number 0")?;
        pidfd_open(pid, PidfdFlags::empty()).map(Some).context("could not open a child's pidfd")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!("{error:#}");
        }
    }
}

/// Runs a program to its end and returns what it printed, at most the console's tail.
///
/// # Errors
/// When it can't be started, fails, or takes longer than `limit` (then it is killed); says what it printed.
pub fn run(path: &Path, instance: &Path, arguments: &[&OsStr], limit: Duration) -> Result<String> {
    let (mut program, console) = Program::new(path, instance)?;
    program.arguments(arguments);
    let mut child = program.spawn()?;
    let shown = || {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        format!("`{} {}`", path.display(), arguments.join(" "))
    };
    match child.wait(limit)? {
        Some(status) if status.success() => {
            console.await_end(OUTPUT_LIMIT);
            Ok(String::from_utf8_lossy(&console.tail()).into_owned())
        }
        Some(status) => bail!("{} ended with {status}{}", shown(), quote(&console)),
        None => {
            child.kill()?;
            bail!("{} did not end within {} s and was killed{}", shown(), limit.as_secs(), quote(&console))
        }
    }
}

/// The last lines of a console as the end of a sentence about its child.
fn quote(console: &Console) -> String {
    console.await_end(OUTPUT_LIMIT);
    let lines = console.last_lines(SHOWN_LINES);
    if lines.is_empty() {
        return ", having printed nothing".into();
    }
    format!(", having printed last:\n  {}", lines.join("\n  "))
}
