//! Starts programs on behalf of the sandboxes, so that they can't outlive the agent and can't block or flood it.
//!
//! A child has a session of its own, an environment of nothing but `PATH` and [`MARKER`], no standard input, and a
//! [`Console`] for its output. The kernel kills it when the *thread* that started it ends (`PR_SET_PDEATHSIG`): whoever
//! starts children that shall live has to be a thread that lives as long as the agent, the [`super::launcher::Launcher`].

use super::{
    console::Console,
    processes::{MARKER, awaited},
    spawn::{Image, Process},
};
use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, getpid, pidfd_send_signal, set_child_subreaper},
    thread::LinkNameSpaceType,
};
use std::{
    ffi::{OsStr, c_int},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::ExitStatus,
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
    image: Image,
}

impl Program {
    /// The program at this absolute path, marked as part of the instance with this directory, and what it will print.
    ///
    /// # Errors
    /// When the agent is out of file descriptors or threads, or the path holds a NUL.
    pub fn new(path: &Path, instance: &Path) -> Result<(Self, Console)> {
        let (console, output) = Console::new()?;
        let mut image = Image::new(path, output)?;
        image.variable("PATH", OsStr::new(SEARCH_PATH))?;
        image.variable(MARKER, instance.as_os_str())?;
        Ok((Self { path: path.to_owned(), image }, console))
    }

    /// Adds an argument.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn argument(&mut self, argument: impl AsRef<OsStr>) -> Result<&mut Self> {
        self.image.argument(argument.as_ref())?;
        Ok(self)
    }

    /// Adds arguments.
    ///
    /// # Errors
    /// When one holds a NUL.
    pub fn arguments(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<&mut Self> {
        for argument in arguments {
            self.argument(argument)?;
        }
        Ok(self)
    }

    /// Makes the child enter this namespace before it executes the program.
    pub fn enter(&mut self, namespace: OwnedFd, kind: LinkNameSpaceType) -> &mut Self {
        self.image.enter(namespace, kind as c_int);
        self
    }

    /// Makes this folder the child's root directory; the path of the program is then one below it.
    ///
    /// # Errors
    /// When the path holds a NUL.
    pub fn root(&mut self, folder: &Path) -> Result<&mut Self> {
        self.image.root(folder)?;
        Ok(self)
    }

    /// Leaves a file descriptor open in the child; returns the number by which the child knows it.
    pub fn inherit(&mut self, descriptor: OwnedFd) -> RawFd {
        let number = descriptor.as_raw_fd();
        self.image.inherit(descriptor);
        number
    }

    /// Takes what it prints to its standard error apart from what it prints to its standard output.
    ///
    /// # Errors
    /// When the agent is out of file descriptors or threads.
    pub fn separate_errors(&mut self) -> Result<Console> {
        let (console, write) = Console::new()?;
        self.image.separate_errors(write);
        Ok(console)
    }

    /// Drops what it prints.
    ///
    /// # Errors
    /// When `/dev/null` can't be opened.
    pub fn silence(&mut self) -> Result<&mut Self> {
        self.image.silence()?;
        Ok(self)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the kernel refuses to make the process or to execute the program; names it.
    pub fn spawn(self) -> Result<Child> {
        static SUBREAPER: Once = Once::new();
        // So that descendants whose parents die stay below the agent, where stopping finds and reaps them. It can't fail on
        // any kernel since 3.4.
        SUBREAPER.call_once(|| {
            let _ = set_child_subreaper(Some(getpid()));
        });
        let process = {
            let mut awaited = awaited();
            let process = self.image.spawn()?;
            awaited.insert(process.pid().as_raw_pid());
            process
        };
        Ok(Child { path: self.path, process })
    }
}

/// A started program. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    path: PathBuf,
    process: Process,
}

impl Child {
    /// How it ended, if it did. Does not block.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.status().ok().flatten();
        if status.is_some() {
            awaited().remove(&self.process.pid().as_raw_pid());
        }
        status
    }

    /// Says that it ended and what it printed last, if it ended.
    pub fn failure(&mut self, console: &Console) -> Option<String> {
        let status = self.exit_status()?;
        Some(format!("{} ended with {status}{}", self.path.display(), quote(console)))
    }

    /// Waits until it ends, but not longer than `limit`.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.exit_status();
            let left = deadline.saturating_duration_since(Instant::now());
            if status.is_some() || left.is_zero() {
                return Ok(status);
            }
            let timeout = left.try_into().context("the time limit is too long")?;
            match poll(&mut [PollFd::new(self.process.descriptor(), PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => (),
                Err(error) => return Err(error).context("could not wait for a child"),
            }
        }
    }

    /// Kills it, if it still runs, and takes its status. Harmless to call again.
    ///
    /// # Errors
    /// When it does not go within five seconds.
    pub fn kill(&mut self) -> Result<()> {
        if self.exit_status().is_some() {
            return Ok(());
        }
        // It may have ended meanwhile, which is as good.
        let _ = pidfd_send_signal(self.process.descriptor(), Signal::KILL);
        if self.wait(KILL_LIMIT)?.is_none() {
            let pid = self.process.pid();
            bail!(
                "{} (process {pid}) still runs {} s after SIGKILL: see /proc/{pid}/stack for what it waits for",
                self.path.display(),
                KILL_LIMIT.as_secs()
            );
        }
        Ok(())
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
    program.arguments(arguments)?;
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

/// The last lines of a dead child's console as the end of a sentence about it.
pub fn quote(console: &Console) -> String {
    console.await_end(OUTPUT_LIMIT);
    last_lines(console)
}

/// The last lines of a console so far as the end of a sentence about who printed them.
pub fn last_lines(console: &Console) -> String {
    let lines = console.last_lines(SHOWN_LINES);
    if lines.is_empty() {
        return ", having printed nothing".into();
    }
    format!(", having printed last:\n  {}", lines.join("\n  "))
}
