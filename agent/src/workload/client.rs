//! Asks a workload over HTTP, and says when each step of that was done.
//!
//! The client starts when the workload has called back, so it does not poll for readiness. If a connection is still refused
//! it tries again after a pause that is a fixed small share of the time since the launch: the error that retrying adds to a
//! cold start is bounded in proportion, whatever the cold start takes.

use crate::host::clock::monotonic_ns;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::task::AbortOnDropHandle;

/// The pause before a retry, as a share of the time since the launch: 1/200.
const PAUSE_SHARE: u64 = 200;
/// The shortest pause: a timer does not do better.
const MIN_PAUSE: Duration = Duration::from_micros(50);
/// Bytes accepted of an answer: what is inside a sandbox is not trusted.
const MAX_BODY_BYTES: usize = 64 << 20;

/// One request and how it went. Instants are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// When the first attempt began.
    pub started_ns: u64,
    /// When the connection stood.
    pub connected_ns: Option<u64>,
    /// When the head of the answer was there.
    pub first_byte_ns: Option<u64>,
    /// When the whole answer was there, or the attempt had failed.
    pub finished_ns: u64,
    /// Status of the answer.
    pub status: Option<u16>,
    /// Attempts, the last one included.
    pub attempts: u32,
    /// Length of the answer's body.
    pub body_bytes: Option<u64>,
    /// Nanoseconds that the workload says its work took.
    pub workload_ns: Option<u64>,
    /// Bytes that the workload says it read of its file.
    pub read_bytes: Option<u64>,
    /// Why there is no good answer.
    pub error: Option<String>,
}

impl Exchange {
    /// Whether the answer was whole and its status 200.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.status == Some(200)
    }
}

/// Sends `GET path` until there is an answer or the deadline has passed.
pub async fn get(address: SocketAddr, path: &str, launch_ns: u64, deadline: Instant) -> Exchange {
    let mut exchange = Exchange { started_ns: monotonic_ns(), ..Exchange::default() };
    loop {
        exchange.attempts += 1;
        let outcome = tokio::time::timeout_at(deadline, attempt(&mut exchange, address, path)).await;
        exchange.finished_ns = monotonic_ns();
        match outcome {
            Ok(Ok(())) => {
                exchange.error = exchange
                    .status
                    .filter(|&status| status != 200)
                    .map(|status| format!("http://{address}{path} answers with status {status} instead of 200"));
                return exchange;
            }
            Ok(Err(error)) => exchange.error = Some(format!("http://{address}{path}: {error:#}")),
            Err(_elapsed) => {
                let before = exchange.error.take().map_or(String::new(), |error| format!(" (before that: {error})"));
                exchange.error = Some(format!("http://{address}{path} has not answered in time{before}"));
                return exchange;
            }
        }
        let elapsed = Duration::from_nanos(exchange.finished_ns.saturating_sub(launch_ns) / PAUSE_SHARE);
        let next = Instant::now() + elapsed.max(MIN_PAUSE);
        if next >= deadline {
            return exchange;
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn attempt(exchange: &mut Exchange, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    exchange.connected_ns = Some(monotonic_ns());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    // What goes wrong with the connection reaches the request as its error.
    let driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    exchange.first_byte_ns = Some(monotonic_ns());
    exchange.status = Some(response.status().as_u16());
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer's body: {error}"))?;
    let body = body.to_bytes();
    exchange.body_bytes = Some(body.len() as u64);
    exchange.workload_ns = told(&body, "Done (", " ns)\n");
    exchange.read_bytes = told(&body, "Done (read ", " bytes)\n");
    drop(driver);
    Ok(())
}

/// The number in an answer, between what is before and behind it.
fn told(body: &[u8], before: &str, behind: &str) -> Option<u64> {
    let digits = body.strip_prefix(before.as_bytes())?.strip_suffix(behind.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Serves one connection with fixed bytes.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_timed_step_by_step() {
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        let exchange = get(address, "/hello", monotonic_ns(), in_time()).await;
        assert!(exchange.is_good(), "{exchange:?}");
        assert_eq!((exchange.body_bytes, exchange.attempts), (Some(5), 1));
        let connected = exchange.connected_ns.unwrap();
        let first_byte = exchange.first_byte_ns.unwrap();
        assert!(exchange.started_ns <= connected && connected <= first_byte && first_byte <= exchange.finished_ns);
    }

    #[test]
    fn a_workload_tells_how_long_it_worked() {
        let told_ns = |body| told(body, "Done (", " ns)\n");
        assert_eq!(told_ns(b"Done (1234 ns)\n"), Some(1234));
        for other in [&b"Done (5)\n"[..], b"Done (x ns)\n", b"", b"Done ( ns)\n", b"Done (-1 ns)\n"] {
            assert_eq!(told_ns(other), None);
        }
        assert_eq!(told(b"Done (read 52445732 bytes)\n", "Done (read ", " bytes)\n"), Some(52_445_732));
    }

    #[tokio::test]
    async fn a_bad_status_is_an_error_and_not_retried() {
        let address = server("HTTP/1.1 500 oops\r\ncontent-length: 0\r\n\r\n").await;
        let exchange = get(address, "/hello", monotonic_ns(), in_time()).await;
        assert_eq!((exchange.is_good(), exchange.status, exchange.attempts), (false, Some(500), 1));
        assert!(exchange.error.unwrap().contains("500"));
    }

    #[tokio::test]
    async fn a_refused_connection_is_retried_until_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        // Time for many more attempts than are asked for, also where others have the CPUs for most of it.
        let deadline = Instant::now() + Duration::from_millis(300);
        let exchange = get(address, "/hello", monotonic_ns(), deadline).await;
        assert!(exchange.attempts > 3, "{exchange:?}");
        assert!(exchange.error.unwrap().contains("refused"));
    }

    #[tokio::test]
    async fn a_silent_server_does_not_hold_the_client_beyond_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exchange = get(address, "/hello", monotonic_ns(), Instant::now() + Duration::from_millis(30)).await;
        assert!(exchange.error.unwrap().contains("in time"));
    }
}
