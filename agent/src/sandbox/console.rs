//! What a sandbox printed: drained at once so that it never blocks, kept only to a bound, and shown without harm.
//!
//! Everything that comes out of a sandbox is hostile: it may never end, hold no line break, or carry terminal escapes. So a
//! thread of its own reads the pipe until its end, keeps the last [`TAIL_BYTES`], and [`Console::last_lines`] escapes what
//! could act on a terminal.

use crate::{host::clock::monotonic_ns, printable::printable};
use anyhow::{Context as _, Result};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use std::{
    collections::VecDeque,
    future::Future,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::watch;

/// Bytes kept of a line in which a text is looked for: no text that anybody waits for is longer.
const LINE_BYTES: usize = 1024;

/// Bytes kept of what was printed.
pub const TAIL_BYTES: usize = 16 * 1024;

/// Lines kept with the instant of their end, from the first on.
const TIMED_LINES: usize = 2000;

/// Characters shown of one line.
const LINE_CHARACTERS: usize = 240;

/// Bytes read at once: what a pipe holds unless its size was changed.
const READ_BYTES: usize = 64 * 1024;

/// Output of one child, standard output and error in the order in which they were written.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    /// Tells the reader to end although somebody still holds the other end of the pipe.
    stop: OwnedFd,
    reader: Option<JoinHandle<()>>,
    reader_tid: u32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tail: VecDeque<u8>,
    total_bytes: u64,
    ended: bool,
    /// The line that is being written, up to [`LINE_BYTES`].
    line: Vec<u8>,
    milestones: Vec<Milestone>,
    reached: Vec<Reached>,
    timed: Vec<(u64, String)>,
}

/// A line of a console that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// Name of the marker that it is.
    pub marker: &'static str,
    /// The first line that contains this is meant; an empty text means the first byte.
    pub text: String,
}

/// A milestone, and when it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Name of the marker.
    pub marker: &'static str,
    /// When the line was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The line, without harm to a terminal.
    pub line: String,
}

/// What whoever waits for a console has to know.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    first_byte_ns: Option<u64>,
    reached: usize,
    ended: bool,
}

