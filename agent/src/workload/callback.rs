//! Awaits the ready callback of a workload: the event that replaces polling.

use crate::host::clock::monotonic_ns;
use anyhow::{Context, Result};
use http_body_util::Empty;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
};

/// Connections served at a time, bytes of a request, and time for one: what is inside a sandbox is not trusted.
const MAX_CONNECTIONS: usize = 8;
const MAX_REQUEST_BYTES: usize = 8192;
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Header in which the workload tells how long it had been running when its socket listened.
const SINCE_MAIN: &str = "sandscope-since-main-ns";

/// A workload that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback {
    /// When the request was read, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Who called.
    pub from: IpAddr,
    /// Nanoseconds between the start of its `main` and its socket listening, by the workload's own clock, if it told.
    pub since_main_ns: Option<u64>,
}

/// A socket of the host that awaits callbacks of one instance.
pub struct Receiver {
    listener: TcpListener,
    path: String,
}

impl Receiver {
    /// Listens at an address of the host for the callback of the instance `label`.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(address: IpAddr, port: u16, label: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, port)).await.with_context(|| {
            format!("can't await the ready callback at {address}:{port}; choose another port with --callback-port")
        })?;
        Ok(Self { listener, path: path(label) })
    }

    /// Waits for the first callback. Requests for anything else are answered with 404.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn wait(&self) -> Result<Callback> {
        let (found, places) = (Found::default(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = found.0.1.notified() => {
                    if let Some(callback) = found.get() {
                        // Let the answer out, so that the workload does not see a broken connection.
                        connections.detach_all();
                        return Ok(callback);
                    }
                }
                accepted = self.listener.accept() => {
                    let (stream, from) = accepted.context("the socket for ready callbacks failed")?;
                    // With no place left the connection is closed.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (found, path) = (found.clone(), self.path.clone());
                    connections.spawn(async move {
                        let answer = service_fn(move |request| {
                            let answer = found.answer(&request, &path, from.ip());
                            async { Ok::<_, Infallible>(answer) }
                        });
                        let mut server = http1::Builder::new();
                        server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).max_buf_size(MAX_REQUEST_BYTES);
                        let serve = server.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
                        // A connection that breaks is the sandbox's affair; the callback either came or did not.
                        let _ = tokio::time::timeout(REQUEST_TIME, serve).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

/// What the path of every callback begins with; an argument that holds it is a workload's.
pub const CALLBACK_PATH: &str = "/ready/";

/// URL at which an instance calls back.
pub fn url(address: IpAddr, port: u16, label: &str) -> String {
    format!("http://{address}:{port}{}", path(label))
}

fn path(label: &str) -> String {
    format!("{CALLBACK_PATH}{label}")
}

/// Where a connection leaves the callback for [`Receiver::wait`].
#[derive(Clone, Default)]
struct Found(Arc<(std::sync::OnceLock<Callback>, Notify)>);

impl Found {
    fn get(&self) -> Option<Callback> {
        self.0.0.get().copied()
    }

    fn answer(&self, request: &Request<Incoming>, path: &str, from: IpAddr) -> Response<Empty<Bytes>> {
        let at_ns = monotonic_ns();
        let mut response = Response::new(Empty::new());
        if request.uri().path() == path {
            let since_main = request.headers().get(SINCE_MAIN).and_then(|value| value.to_str().ok()?.parse().ok());
            // Only the first callback counts.
            let _ = self.0.0.set(Callback { at_ns, from, since_main_ns: since_main });
            self.0.1.notify_one();
        } else {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::client::get;
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::time::Instant;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn only_the_callback_of_the_instance_counts() {
        let receiver = Receiver::bind(LOCALHOST, 0, "abc").await.unwrap();
        let port = receiver.listener.local_addr().unwrap().port();
        let caller = tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(5);
            let address = SocketAddr::new(LOCALHOST, port);
            let other = get(address, "/ready/other", 0, deadline).await;
            let own = get(address, "/ready/abc", 0, deadline).await;
            (other.status, own.status)
        });
        let before = monotonic_ns();
        let callback = receiver.wait().await.unwrap();
        assert!(callback.at_ns > before && callback.since_main_ns.is_none());
        assert_eq!(callback.from, LOCALHOST);
        assert_eq!(caller.await.unwrap(), (Some(404), Some(200)));
    }

    #[tokio::test]
    async fn connections_that_say_nothing_do_not_keep_others_out_for_ever() {
        let receiver = Receiver::bind(LOCALHOST, 0, "abc").await.unwrap();
        let address = receiver.listener.local_addr().unwrap();
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let caller = tokio::spawn(async move { get(address, "/ready/abc", 0, deadline).await });
        receiver.wait().await.unwrap();
        assert!(caller.await.unwrap().is_good());
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let first = Receiver::bind(LOCALHOST, 0, "a").await.unwrap();
        let port = first.listener.local_addr().unwrap().port();
        let Err(error) = Receiver::bind(LOCALHOST, port, "b").await else { panic!("the port was free") };
        let text = format!("{error:#}");
        assert!(text.contains(&port.to_string()) && text.contains("--callback-port"), "{text}");
    }
}
