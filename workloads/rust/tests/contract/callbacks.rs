//! The callback: when it comes, what it says, and what becomes of the server when nobody wants it.

use super::{
    client::get,
    server::{Program, free_port},
};
use hyper::StatusCode;
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Time in which a second callback would come, or a message about a good one.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// The host's side: awaits callbacks.
struct Host {
    listener: TcpListener,
    url: String,
    path: &'static str,
}

impl Host {
    async fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let path = "/ready/7?attempt=1";
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        Self { listener, url, path }
    }

    /// Awaits a connection and the head of its request.
    async fn callback(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    async fn assert_no_other_callback(&self) {
        assert!(timeout(AFTERWARDS, self.listener.accept()).await.is_err(), "there should be one callback only");
    }
}

async fn answer(mut stream: TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let value = values.next();
    assert!(values.next().is_none(), "{name} should be there once: {head}");
    value
}

pub async fn callback_after_listening(program: Program) {
    let host = Host::listen().await;
    // A port that the test knows before the server prints it, so that the callback's arrival is the first sign of life.
    let port = free_port();
    let start = Instant::now();
    let mut process = program.command(&[&host.url, "--port", &port.to_string()]).spawn().unwrap();
    let (stream, head) = host.callback().await;
    let elapsed = start.elapsed();
    // Also shows that requests are answered while the callback is not.
    assert_eq!(get(port, "/hello").await.text(), "Hello from sandscope\n");
    answer(stream, "200 OK").await;
    host.assert_no_other_callback().await;
    assert_eq!(get(port, "/hello").await.status, StatusCode::OK);

    assert!(head.starts_with(&format!("GET {} HTTP/1.1\r\n", host.path)), "{head}");
    let authority = host.listener.local_addr().unwrap().to_string();
    assert_eq!(header(&head, "host"), Some(authority.as_str()));
    let since_main: u128 = header(&head, "sandscope-since-main-ns").unwrap().parse().unwrap();
    assert!((1..elapsed.as_nanos()).contains(&since_main), "{since_main} ns of {elapsed:?}");

    process.kill().await.unwrap();
    let output = process.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("listening on 0.0.0.0:{port}\n"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

pub async fn one_callback_whatever_the_answer(program: Program) {
    for status in ["204 No Content", "302 Found", "404 Not Found", "503 Service Unavailable"] {
        let host = Host::listen().await;
        let mut server = program.serve_with(&[&host.url]).await;
        let (stream, _) = host.callback().await;
        answer(stream, status).await;
        host.assert_no_other_callback().await;
        if !status.starts_with('2') {
            let line = server.next_line_of_stderr().await;
            assert!(line.contains(&host.url) && line.contains(status), "{line}");
        }
        assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
        assert_eq!(server.kill().await, "");
    }
}

pub async fn callback_refused(program: Program) {
    let Host { listener, url, .. } = Host::listen().await;
    drop(listener);
    let mut server = program.serve_with(&[&url]).await;
    let line = server.next_line_of_stderr().await;
    assert!(line.contains(&url) && line.contains("onnection refused"), "{line}");
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);

    // The other end hangs up instead of answering.
    let host = Host::listen().await;
    let mut server = program.serve_with(&[&host.url]).await;
    drop(host.callback().await);
    let line = server.next_line_of_stderr().await;
    assert!(line.contains(&host.url), "{line}");
    host.assert_no_other_callback().await;
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
}

pub async fn callback_unanswered(program: Program) {
    let host = Host::listen().await;
    let mut server = program.serve_with(&[&host.url]).await;
    let (_stream, _) = host.callback().await;
    let start = Instant::now();
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
    let line = server.next_line_of_stderr().await;
    let elapsed = start.elapsed();
    assert!(line.contains(&host.url), "{line}");
    assert!((4.5..10.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
    assert_eq!(get(server.port, "/hello").await.status, StatusCode::OK);
}