impl Console {
    /// Makes the pipe and the thread that drains it. The child gets the second value as its standard output and error.
    ///
    /// # Errors
    /// When the process is out of file descriptors or threads.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("could not make a pipe for a child's output")?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("could not make an eventfd for a child's output")?;
        let stopped = stop.try_clone().context("could not duplicate an eventfd")?;
        let shared = Arc::new(Shared::default());
        let (sender, progress) = watch::channel(Progress::default());
        let (tell, told) = mpsc::channel();
        let reader = std::thread::Builder::new()
            .name("console".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    // Who asks waits below, unless it has died.
                    let _ = tell.send(rustix::thread::gettid().as_raw_pid().cast_unsigned());
                    shared.drain(&read, &stopped, &sender);
                }
            })
            .context("could not start the thread that reads a child's output")?;
        let reader_tid = told.recv().context("the thread that reads a child's output ended at once")?;
        Ok((Self { shared, progress, stop, reader: Some(reader), reader_tid }, write))
    }

    /// Number of the thread that reads: the first byte counts from when it has it.
    pub fn reader_tid(&self) -> u32 {
        self.reader_tid
    }

    /// Bytes printed so far, including those that are not kept.
    pub fn total_bytes(&self) -> u64 {
        self.shared.lock().total_bytes
    }

    /// The last [`TAIL_BYTES`] bytes, as they came.
    pub fn tail(&self) -> Vec<u8> {
        self.shared.lock().tail.iter().copied().collect()
    }

    /// The last lines that are not empty, at most `count`, shortened and with everything escaped that a terminal might obey.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let tail = self.tail();
        let text = String::from_utf8_lossy(&tail);
        let mut lines: Vec<String> =
            text.lines().rev().filter(|line| !line.trim().is_empty()).take(count).map(harmless).collect();
        lines.reverse();
        lines
    }

    /// Looks out for a line from now on.
    pub fn expect(&self, marker: &'static str, text: impl Into<String>) {
        self.shared.lock().milestones.push(Milestone { marker, text: text.into() });
    }

    /// The milestones that were reached so far, in order of time.
    pub fn reached(&self) -> Vec<Reached> {
        self.shared.lock().reached.clone()
    }

    /// The first `TIMED_LINES` lines that are not empty, shortened and made harmless like those of [`Console::last_lines`],
    /// each with the instant at which its end was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn timed_lines(&self) -> Vec<(u64, String)> {
        self.shared.lock().timed.clone()
    }

    /// When the first byte was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn first_byte_ns(&self) -> Option<u64> {
        self.progress.borrow().first_byte_ns
    }

    /// Waits for the first byte and tells when it was seen, in nanoseconds of `CLOCK_MONOTONIC`; `None` when the output ended
    /// without one. Does not borrow the console.
    pub fn first_byte(&self) -> impl Future<Output = Option<u64>> + Send + use<> {
        let mut receiver = self.progress.clone();
        async move {
            let progress = receiver.wait_for(|progress| progress.first_byte_ns.is_some() || progress.ended).await;
            progress.ok().and_then(|progress| progress.first_byte_ns)
        }
    }

    /// Waits for a milestone; `None` when the output ended without it. Does not borrow the console.
    pub fn milestone(&self, marker: &'static str) -> impl Future<Output = Option<u64>> + Send + use<> {
        let mut receiver = self.progress.clone();
        let shared = Arc::clone(&self.shared);
        async move {
            let find =
                || shared.lock().reached.iter().find(|reached| reached.marker == marker).map(|found| found.at_ns);
            loop {
                let ended = receiver.borrow_and_update().ended;
                let found = find();
                if found.is_some() || ended || receiver.changed().await.is_err() {
                    return found;
                }
            }
        }
    }

    /// Waits until all who could write to it are gone and everything is read, but no longer than `limit`. True when it ended.
    pub fn await_end(&self, limit: Duration) -> bool {
        let (state, _) = self
            .shared
            .ended
            .wait_timeout_while(self.shared.lock(), limit, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // An eventfd accepts this write unless its counter is full, which one write can't do.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    /// The lock, also after a panic of another thread: the state is valid between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self, pipe: &OwnedFd, stop: &OwnedFd, progress: &watch::Sender<Progress>) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut watched = [PollFd::new(pipe, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut watched, None) {
                Ok(_) => (),
                Err(Errno::INTR) => continue,
                Err(_) => break,
            }
            let at_ns = monotonic_ns();
            if !watched[1].revents().is_empty() {
                break;
            }
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let reached = self.lock().append(&buffer[..length], at_ns);
                    progress.send_if_modified(|progress| {
                        let news = progress.first_byte_ns.is_none() || progress.reached != reached;
                        progress.first_byte_ns.get_or_insert(at_ns);
                        progress.reached = reached;
                        news
                    });
                }
                Err(Errno::INTR) => (),
                Err(_) => break,
            }
        }
        self.lock().ended = true;
        self.ended.notify_all();
        progress.send_modify(|progress| progress.ended = true);
    }
}

impl State {
    /// Takes what was read; returns how many milestones were reached so far.
    fn append(&mut self, bytes: &[u8], at_ns: u64) -> usize {
        self.total_bytes += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        self.tail.extend(kept);
        if !self.milestones.is_empty() || self.timed.len() < TIMED_LINES {
            self.look_out(bytes, at_ns);
        }
        self.reached.len()
    }

