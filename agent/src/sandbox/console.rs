//! What a sandbox printed: drained at once so that it never blocks, kept only to a bound, and shown without harm.
//!
//! Everything that comes out of a sandbox is hostile: it may never end, hold no line break, or carry terminal escapes. So a
//! thread of its own reads the pipe until its end, keeps the last [`TAIL_BYTES`], and [`Console::last_lines`] escapes what
//! could act on a terminal.

use anyhow::{Context as _, Result};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    time::{ClockId, clock_gettime},
};
use std::{
    collections::VecDeque,
    future::Future,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::watch;

/// Bytes kept of what was printed.
pub const TAIL_BYTES: usize = 16 * 1024;

/// Characters shown of one line.
const LINE_CHARACTERS: usize = 240;

/// Bytes read at once: what a pipe holds unless its size was changed.
const READ_BYTES: usize = 64 * 1024;

/// Output of one child, standard output and error in the order in which they were written.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    first_byte: watch::Receiver<FirstByte>,
    /// Tells the reader to end although somebody still holds the other end of the pipe.
    stop: OwnedFd,
    reader: Option<JoinHandle<()>>,
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
}

#[derive(Clone, Copy, Debug)]
enum FirstByte {
    Awaited,
    At { ns: u64 },
    Never,
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
        let (sender, first_byte) = watch::channel(FirstByte::Awaited);
        let reader = std::thread::Builder::new()
            .name("console".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.drain(&read, &stopped, &sender)
            })
            .context("could not start the thread that reads a child's output")?;
        Ok((Self { shared, first_byte, stop, reader: Some(reader) }, write))
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

    /// When the first byte was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn first_byte_ns(&self) -> Option<u64> {
        match *self.first_byte.borrow() {
            FirstByte::At { ns } => Some(ns),
            FirstByte::Awaited | FirstByte::Never => None,
        }
    }

    /// Waits for the first byte and tells when it was seen, in nanoseconds of `CLOCK_MONOTONIC`; `None` when the output ended
    /// without one. Does not borrow the console.
    pub fn first_byte(&self) -> impl Future<Output = Option<u64>> + Send + use<> {
        let mut receiver = self.first_byte.clone();
        async move {
            match receiver.wait_for(|state| !matches!(state, FirstByte::Awaited)).await.as_deref() {
                Ok(&FirstByte::At { ns }) => Some(ns),
                Ok(FirstByte::Awaited | FirstByte::Never) | Err(_) => None,
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

    fn drain(&self, pipe: &OwnedFd, stop: &OwnedFd, first_byte: &watch::Sender<FirstByte>) {
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
                    self.lock().append(&buffer[..length]);
                    first_byte.send_if_modified(|state| {
                        let first = matches!(state, FirstByte::Awaited);
                        if first {
                            *state = FirstByte::At { ns: at_ns };
                        }
                        first
                    });
                }
                Err(Errno::INTR) => (),
                Err(_) => break,
            }
        }
        self.lock().ended = true;
        self.ended.notify_all();
        first_byte.send_if_modified(|state| {
            let none = matches!(state, FirstByte::Awaited);
            if none {
                *state = FirstByte::Never;
            }
            none
        });
    }
}

impl State {
    fn append(&mut self, bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of the BPF programs.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The line, shortened, with control characters and those that reorder text escaped.
fn harmless(line: &str) -> String {
    let mut shown = String::new();
    for (position, character) in line.chars().enumerate() {
        if position == LINE_CHARACTERS {
            shown.push('…');
            break;
        }
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character == '\t' {
            shown.push(' ');
        } else if character.is_control() || reorders {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
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
}
