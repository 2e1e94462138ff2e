//! Connections: kept alive, many at a time, with heads that are too large, while work is going on.

use super::{
    client::{Client, get},
    server::Program,
};
use hyper::StatusCode;
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Longer than the five seconds after which some servers close a connection if nobody tells them otherwise.
const PAUSE: Duration = Duration::from_secs(7);

pub async fn keep_alive(program: Program) {
    let server = program.serve().await;
    server.write_static_file(b"static");
    // A client is one connection, and fails when the server closes it.
    let mut client = Client::connect(server.port).await;
    for (path, status) in [
        ("/hello", StatusCode::OK),
        ("/fib", StatusCode::BAD_REQUEST),
        ("/nowhere", StatusCode::NOT_FOUND),
        ("/static", StatusCode::OK),
        ("/unzip", StatusCode::INTERNAL_SERVER_ERROR),
        ("/fib?n=5", StatusCode::OK),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    tokio::time::sleep(PAUSE).await;
    assert_eq!(client.get("/hello").await.status, StatusCode::OK);
}

pub async fn many_connections(program: Program) {
    const CONNECTIONS: usize = 200;
    let server = program.serve().await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(server.port).await);
    }
    for _ in 0..3 {
        let mut requests = JoinSet::new();
        for mut client in clients.drain(..) {
            requests.spawn(async move {
                assert_eq!(client.get("/hello").await.text(), "Hello from sandscope\n");
                client
            });
        }
        clients = requests.join_all().await;
        assert_eq!(clients.len(), CONNECTIONS);
    }
}

pub async fn large_heads(program: Program) {
    const LONGEST: usize = 256 << 20;
    let server = program.serve().await;
    let send = async |length: usize| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).await.unwrap();
        let value = "a".repeat(length);
        let request = format!("GET /hello HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\nX: {value}\r\n\r\n");
        // The server may hang up in the middle of it, by which the start of its answer may be lost as well.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end should come");
        String::from_utf8(answer).unwrap()
    };
    let answer = send(8 * 1024).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let before = server.memory_bytes("VmHWM");
    for length in [20 * 1024, LONGEST] {
        let answer = send(length).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let peak = server.memory_bytes("VmHWM");
    // A runtime's own heap may grow meanwhile, but what is refused is not kept.
    assert!(peak < before + LONGEST as u64 / 4, "{peak} bytes were resident at most, {before} of them before");
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
}

pub async fn answers_during_work(program: Program) {
    let server = program.serve().await;
    let mut busy = Client::connect(server.port).await;
    let work = tokio::spawn(async move { busy.get("/fib?n=10000000000").await });
    // Long enough for the work to have begun; it takes seconds.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
    // Work that is not over says that the answer did not wait for it; how long the answer takes is also up to what else the machine
    // does.
    assert!(!work.is_finished());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
