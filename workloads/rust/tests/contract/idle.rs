//! A server without requests does not wake up.

use super::{
    client::Client,
    server::{Program, Server},
};
use std::{collections::BTreeMap, fs, time::Duration};
use tokio::time::sleep;

/// Time without wake-ups that is looked for: several periods of whatever polls.
const STILL: Duration = Duration::from_secs(2);

/// Attempts to find it. What a runtime puts off until a while after the last request, and what it does seldom enough for
/// the exceptions in the contract, disturbs some of them.
const ATTEMPTS: usize = 10;

pub async fn no_wake_ups(program: Program) {
    let server = program.serve().await;
    server.write_static_file(b"static");
    assert_still("after the start", &server).await;
    // A connection that is kept open, and threads that had work.
    let mut client = Client::connect(server.port).await;
    for path in ["/hello", "/fib?n=1000", "/fft?n=1000", "/matrix?n=20", "/alloc", "/read", "/static"] {
        client.get(path).await;
    }
    assert_still("after requests", &server).await;
}

async fn assert_still(when: &str, server: &Server) {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = sleeps(server);
        sleep(STILL).await;
        let after = sleeps(server);
        if before == after {
            return;
        }
        seen.push((before, after));
    }
    panic!("{when} the server should not wake up within {STILL:?}; times that each thread went to sleep: {seen:?}");
}

/// How often each thread has gone to sleep, which it does after each wake-up.
fn sleeps(server: &Server) -> BTreeMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let sleeps = threads.filter_map(|thread| {
        let path = thread.unwrap().path();
        // A thread may have ended since it was listed.
        let status = fs::read_to_string(path.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        Some((path.file_name().unwrap().to_string_lossy().into_owned(), count.trim().parse().unwrap()))
    });
    sleeps.collect()
}
