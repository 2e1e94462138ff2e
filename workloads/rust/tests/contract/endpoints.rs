//! What each endpoint does and refuses, except `/unzip`.

use super::{
    client::{Client, get},
    server::{Program, Speed},
};
use hyper::{
    Method, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
};
use rustix::process::{Resource, Rlimit, prlimit};
use std::{fs, time::Instant};

const MIB: u64 = 1024 * 1024;

/// Checks that all queries in which the number is missing, misspelt or out of range are refused with name, value and
/// range.
async fn refuses_bad_numbers(client: &mut Client, path: &str, name: &str, max: u64) {
    let max_text = max.to_string();
    let more = (max + 1).to_string();
    for value in ["0", "-1", "%2B1", "+1", "1.0", "0x10", "many", "", &more, "18446744073709551617"] {
        let answer = client.get(&format!("{path}?{name}={value}")).await;
        answer.assert_error(StatusCode::BAD_REQUEST, &[name, &format!("{value:?}"), "from 1 to", &max_text]);
    }
    for (query, part) in [(format!("{name}=1&{name}=2"), "twice"), ("other=1".to_owned(), "\"other\" is unknown")] {
        let answer = client.get(&format!("{path}?{query}")).await;
        answer.assert_error(StatusCode::BAD_REQUEST, &[part, name, "from 1 to", &max_text]);
    }
}

async fn refuses_missing_number(client: &mut Client, path: &str, name: &str) {
    client.get(path).await.assert_error(StatusCode::BAD_REQUEST, &["missing", name, "from 1 to"]);
}

pub async fn hello(program: Program) {
    let server = program.serve().await;
    let answer = get(server.port, "/hello").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.text(), "Hello from sandscope\n");
    assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(answer.headers[CONTENT_LENGTH], "21");
}

pub async fn fib(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    // The last is the 94th Fibonacci number, 19_740_274_219_868_223_167, less 2^64.
    for (n, value) in [(1, 1), (2, 1), (3, 2), (90, 2_880_067_194_370_816_120), (94, 1_293_530_146_158_671_551_u64)] {
        assert_eq!(client.get(&format!("/fib?n={n}")).await.text(), format!("Done ({value})\n"));
    }
    // Takes the work that it says: at most one addition per 0.1 ns.
    let start = Instant::now();
    let (n, value) = match program.speed {
        Speed::Compiled => (100_000_000, 14_139_011_350_745_967_675_u64),
        Speed::Interpreted => (10_000_000, 10_047_910_021_417_012_027_u64),
    };
    assert_eq!(client.get(&format!("/fib?n={n}")).await.text(), format!("Done ({value})\n"));
    assert!(start.elapsed().as_nanos() >= n / 10, "{:?}", start.elapsed());

    refuses_bad_numbers(&mut client, "/fib", "n", 10_000_000_000).await;
    refuses_missing_number(&mut client, "/fib", "n").await;
}

pub async fn fft(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for n in [1, 2, 3, 1000, 1009, 1024] {
        let start = Instant::now();
        let time = client.get(&format!("/fft?n={n}")).await.number_done("ns");
        assert!(u128::from(time) < start.elapsed().as_nanos(), "n = {n}: {time} ns");
    }
    // 16 * 65536 / 2 butterflies, at most one per 0.1 ns.
    let time = client.get("/fft?n=65536").await.number_done("ns");
    assert!(time > 50_000, "{time} ns");

    refuses_bad_numbers(&mut client, "/fft", "n", 1 << 24).await;
    refuses_missing_number(&mut client, "/fft", "n").await;
}

pub async fn matrix(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for n in [1, 2, 63, 64, 65] {
        let start = Instant::now();
        let time = client.get(&format!("/matrix?n={n}")).await.number_done("ns");
        assert!(u128::from(time) < start.elapsed().as_nanos(), "n = {n}: {time} ns");
    }
    // 200^3 products, at most 16 of them per 0.2 ns.
    let time = client.get("/matrix?n=200").await.number_done("ns");
    assert!(time > 100_000, "{time} ns");

    refuses_bad_numbers(&mut client, "/matrix", "n", 4096).await;
    refuses_missing_number(&mut client, "/matrix", "n").await;
}

pub async fn read(program: Program) {
    let server = program.serve().await;
    for bytes in [0, 1, 4096, 3_000_001] {
        server.write_static_file(&vec![7; bytes]);
        assert_eq!(get(server.port, "/read").await.text(), format!("Done (read {bytes} bytes)\n"));
    }
    refuses_what_is_no_file(&program, "/read").await;
}

pub async fn static_file(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for bytes in [0, 1, 4096, 3_000_001] {
        let content: Vec<u8> = (0..bytes).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        server.write_static_file(&content);
        let answer = client.get("/static").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[CONTENT_LENGTH], bytes.to_string().as_str());
        assert_eq!(answer.headers[CONTENT_TYPE], "application/octet-stream");
        assert!(answer.body == content, "the {bytes} bytes should be those of the file");
    }
    refuses_what_is_no_file(&program, "/static").await;

    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "there").unwrap();
    let server = program.serve_with(&["--static-file", elsewhere.to_str().unwrap(), "ignore"]).await;
    assert_eq!(get(server.port, "/static").await.text(), "there");
}

async fn refuses_what_is_no_file(program: &Program, path: &str) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    let answer = client.get(path).await;
    answer.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["static_file", "o such file or directory"]);
    fs::create_dir(server.path("static_file")).unwrap();
    let answer = client.get(path).await;
    answer.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["static_file", "not a regular file"]);
}

pub async fn alloc(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for mib in [1, 3] {
        assert_eq!(client.get(&format!("/alloc?mib={mib}")).await.number_done("pages"), mib * 256);
    }
    let before = server.memory_bytes("VmRSS");
    assert_eq!(client.get("/alloc").await.number_done("pages"), 50 * 256);
    let (peak, after) = (server.memory_bytes("VmHWM"), server.memory_bytes("VmRSS"));
    assert!(peak >= 50 * MIB, "the pages should have been touched: at most {peak} bytes were resident");
    assert!(after < before + 25 * MIB, "the pages should be free again: {after} bytes are resident, {before} were");

    refuses_bad_numbers(&mut client, "/alloc", "mib", 65_536).await;
}

pub async fn alloc_refused(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    client.get("/alloc?mib=1").await.number_done("pages");
    let limit = Some(server.memory_bytes("VmSize") + 256 * MIB);
    prlimit(Some(server.pid()), Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let answer = client.get("/alloc?mib=1024").await;
    answer.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["1024 MiB", "annot allocate memory"]);
    assert_eq!(client.get("/alloc?mib=1").await.number_done("pages"), 256);
}

pub async fn unknown_paths(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for path in ["/", "/hell", "/hello/", "//hello", "/%68ello", "/HELLO", "/../hello"] {
        client.get(path).await.assert_error(StatusCode::NOT_FOUND, &[path]);
    }
}

pub async fn other_methods(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    for path in ["/hello", "/fib?n=1", "/fft?n=1", "/matrix?n=1", "/read", "/alloc", "/unzip", "/static"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = client.request(method.clone(), path).await;
            answer.assert_error(StatusCode::METHOD_NOT_ALLOWED, &[method.as_str()]);
            assert_eq!(answer.headers[ALLOW], "GET");
        }
        assert_eq!(client.request(Method::HEAD, path).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
