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
            match parse(&self.buffer[..self.filled])? {
                // Such as early hints: the answer itself comes after it.
                Some(head) if matches!(head.status, 100..=199) => {
                    self.buffer.copy_within(head.bytes..self.filled, 0);
                    self.filled -= head.bytes;
                    continue;
                }
                Some(head) => break head,
                None => {}
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
                // Before the body all that was there was a part of it.
                if length > begun && self.filled > 0 {
                    return Err(surplus());
                }
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

    /// Reads so many bytes and drops them. What comes with the last of them is in the buffer then, and nothing else; without any to
    /// read, the buffer stays as it is.
    async fn skip(&mut self, mut left: u64) -> Result<(), Failure> {
        while left > 0 {
            self.filled = 0;
            let read = self.read_more().await?;
            if read == 0 {
                return Err(Failure::Exchange("the connection was closed within the answer".to_owned()));
            }
            let dropped = usize::try_from(left).map_or(read, |left| left.min(read));
            self.buffer.copy_within(dropped..read, 0);
            self.filled = read - dropped;
            left -= dropped as u64;
        }
        Ok(())
    }

    /// Reads a chunked body that begins at this place of the buffer, and its trailer; gives the length of its content.
    async fn chunks(&mut self, mut at: usize) -> Result<u64, Failure> {
        let mut total = 0_u64;
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer[at..self.filled]).map_err(|_| no_chunks())? {
                    httparse::Status::Complete(chunk) => break chunk,
                    httparse::Status::Partial => self.read_on(&mut at).await?,
                }
            };
            at += line;
            if size == 0 {
                self.trailer(&mut at).await?;
                return if at == self.filled { Ok(total) } else { Err(surplus()) };
            }
            total = total.checked_add(size).ok_or_else(no_chunks)?;
            let begun = (self.filled - at) as u64;
            if size <= begun {
                at += usize::try_from(size).map_err(|_| no_chunks())?;
            } else {
                self.skip(size - begun).await?;
                at = 0;
            }
            while self.filled - at < 2 {
                self.read_on(&mut at).await?;
            }
            if self.buffer[at..at + 2] != *b"\r\n" {
                return Err(no_chunks());
            }
            at += 2;
        }
    }

    /// Reads the header lines behind the last chunk, which are mostly none, and the empty line that ends them.
    async fn trailer(&mut self, at: &mut usize) -> Result<(), Failure> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let parsed = httparse::parse_headers(&self.buffer[*at..self.filled], &mut headers);
            match parsed.map_err(|_| no_chunks())? {
                httparse::Status::Complete((length, _)) => {
                    *at += length;
                    return Ok(());
                }
                httparse::Status::Partial => self.read_on(at).await?,
            }
        }
    }

    /// Reads on, for what begins at this place of the buffer and is not all there: what is before it is dropped.
    async fn read_on(&mut self, at: &mut usize) -> Result<(), Failure> {
        self.buffer.copy_within(*at..self.filled, 0);
        (self.filled, *at) = (self.filled - *at, 0);
        if self.filled > MAX_HEAD_BYTES {
            return Err(no_chunks());
        }
        match self.read_more().await? {
            0 => Err(Failure::Exchange("the connection was closed within the answer".to_owned())),
            _ => Ok(()),
        }
    }
}

fn no_chunks() -> Failure {
    Failure::Exchange("the answer's chunks are no chunks".to_owned())
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
            // What it says beside chunks counts for nothing (RFC 9112, section 6.3).
            if !matches!(head.body, Body::Chunked) {
                head.body = Body::Length(length);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let last = header.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            head.body = if chunked { Body::Chunked } else { Body::UntilClosed };
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keeps_alive = if head.keeps_alive { !is("close") } else { is("keep-alive") };
        }
    }
    if matches!(head.status, 204 | 304) {
        head.body = Body::Length(0);
    }
    Ok(Some(head))
}
