//! The static file: read whole, or streamed as the body of a response.

use anyhow::{Context as _, Result, bail};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::{
    fs::{self, File},
    hint::black_box,
    io::{self, Read},
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of the file that are read at a time.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Reads the whole file into memory and returns its number of bytes.
///
/// # Errors
/// When it can't be read, with its path.
pub fn read(path: &Path) -> Result<usize> {
    regular_file_bytes(path)?;
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(black_box(bytes).len())
}

/// Opens the file for being streamed.
///
/// # Errors
/// When it can't be opened, with its path.
pub fn open(path: &Path) -> Result<FileBody> {
    let length = regular_file_bytes(path)?;
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    Ok(FileBody { state: State::Idle(Some(file)), remaining: length })
}

/// Length of a regular file. Anything else might block or never end.
fn regular_file_bytes(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    if !metadata.is_file() {
        bail!("can't read {}: it is not a regular file", path.display());
    }
    Ok(metadata.len())
}

/// A file as body of a response, of the length that it had when it was opened.
///
/// It is read on other threads, one chunk ahead of what the connection takes.
pub struct FileBody {
    state: State,
    /// Bytes that have yet to be handed to the connection.
    remaining: u64,
}

enum State {
    /// Nothing was asked yet, or nothing more will be.
    Idle(Option<File>),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
}

impl State {
    fn reading(mut file: File, remaining: u64) -> Self {
        Self::Reading(spawn_blocking(move || {
            let length = remaining.min(CHUNK_BYTES);
            let mut chunk = Vec::with_capacity(length as usize);
            if (&mut file).take(length).read_to_end(&mut chunk)? as u64 != length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            Ok((file, chunk.into()))
        }))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        if let State::Idle(file) = &mut self.state {
            let Some(file) = file.take() else {
                return Poll::Ready(None);
            };
            self.state = State::reading(file, self.remaining);
        }
        let State::Reading(reading) = &mut self.state else { unreachable!("the state was idle or is reading") };
        let outcome = ready!(Pin::new(reading).poll(context)).map_err(io::Error::other).flatten();
        Poll::Ready(Some(match outcome {
            Ok((file, chunk)) => {
                self.remaining -= chunk.len() as u64;
                self.state = match self.remaining {
                    0 => State::Idle(None),
                    more => State::reading(file, more),
                };
                Ok(Frame::data(chunk))
            }
            Err(error) => {
                self.state = State::Idle(None);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
