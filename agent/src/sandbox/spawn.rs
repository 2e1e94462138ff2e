//! Starts a program without copying the agent.
//!
//! `std::process::Command` forks when something has to be done between fork and exec, and a fork copies the page tables of the
//! whole agent, inside the timed window: that made the start of every sandbox some milliseconds longer the more the agent had
//! in memory. So the child shares the agent's memory until it executes the program (`CLONE_VM | CLONE_VFORK`), as in
//! `posix_spawn`, which can't enter namespaces or set a death signal.

use anyhow::{Context as _, Result, bail};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    process::{Pid, WaitId, WaitIdOptions, getpid, waitid},
};
use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    },
    path::Path,
    process::ExitStatus,
    ptr::NonNull,
};

/// The child calls a dozen functions that are not nested.
const STACK_BYTES: usize = 64 * 1024;

/// What is to be executed, and in which surroundings; made ready so that the child only makes system calls.
#[derive(Debug)]
pub struct Image {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    input: OwnedFd,
    output: OwnedFd,
    /// Standard error, unless it is the output.
    errors: Option<OwnedFd>,
    /// Open in the child under the numbers that they have here.
    inherited: Vec<OwnedFd>,
    namespaces: Vec<(OwnedFd, c_int)>,
    root: Option<CString>,
}

impl Image {
    /// The program at an absolute path, whose standard output and error are `output`.
    ///
    /// # Errors
    /// When the path holds a NUL, or `/dev/null` can't be opened.
    pub fn new(path: &Path, output: OwnedFd) -> Result<Self> {
        let path = c_string(path.as_os_str())?;
        let input = std::fs::File::open("/dev/null").context("could not open /dev/null")?.into();
        let arguments = vec![path.clone()];
        Ok(Self {
            path,
            arguments,
            environment: Vec::new(),
            input,
            output,
            errors: None,
            inherited: Vec::new(),
            namespaces: Vec::new(),
            root: None,
        })
    }

    /// Adds an argument.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn argument(&mut self, argument: &OsStr) -> Result<()> {
        self.arguments.push(c_string(argument)?);
        Ok(())
    }

    /// Adds an environment variable.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn variable(&mut self, name: &str, value: &OsStr) -> Result<()> {
        let variable = [name.as_bytes(), b"=", value.as_bytes()].concat();
        self.environment.push(c_string(OsStr::from_bytes(&variable))?);
        Ok(())
    }

    /// Makes the child enter a namespace of the kind `CLONE_NEW*`, after those added before.
    pub fn enter(&mut self, namespace: OwnedFd, kind: c_int) {
        self.namespaces.push((namespace, kind));
    }

    /// Makes this folder the child's root directory; the path of the program is then one below it.
    ///
    /// # Errors
    /// When the path holds a NUL.
    pub fn root(&mut self, folder: &Path) -> Result<()> {
        self.root = Some(c_string(folder.as_os_str())?);
        Ok(())
    }

    /// Leaves a file descriptor open in the child, under the number that it has here.
    pub fn inherit(&mut self, descriptor: OwnedFd) {
        self.inherited.push(descriptor);
    }

    /// Gives it a standard error apart from its standard output.
    pub fn separate_errors(&mut self, errors: OwnedFd) {
        self.errors = Some(errors);
    }

    /// Drops what it prints.
    ///
    /// # Errors
    /// When `/dev/null` can't be opened.
    pub fn silence(&mut self) -> Result<()> {
        let null = std::fs::File::options().write(true).open("/dev/null").context("could not open /dev/null")?;
        self.output = null.into();
        Ok(())
    }

    /// Starts it. The child has a session of its own, `/` as its working directory and default signal handling, and the
    /// kernel kills it when the calling thread ends.
    ///
    /// # Errors
    /// When the kernel refuses a step; names the step.
    pub fn spawn(self) -> Result<Process> {
        let stack = Stack::new().context("no memory for the stack of a child")?;
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let mut child = Prepared {
            path: &self.path,
            arguments: arguments.as_ptr(),
            environment: environment.as_ptr(),
            input: self.input.as_raw_fd(),
            output: self.output.as_raw_fd(),
            errors: self.errors.as_ref().unwrap_or(&self.output).as_raw_fd(),
            inherited: &self.inherited,
            namespaces: &self.namespaces,
            root: self.root.as_deref(),
            agent: getpid().as_raw_pid(),
            failed: None,
        };
        let mut descriptor: c_int = -1;
        let signals = BlockedSignals::new();
        // SAFETY: needed for a child that shares memory, which no safe interface offers. This thread is suspended until the
        // child has executed the program or ended, so everything that `child` refers to outlives its use, and nobody else
        // touches it; the stack is the child's alone. All signals are blocked, so no handler of the agent runs in the child.
        let pid = unsafe {
            libc::clone(
                run,
                stack.top(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
                (&raw mut child).cast(),
                &raw mut descriptor,
            )
        };
        let refused = io::Error::last_os_error();
        drop(signals);
        if pid < 0 {
            return Err(refused).context("could not make a process");
        }
        // SAFETY: `clone` succeeded, so the kernel has opened this descriptor for us and nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let pid = Pid::from_raw(pid).context("a child has the process number 0")?;
        let mut process = Process { pid, descriptor, status: None };
        if let Some((step, error)) = child.failed {
            process.wait_blocking()?;
            let path = self.path.to_string_lossy();
            return Err(io::Error::from_raw_os_error(error)).with_context(|| format!("could not {step} {path}"));
        }
        Ok(process)
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).with_context(|| format!("{text:?} holds a NUL character"))
}

