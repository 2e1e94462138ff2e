//! The process: its command line, its end, its standard output.

use super::{
    client::{Client, get},
    server::{Program, free_port},
};
use hyper::StatusCode;
use rustix::process::{Signal, kill_process};
use std::{
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::sleep};

pub async fn usage(program: Program) {
    for (arguments, part) in [
        (&[][..], "callback URL is missing"),
        (&["--port", "80"], "callback URL is missing"),
        (&["ignore", "--port"], "port"),
        (&["ignore", "--port", "65536"], "from 0 to 65535"),
        (&["ignore", "--port", "-1"], "from 0 to 65535"),
        (&["ignore", "--port", "http"], "\"http\""),
        (&["ignore", "--static-file", ""], "static-file"),
        (&["ignore", "--scratch"], "scratch"),
        (&["ignore", "--frobnicate"], "frobnicate"),
        (&["ignore", "ignore"], "unexpected argument \"ignore\""),
    ] {
        let ended = program.run(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        for part in [part, "usage: ", "CALLBACK-URL|ignore"] {
            assert!(ended.stderr.contains(part), "{arguments:?} should give {part:?}: {}", ended.stderr);
        }
    }
    let ended = program.run(&["--help"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.starts_with("usage: "), "{}", ended.stdout);
}

pub async fn mistaken_callbacks(program: Program) {
    for (url, part) in [
        ("https://10.0.0.1/", "http://"),
        ("10.0.0.1:3000", ""),
        ("ready", "http://"),
        ("", ""),
        ("http://", ""),
        ("http://localhost:3000/", "IPv4 address"),
        ("http://[::1]:3000/", "IPv4 address"),
        ("http://name@10.0.0.1/", "IPv4 address"),
        ("http://10.0.0.1:/", "IPv4 address"),
        ("http://10.0.0.1:65536/", ""),
        ("http://10.0.0.256/", "IPv4 address"),
    ] {
        let ended = program.run(&[url, "--port", "0"]).await;
        assert_eq!(ended.code, Some(2), "{url:?}: {}", ended.stderr);
        let message = format!("the callback URL {url:?} can't be used: ");
        assert!(ended.stderr.starts_with(&message) && ended.stderr.contains(part), "{url:?}: {}", ended.stderr);
    }
}

pub async fn busy_port(program: Program) {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // Whoever else uses the default port makes it as busy as this test would.
    let _default = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080));
    for (arguments, port) in [(&["ignore", "--port", &port][..], port.as_str()), (&["ignore"], "8080")] {
        let ended = program.run(arguments).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
        for part in [&format!("0.0.0.0:{port}"), "ddress already in use"] {
            assert!(ended.stderr.contains(part), "{part:?} should be in {}", ended.stderr);
        }
    }
}

pub async fn signals(program: Program) {
    /// Ends of which one has to be quick: in the others, somebody else may have had the machine.
    const ATTEMPTS: usize = 3;
    let works =
        [None, Some("/fib?n=10000000000"), Some("/fft?n=1048576"), Some("/matrix?n=2000"), Some("/alloc?mib=512")];
    for signal in [Signal::TERM, Signal::INT] {
        for work in works {
            let mut took = Vec::new();
            while took.len() < ATTEMPTS && took.iter().all(|took| *took >= Duration::from_secs(1)) {
                took.push(end_during(&program, signal, work).await);
            }
            let best = took.iter().min().unwrap();
            assert!(*best < Duration::from_secs(1), "{signal:?} during {work:?}: {took:?}");
        }
    }
}

/// How long a server takes to end after a signal that comes while it works at something.
async fn end_during(program: &Program, signal: Signal, work: Option<&'static str>) -> Duration {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    client.get("/hello").await;
    let working = tokio::spawn(async move {
        if let Some(path) = work {
            client.get(path).await;
        }
    });
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    kill_process(server.pid(), signal).unwrap();
    // A code and not a signal: a handler has been installed.
    assert_eq!(server.end().await.code(), Some(0), "{signal:?} during {work:?}");
    let took = start.elapsed();
    working.abort();
    took
}

pub async fn closed_outputs(program: Program) {
    let port = free_port();
    // It calls back to itself, who does not know the path: a failure that it has to write about.
    let mut command = program.command(&[&format!("http://127.0.0.1:{port}/nowhere"), "--port", &port.to_string()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let _process =
        command.stdout(Stdio::from(writer.try_clone().unwrap())).stderr(Stdio::from(writer)).spawn().unwrap();
    for _ in 0..200 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(get(port, "/hello").await.status, StatusCode::OK);
}
