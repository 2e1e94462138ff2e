//! One HTTP/1.1 connection of the load generator.
//!
//! hyper's client hands each request to a task that drives the connection, and back: two wake-ups and a dozen allocations that
//! cost more than the exchange itself. A load generator sends the same bytes again and again and needs to know of the answer
//! where it ends and what its status is: the parser of hyper (`httparse`) and a buffer are enough for that.

use super::tally::Failure;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes that an answer's head may have, and header lines in it: what is inside a sandbox is not trusted.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// An open connection and the request that is sent on it.
pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// What was read; `filled` bytes of it are valid.
    buffer: Vec<u8>,
    filled: usize,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    /// Whether the server leaves the connection open.
    pub(super) keeps_alive: bool,
}

/// How the end of a body is known.
enum Body {
    Length(u64),
    Chunked,
    UntilClosed,
}

struct Head {
    bytes: usize,
    status: u16,
    body: Body,
    keeps_alive: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, path: &str, keep_alive: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Connect(error.to_string());
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: {connection}\r\n\r\n");
        Ok(Self { stream, request: request.into_bytes(), buffer: vec![0; READ_BYTES], filled: 0 })
    }

    /// Sends the request and reads the answer to its end.
    pub(super) async fn ask(&mut self) -> Result<Answer, Failure> {
        let broken = |error: std::io::Error| Failure::Exchange(error.to_string());
        self.stream.write_all(&self.request).await.map_err(broken)?;
        self.filled = 0;
        let head = loop {
            if let Some(head) = parse(&self.buffer[..self.filled])? {
                break head;
            }
            if self.filled >= MAX_HEAD_BYTES {
                return Err(Failure::Exchange(format!("the answer's head has more than {MAX_HEAD_BYTES} bytes")));
            }
            if self.read_more().await? == 0 {
                return Err(Failure::Exchange("the connection was closed before the answer".to_owned()));
            }
        };
        let begun = (self.filled - head.bytes) as u64;
        let body_bytes = match head.body {
            Body::Length(length) => {
                self.skip(length.checked_sub(begun).ok_or_else(surplus)?).await?;
                length
            }
            Body::UntilClosed => {
                let mut total = begun;
                loop {
                    self.filled = 0;
                    match self.read_more().await? {
                        0 => break total,
                        read => total += read as u64,
                    }
                }
            }
            Body::Chunked => self.chunks(head.bytes).await?,
        };
        let keeps_alive = head.keeps_alive && !matches!(head.body, Body::UntilClosed);
        Ok(Answer { status: head.status, body_bytes, keeps_alive })
    }

    /// Reads behind what is there; 0 when the connection was closed.
    async fn read_more(&mut self) -> Result<usize, Failure> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.filled..]).await;
        let read = read.map_err(|error| Failure::Exchange(error.to_string()))?;
        self.filled += read;
        Ok(read)
    }

    /// Reads so many bytes and drops them.
    async fn skip(&mut self, mut left: u64) -> Result<(), Failure> {
        while left > 0 {
            self.filled = 0;
            match self.read_more().await? as u64 {
                0 => return Err(Failure::Exchange("the connection was closed within the answer".to_owned())),
                read => left = left.checked_sub(read).ok_or_else(surplus)?,
            }
        }
        Ok(())
    }

    /// Reads a chunked body that begins at this place of the buffer; gives the length of its content.
    async fn chunks(&mut self, mut at: usize) -> Result<u64, Failure> {
        let invalid = || Failure::Exchange("the answer's chunks are no chunks".to_owned());
        let mut total = 0;
        loop {
            match httparse::parse_chunk_size(&self.buffer[at..self.filled]).map_err(|_| invalid())? {
                httparse::Status::Partial => {
                    // The line is short: what was read before it is not needed any more.
                    self.buffer.copy_within(at..self.filled, 0);
                    (self.filled, at) = (self.filled - at, 0);
                    if self.filled > MAX_HEAD_BYTES || self.read_more().await? == 0 {
                        return Err(invalid());
                    }
                }
                httparse::Status::Complete((line, size)) => {
                    // Behind a chunk comes a line break, behind the last one an empty trailer.
                    let end = size.checked_add(2).ok_or_else(invalid)?;
                    let begun = (self.filled - at - line) as u64;
                    if begun >= end {
                        at += line + usize::try_from(end).map_err(|_| invalid())?;
                    } else {
                        self.skip(end - begun).await?;
                        (self.filled, at) = (0, 0);
                    }
                    total += size;
                    if size == 0 {
                        return if at == self.filled { Ok(total) } else { Err(surplus()) };
                    }
                }
            }
        }
    }
}

fn surplus() -> Failure {
    Failure::Exchange("the answer is longer than it says".to_owned())
}

/// The head of an answer, if it is complete.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| Failure::Exchange(format!("the answer is no HTTP: {error}")))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let mut head = Head {
        bytes: length,
        status: response.code.unwrap_or(0),
        body: Body::UntilClosed,
        keeps_alive: response.version == Some(1),
    };
    for header in response.headers.iter() {
        let is = |value: &str| header.value.eq_ignore_ascii_case(value.as_bytes());
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
            let length = text.ok_or_else(|| Failure::Exchange("the answer's length is no number".to_owned()))?;
            head.body = Body::Length(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && is("chunked") {
            head.body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keeps_alive = if head.keeps_alive { !is("close") } else { is("keep-alive") };
        }
    }
    if matches!(head.status, 100..=199 | 204 | 304) {
        head.body = Body::Length(0);
    }
    Ok(Some(head))
}
