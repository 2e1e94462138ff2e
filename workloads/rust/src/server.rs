//! The socket: listening, accepting, one task per connection.

use crate::{
    endpoint::{self, Files},
    note,
};
use anyhow::{Context, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

/// Connections that may wait to be accepted; the kernel lowers it to its `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Largest head of a request: request line and headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Pause after a connection could not be accepted, which is when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Listens on all IPv4 addresses. Must be called inside the runtime.
///
/// # Errors
/// When the port is taken, or not allowed.
pub fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let attempt = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    attempt().with_context(|| format!("can't listen on {address} (--port takes another port)"))
}

/// Serves until a signal ends the process.
pub async fn serve(listener: TcpListener, files: Files) -> Infallible {
    let files = Arc::new(files);
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&files)));
            }
            Err(error) => {
                if !told {
                    note(format_args!("connections have to wait (said once): {error}"));
                    told = true;
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection, in their order. When it breaks, that is the client's affair.
///
/// It has no time limits: their timers would wake a server that is measured for how often it wakes up.
async fn connection(stream: TcpStream, files: Arc<Files>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let files = Arc::clone(&files);
        async move { Ok::<_, Infallible>(endpoint::answer(&request, &files).await) }
    });
    let _ = http1::Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