/// What the child needs, in memory that it shares with the agent.
struct Prepared<'a> {
    path: &'a CStr,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    input: c_int,
    output: c_int,
    errors: c_int,
    inherited: &'a [OwnedFd],
    namespaces: &'a [(OwnedFd, c_int)],
    root: Option<&'a CStr>,
    agent: libc::pid_t,
    /// Step and error number with which the child gave up.
    failed: Option<(&'static str, c_int)>,
}

/// What the child does. It returns only when it failed.
extern "C" fn run(prepared: *mut c_void) -> c_int {
    // SAFETY: `Image::spawn` passes a `Prepared` that lives until this function has ended or the program is executed.
    let prepared = unsafe { &mut *prepared.cast::<Prepared<'_>>() };
    prepared.failed = Some(prepared.become_the_program());
    127
}

impl Prepared<'_> {
    /// Makes system calls only: this is not the agent's process any more, but still its memory.
    fn become_the_program(&self) -> (&'static str, c_int) {
        let steps = || -> Result<(), &'static str> {
            // SAFETY: takes no pointer.
            check("make a session for", unsafe { libc::setsid() })?;
            // SAFETY: takes no pointer.
            check("set the death signal of", unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
            // SAFETY: takes nothing. If the agent died before the line above, nobody is left to send the signal.
            check("stay with the agent in", if unsafe { libc::getppid() } == self.agent { 0 } else { -1 })?;
            for (namespace, kind) in self.namespaces {
                // SAFETY: takes no pointer.
                check("enter a namespace for", unsafe { libc::setns(namespace.as_raw_fd(), *kind) })?;
            }
            if let Some(root) = self.root {
                // SAFETY: the path is NUL-terminated.
                check("change the root directory for", unsafe { libc::chroot(root.as_ptr()) })?;
            }
            for (from, to) in [(self.input, 0), (self.output, 1), (self.errors, 2)] {
                // SAFETY: takes no pointer.
                check("connect the standard streams of", unsafe { libc::dup2(from, to) })?;
            }
            for descriptor in self.inherited {
                // The table of descriptors is the child's own: the agent's stay closed for everything else that it starts.
                // SAFETY: takes no pointer.
                check("pass a file descriptor to", unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) })?;
            }
            // SAFETY: a NUL-terminated constant.
            check("change to the directory / for", unsafe { libc::chdir(c"/".as_ptr()) })?;
            default_signals();
            // SAFETY: the path is NUL-terminated and both arrays end with a null pointer.
            check("execute", unsafe { libc::execve(self.path.as_ptr(), self.arguments, self.environment) })
        };
        let step = steps().err().unwrap_or("execute");
        (step, io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

fn check(step: &'static str, result: c_int) -> Result<(), &'static str> {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// Gives every signal its default action, then unblocks all: in this order, or a pending one would run the agent's handler.
///
/// By the system calls themselves: the C library refuses to touch the signals that it keeps for itself, and one of those that
/// the agent inherited as ignored would stay so in every sandbox.
fn default_signals() {
    /// Bytes of the kernel's signal set.
    const SET_BYTES: usize = 8;
    /// All zero is `SIG_DFL` without flags; larger than the kernel's `struct sigaction` on every architecture.
    static DEFAULT: [u64; 16] = [0; 16];
    for signal in 1..=64 {
        // SIGKILL and SIGSTOP are refused, which is as good.
        // SAFETY: reads the constant only; handlers are not shared with the agent.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), 0, SET_BYTES) };
    }
    // SAFETY: reads the constant only, as an empty set.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, DEFAULT.as_ptr(), 0, SET_BYTES) };
}

/// All signals blocked for this thread, until it is dropped.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> Self {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: fills the set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: reads the set filled above, and fills the other one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: filled above: the call can't fail with these arguments.
        Self(unsafe { before.assume_init() })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Memory for the child's stack.
struct Stack(NonNull<c_void>);

impl Stack {
    fn new() -> io::Result<Self> {
        let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::STACK);
        // SAFETY: a fresh mapping.
        let bottom = unsafe { mmap_anonymous(std::ptr::null_mut(), STACK_BYTES, access, kind) }?;
        NonNull::new(bottom).map(Self).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, where a stack that grows downwards begins.
        unsafe { self.0.as_ptr().byte_add(STACK_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child has left it. A failure would only leak it.
        let _ = unsafe { munmap(self.0.as_ptr(), STACK_BYTES) };
    }
}

/// A started process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    descriptor: OwnedFd,
    status: Option<ExitStatus>,
}

impl Process {
    /// Its number, which stays its own until its status was taken.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that becomes readable when it ends.
    pub fn descriptor(&self) -> &impl AsFd {
        &self.descriptor
    }

    /// How it ended, if it did. Does not block.
    ///
    /// # Errors
    /// When somebody else has taken its status.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.take_status(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn wait_blocking(&mut self) -> Result<Option<ExitStatus>> {
        self.take_status(WaitIdOptions::EXITED)
    }

    fn take_status(&mut self, options: WaitIdOptions) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let ended = waitid(WaitId::PidFd(self.descriptor.as_fd()), options)
                .context("could not ask for a child's status")?;
            // The encoding of `wait(2)`: the code in the second byte, or the signal in the first.
            self.status = match ended {
                Some(status) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(ExitStatus::from_raw(code << 8)),
                    (None, Some(signal)) => Some(ExitStatus::from_raw(signal)),
                    (None, None) => bail!("a child ended in a way that `waitid` does not explain"),
                },
                None => None,
            };
        }
        Ok(self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::Read as _,
        os::unix::fs::PermissionsExt,
        time::{Duration, Instant},
    };

    fn image(path: &str, arguments: &[&str]) -> (Image, File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut image = Image::new(Path::new(path), write).unwrap();
        for argument in arguments {
            image.argument(OsStr::new(argument)).unwrap();
        }
        (image, read.into())
    }

    fn end(process: &mut Process) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = process.status().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_program_gets_what_it_was_given_and_nothing_else() {
        // What the shell was given: `env` would also print what the shell itself adds.
        let script = "pwd; tr '\\0' '\\n' < /proc/$$/environ; echo $1; exit 7";
        let (mut image, mut output) = image("/bin/sh", &["-c", script, "sh", "one two"]);
        image.variable("A", OsStr::new("b c")).unwrap();
        let mut process = image.spawn().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), ["/", "A=b c", "one two"]);
        assert_eq!(end(&mut process).code(), Some(7));
    }

    #[test]
    fn errors_go_elsewhere_and_descriptors_are_passed_on_request_only() {
        let (mut image, mut output) = image("/bin/sh", &["-c", "echo problem >&2; ls /proc/self/fd"]);
        let (mut errors, write) = io::pipe().unwrap();
        image.separate_errors(write.into());
        let (passed, kept) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let (passed_number, kept_number) = (passed.as_raw_fd().to_string(), kept.as_raw_fd().to_string());
        image.inherit(passed.into());
        let mut process = image.spawn().unwrap();
        let (mut text, mut problem) = (String::new(), String::new());
        output.read_to_string(&mut text).unwrap();
        errors.read_to_string(&mut problem).unwrap();
        assert_eq!(problem, "problem\n");
        let numbers: Vec<_> = text.lines().collect();
        assert!(numbers.contains(&&*passed_number) && !numbers.contains(&&*kept_number), "{numbers:?}");
        assert_eq!(end(&mut process).code(), Some(0));
    }

    #[test]
    fn a_program_has_default_signals_in_a_session_of_its_own() {
        // SAFETY: a signal that nothing here uses; the child must not inherit that it is ignored.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let (image, mut output) = image("/bin/cat", &["/proc/self/status", "/proc/self/stat"]);
        let mut process = image.spawn().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        end(&mut process);
        for name in ["SigBlk", "SigIgn", "SigCgt"] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }
        // Process number, name, state, parent, group and session.
        let stat: Vec<_> = text.lines().last().unwrap().split(' ').collect();
        assert_eq!((stat[0], stat[4]), (stat[5], stat[5]));
    }

    #[test]
    fn what_can_not_be_executed_is_named_with_the_step() {
        let (missing, _output) = image("/no/such/program", &[]);
        let error = format!("{:#}", missing.spawn().unwrap_err());
        assert!(error.starts_with("could not execute /no/such/program: No such file"), "{error}");
        let text = tempfile::NamedTempFile::new().unwrap();
        let path = text.path().to_owned();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // Closed for writing, or it would be busy.
        let path = text.into_temp_path();
        let (other, _output) = image(&path.display().to_string(), &[]);
        assert!(format!("{:#}", other.spawn().unwrap_err()).contains("could not execute"));
    }

    #[test]
    fn the_end_by_a_signal_is_told() {
        let (image, _output) = image("/bin/sh", &["-c", "kill -9 $$"]);
        let mut process = image.spawn().unwrap();
        assert_eq!(end(&mut process).signal(), Some(9));
    }
}
