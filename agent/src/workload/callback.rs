//! Awaits the ready callback of a workload: the event that replaces polling.

use crate::host::clock::monotonic_ns;
use anyhow::{Context, Result, bail};
use http_body_util::Empty;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// Connections served at a time for each who waits, bytes of a request, and time for one: what is inside a sandbox is not trusted.
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

/// Awaits the callback of one instance at an address of the host. Instances that share the address, such as the containers of a
/// Docker daemon, share the socket.
pub struct Receiver {
    socket: Arc<Socket>,
    path: String,
    found: Found,
}

/// A listening socket, as long as somebody awaits something at it.
struct Socket {
    address: SocketAddr,
    waiting: Waiting,
    _server: AbortOnDropHandle<()>,
}

/// Who waits, by the path of the callback.
type Waiting = Arc<Mutex<BTreeMap<String, Found>>>;

/// The sockets of this process.
static SOCKETS: Mutex<Vec<Weak<Socket>>> = Mutex::new(Vec::new());

impl Receiver {
    /// Listens at an address of the host for the callback of the instance `label`. Needs a runtime of tokio's.
    ///
    /// # Errors
    /// When somebody else has the port.
    pub fn bind(address: IpAddr, port: u16, label: &str) -> Result<Self> {
        let (path, found) = (path(label), Found::default());
        let socket = Socket::at(SocketAddr::new(address, port)).with_context(|| {
            format!("can't await the ready callback at {address}:{port}; choose another port with --callback-port")
        })?;
        lock(&socket.waiting).insert(path.clone(), found.clone());
        Ok(Self { socket, path, found })
    }

    /// Waits for the first callback. Requests for anything that nobody waits for are answered with 404.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn wait(&self) -> Result<Callback> {
        loop {
            match self.found.get() {
                Some(Ok(callback)) => return Ok(callback),
                Some(Err(error)) => bail!("the socket for ready callbacks failed: {error}"),
                None => self.found.0.1.notified().await,
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        lock(&self.socket.waiting).remove(&self.path);
    }
}

impl Socket {
    /// The one at this address, or a new one; at port 0 always a new one.
    fn at(address: SocketAddr) -> io::Result<Arc<Self>> {
        let mut sockets = lock(&SOCKETS);
        sockets.retain(|socket| socket.strong_count() > 0);
        if let Some(open) = sockets.iter().filter_map(Weak::upgrade).find(|socket| socket.address == address) {
            return Ok(open);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let (address, waiting) = (listener.local_addr()?, Waiting::default());
        let server = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&waiting))));
        let socket = Arc::new(Self { address, waiting, _server: server });
        sockets.push(Arc::downgrade(&socket));
        Ok(socket)
    }
}

/// Serves whoever connects, until the socket fails.
async fn serve(listener: TcpListener, waiting: Waiting) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                lock(&waiting).values().for_each(|found| found.tell(Err(error.to_string())));
                return;
            }
        };
        while connections.try_join_next().is_some() {}
        // With no place left the connection is closed.
        if connections.len() >= MAX_CONNECTIONS * lock(&waiting).len() {
            continue;
        }
        let waiting = Arc::clone(&waiting);
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&waiting, &request, from.ip());
                async { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).max_buf_size(MAX_REQUEST_BYTES);
            let serve = server.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            // A connection that breaks is the sandbox's affair; the callback either came or did not.
            let _ = tokio::time::timeout(REQUEST_TIME, serve).await;
        });
    }
}

fn answer(waiting: &Waiting, request: &Request<Incoming>, from: IpAddr) -> Response<Empty<Bytes>> {
    let at_ns = monotonic_ns();
    let mut response = Response::new(Empty::new());
    if let Some(found) = lock(waiting).get(request.uri().path()) {
        let since_main = request.headers().get(SINCE_MAIN).and_then(|value| value.to_str().ok()?.parse().ok());
        found.tell(Ok(Callback { at_ns, from, since_main_ns: since_main }));
    } else {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

/// Nothing panics while it holds one of these locks, and what they protect is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
struct Found(Arc<(OnceLock<Result<Callback, String>>, Notify)>);

impl Found {
    fn get(&self) -> Option<Result<Callback, String>> {
        self.0.0.get().cloned()
    }

    /// Only the first time counts.
    fn tell(&self, outcome: Result<Callback, String>) {
        let _ = self.0.0.set(outcome);
        self.0.1.notify_one();
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
        let receiver = Receiver::bind(LOCALHOST, 0, "abc").unwrap();
        let port = receiver.socket.address.port();
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
        let receiver = Receiver::bind(LOCALHOST, 0, "abc").unwrap();
        let address = receiver.socket.address;
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
    async fn instances_that_share_an_address_of_the_host_share_its_socket() {
        let first = Receiver::bind(LOCALHOST, 0, "first").unwrap();
        let address = first.socket.address;
        let second = Receiver::bind(LOCALHOST, address.port(), "second").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(get(address, "/ready/second", 0, deadline).await.is_good());
        second.wait().await.unwrap();
        assert!(first.found.get().is_none());
        drop(second);
        assert_eq!(get(address, "/ready/second", 0, deadline).await.status, Some(404));
        assert!(get(address, "/ready/first", 0, deadline).await.is_good());
        first.wait().await.unwrap();
        drop(first);
        // The port is free again.
        tokio::task::yield_now().await;
        std::net::TcpListener::bind(address).unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let first = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let Err(error) = Receiver::bind(LOCALHOST, port, "b") else { panic!("the port was free") };
        let text = format!("{error:#}");
        assert!(text.contains(&port.to_string()) && text.contains("--callback-port"), "{text}");
    }
}