    fn look_out(&mut self, bytes: &[u8], at_ns: u64) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES - self.line.len();
            self.line.extend(&part[..part.len().min(room)]);
            let text = String::from_utf8_lossy(&self.line);
            // Also before the line is complete: some guests print no line break for a while.
            let reached = self.milestones.extract_if(.., |milestone| text.contains(&milestone.text));
            let line = || harmless(text.trim());
            self.reached.extend(reached.map(|milestone| Reached { marker: milestone.marker, at_ns, line: line() }));
            if part.ends_with(b"\n") {
                if self.timed.len() < TIMED_LINES && !text.trim().is_empty() {
                    self.timed.push((at_ns, harmless(text.trim_end())));
                }
                self.line.clear();
            }
        }
    }
}

/// The line, shortened and fit to be shown.
fn harmless(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARACTERS) {
        Some((end, _)) => printable(&line[..end]) + "…",
        None => printable(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write as _};

    #[test]
    fn the_tail_is_bounded_and_the_count_is_not() {
        let (console, write) = Console::new().unwrap();
        let mut writer = File::from(write);
        let line = [b"0123456789abcde".as_slice(), b"\n"].concat();
        for _ in 0..100_000 {
            writer.write_all(&line).unwrap();
        }
        writer.write_all(b"the end").unwrap();
        drop(writer);
        assert!(console.await_end(Duration::from_secs(10)));
        assert_eq!(console.total_bytes(), 1_600_007);
        assert_eq!(console.tail().len(), TAIL_BYTES);
        assert_eq!(console.last_lines(2), ["0123456789abcde", "the end"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{202e}c\u{7}"), r"a\u{1b}[2Jb\u{202e}c\u{7}");
        assert_eq!(harmless(&"x".repeat(1000)).chars().count(), LINE_CHARACTERS + 1);
    }

    #[test]
    fn a_writer_that_stays_does_not_hold_up_the_end() {
        let (console, write) = Console::new().unwrap();
        assert!(!console.await_end(Duration::from_millis(10)));
        drop(console);
        drop(write);
    }

    #[tokio::test]
    async fn the_first_byte_is_awaited_and_timed() {
        let (console, write) = Console::new().unwrap();
        assert_eq!(console.first_byte_ns(), None);
        let first = console.first_byte();
        let before = monotonic_ns();
        File::from(write).write_all(b"x").unwrap();
        let at = first.await.unwrap();
        assert!(before <= at && at <= monotonic_ns(), "{before} {at}");
        assert_eq!(console.first_byte_ns(), Some(at));

        let (console, write) = Console::new().unwrap();
        drop(write);
        assert_eq!(console.first_byte().await, None);
    }

    #[test]
    fn one_line_can_be_several_milestones() {
        let (console, write) = Console::new().unwrap();
        for (marker, text) in [("init", "init: up"), ("first", ""), ("app", "init: app")] {
            console.expect(marker, text);
        }
        File::from(write).write_all(b"init: up\ninit: app\n").unwrap();
        assert!(console.await_end(Duration::from_secs(10)));
        let reached: Vec<_> = console.reached().into_iter().map(|reached| reached.marker).collect();
        assert_eq!(reached, ["init", "first", "app"]);
    }

    #[tokio::test]
    async fn milestones_are_found_once_also_in_pieces_and_in_floods() {
        let (console, write) = Console::new().unwrap();
        console.expect("kernel", "Linux version");
        console.expect("never", "no such line");
        console.expect("up", "login:");
        let (kernel, never) = (console.milestone("kernel"), console.milestone("never"));
        let mut writer = File::from(write);
        writer.write_all(b"...\nLinux ver").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let before = monotonic_ns();
        writer.write_all(b"sion 6\x1b.1\nLinux version again\n").unwrap();
        assert!(kernel.await.unwrap() >= before);
        writer.write_all(&vec![b'x'; 1 << 20]).unwrap();
        writer.write_all(b"\nlogin: ").unwrap();
        drop(writer);
        assert_eq!(never.await, None);
        let reached: Vec<_> = console.reached().into_iter().map(|reached| (reached.marker, reached.line)).collect();
        let escaped = r"Linux version 6\u{1b}.1".to_owned();
        assert_eq!(reached, [("kernel", escaped), ("up", "login:".to_owned())]);
    }
}
