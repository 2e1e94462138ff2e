//! The load generator against servers whose behaviour is known.

use super::*;
use crate::testing::skip;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn load(address: SocketAddr) -> Load {
    Load {
        address,
        path: "/hello".to_owned(),
        connections: 2,
        keep_alive: true,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        window: Duration::from_millis(300),
        timeout: Duration::from_secs(2),
        cpus: None,
    }
}

/// Answers each request with these bytes, until a hook ends the connection.
async fn server(answer: &'static [u8], before: impl AsyncFn() + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(answer_all(stream, answer, before));
        }
    });
    address
}

async fn answer_all(mut stream: TcpStream, answer: &'static [u8], before: impl AsyncFn()) {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend(&buffer[..read]);
        if request.ends_with(b"\r\n\r\n") {
            before().await;
            if stream.write_all(answer).await.is_err() {
                return;
            }
            let closes = request.windows(5).any(|part| part == b"close");
            request.clear();
            if closes {
                return;
            }
        }
    }
}

fn on_a_thread(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn a_closed_loop_counts_every_answer() {
    on_a_thread(async || {
        let address = server(HELLO, async || ()).await;
        for keep_alive in [true, false] {
            let tally = Load { keep_alive, ..load(address) }.run(CancellationToken::new()).await.unwrap();
            assert!(tally.good_count() > 20, "{tally:?}");
            assert_eq!(tally.bad_count(), 0, "{tally:?}");
            assert_eq!(tally.body_bytes, 5 * tally.good_count());
            assert_eq!(tally.statuses[&200], tally.good_count());
        }
    });
}

#[test]
fn a_counted_loop_ends_with_its_last_answer() {
    on_a_thread(async || {
        let address = server(HELLO, async || ()).await;
        let (pace, window) = (Pace::Count { requests: 37 }, Duration::from_secs(60));
        let tally = Load { pace, window, ..load(address) }.run(CancellationToken::new()).await.unwrap();
        assert_eq!((tally.good_count(), tally.bad_count(), tally.body_bytes), (37, 0, 5 * 37), "{tally:?}");
        assert!(tally.end_ns - tally.start_ns < 10_000_000_000, "the window ends with the last answer");
    });
}

#[test]
fn an_open_loop_sends_what_is_due_and_a_stall_shows_as_arithmetic_says() {
    const TEST: &str = "an_open_loop_sends_what_is_due_and_a_stall_shows_as_arithmetic_says";
    const TRIES: usize = 5;
    on_a_thread(async || {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            // What waits without a stall does so for others on this host, and some of it would have with one as well.
            let usual = load_on_a_server_that_stalls(Duration::ZERO).await;
            let tally = load_on_a_server_that_stalls(Duration::from_millis(200)).await;
            let counts = (tally.good_count(), tally.bad_count(), tally.unsent_count);
            assert_eq!(counts, (500, 0, 0), "{tally:?}");
            // No answer takes less than a microsecond: a request that is sent before it is due would seem to.
            assert!(tally.latencies.min() >= 1000, "{} ns", tally.latencies.min());
            // 100 requests are due within the stall; the first waits for all of it, the last hardly, evenly in between.
            let slower =
                |of: &Tally, limit_ms: u64| of.latencies.count_between(limit_ms * 1_000_000, of.latencies.max());
            let (waited, long) = (slower(&tally, 5), slower(&tally, 100));
            let longest_ms = tally.latencies.max() / 1_000_000;
            assert!(waited >= 95 && long >= 45 && longest_ms >= 195, "{waited}, {long}, {longest_ms} ms");
            let without = (slower(&usual, 5), slower(&usual, 100), usual.latencies.max() / 1_000_000);
            let more = (
                waited.saturating_sub(without.0),
                long.saturating_sub(without.1),
                longest_ms.saturating_sub(without.2),
            );
            if more.0 <= 130 && more.1 <= 65 && more.2 < 260 {
                return;
            }
            let usual_us = usual.latencies.value_at_quantile(0.5) / 1000;
            seen.push((more, without, usual_us));
        }
        // Others on this host make requests wait, too: once it must have been the stall alone.
        let usual_us = seen.iter().map(|&(.., usual_us)| usual_us).min().unwrap();
        assert!(usual_us >= 500, "more waited than the stall explains: {seen:?}");
        skip(TEST, "pace", format_args!("an answer takes {usual_us} µs here: what waited is answered too slowly"));
    });
}

/// 500 requests in a second, and a stall of so long in its middle: all that comes meanwhile waits for its end.
async fn load_on_a_server_that_stalls(stall: Duration) -> Tally {
    let stalls_at = tokio::time::Instant::now() + Duration::from_millis(400);
    let before = async move || {
        let now = tokio::time::Instant::now();
        if now >= stalls_at && now < stalls_at + stall {
            tokio::time::sleep_until(stalls_at + stall).await;
        }
    };
    let address = server(HELLO, before).await;
    let window = Duration::from_secs(1);
    let load = Load { pace: Pace::Open { rate: 500.0 }, window, ..load(address) };
    load.run(CancellationToken::new()).await.unwrap()
}

#[test]
fn chunked_answers_and_such_until_the_end_are_read_whole() {
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    on_a_thread(async || {
        let address = server(CHUNKED, async || ()).await;
        let tally = load(address).run(CancellationToken::new()).await.unwrap();
        assert_eq!((tally.bad_count(), tally.body_bytes), (0, 11 * tally.good_count()), "{tally:?}");
        let address = server(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", async || ()).await;
        let tally = Load { keep_alive: false, ..load(address) }.run(CancellationToken::new()).await.unwrap();
        assert_eq!((tally.bad_count(), tally.body_bytes), (0, 13 * tally.good_count()), "{tally:?}");
    });
}

#[test]
fn what_goes_wrong_is_counted_by_reason_and_never_hangs() {
    on_a_thread(async || {
        let bad = [
            (&b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"[..], None),
            (&b"SSH-2.0-OpenSSH\r\n\r\n"[..], Some("no HTTP")),
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhello"[..], Some("longer than it says")),
            (&b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"[..], Some("no number")),
            (&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"[..], Some("no chunks")),
        ];
        for (answer, reason) in bad {
            let address = server(answer, async || ()).await;
            let tally = load(address).run(CancellationToken::new()).await.unwrap();
            assert!(tally.good_count() == 0 && tally.bad_count() > 0, "{tally:?}");
            match reason {
                None => assert!(tally.statuses[&503] > 0),
                Some(reason) => assert!(tally.errors.keys().all(|error| error.contains(reason)), "{:?}", tally.errors),
            }
        }
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let timeout = Duration::from_millis(100);
        let tally = Load { timeout, ..load(silent.local_addr().unwrap()) }.run(CancellationToken::new()).await.unwrap();
        assert!(tally.errors["no answer in time"] > 0, "{tally:?}");
        let address = silent.local_addr().unwrap();
        drop(silent);
        let tally = load(address).run(CancellationToken::new()).await.unwrap();
        assert!(tally.errors.keys().all(|error| error.contains("refused")), "{tally:?}");
    });
}

#[test]
fn a_load_that_makes_no_sense_is_refused() {
    on_a_thread(async || {
        let good = load(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let bad = [
            (Load { connections: 0, ..good.clone() }, "0 connections"),
            (Load { connections: 5000, ..good.clone() }, "4096"),
            (Load { pace: Pace::Open { rate: -1.0 }, ..good.clone() }, "rate of -1"),
            (Load { pace: Pace::Open { rate: f64::NAN }, ..good.clone() }, "rate of NaN"),
            (Load { path: "hello".to_owned(), ..good.clone() }, "does not start with /"),
        ];
        for (load, reason) in bad {
            let error = load.run(CancellationToken::new()).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    });
}

/// The same in pieces of so many bytes, each in a segment of its own where the sender is quicker than the reader.
async fn dribbling_server(answer: Vec<u8>, piece: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                    for piece in answer.chunks(piece) {
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    });
    address
}

/// So many chunks of this length, in the chunked coding.
fn chunked(count: usize, length: usize) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..count {
        answer.extend(format!("{length:x}\r\n").into_bytes());
        answer.extend(vec![b'\r'; length]);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

#[test]
fn chunks_longer_than_a_buffer_are_read_whole_however_they_arrive() {
    on_a_thread(async || {
        // Pieces end within lines, within chunks and in the middle of the break between two.
        for (count, length, piece) in [(20, 70_000, usize::MAX), (20, 70_000, 65_537), (3, 65_535, 4099), (40, 17, 1)] {
            let address = dribbling_server(chunked(count, length), piece).await;
            let tally = load(address).run(CancellationToken::new()).await.unwrap();
            let body_bytes = (count * length) as u64 * tally.good_count();
            assert!(tally.good_count() > 0 && tally.bad_count() == 0, "{length} by {piece}: {tally:?}");
            assert_eq!(tally.body_bytes, body_bytes, "{length} by {piece}: {tally:?}");
        }
    });
}

#[test]
fn what_may_come_before_and_behind_chunks_is_no_part_of_them() {
    let answers = [
        // A trailer and an extension; a length beside chunks; a coding before them; hints before the answer itself.
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nx-sum: 1\r\nx-end: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n00005\r\nhello\r\n000\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ];
    on_a_thread(async || {
        for (answer, piece) in answers.iter().flat_map(|answer| [(answer, 1), (answer, 4096)]) {
            let address = dribbling_server(answer.as_bytes().to_vec(), piece).await;
            let tally = load(address).run(CancellationToken::new()).await.unwrap();
            assert!(tally.good_count() > 1 && tally.bad_count() == 0, "{answer}: {tally:?}");
            assert_eq!(tally.body_bytes, 5 * tally.good_count(), "{answer}: {tally:?}");
        }
    });
}

#[test]
fn chunks_that_are_none_are_refused_by_reason() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let bad = [
        ("5\r\nhelloXX0\r\n\r\n", "no chunks"),
        ("ffffffffffffffff\r\n", "within the answer"),
        ("5\r\nhel", "within the answer"),
        ("5\r\nhello\r\n0\r\n\r\nmore", "longer than it says"),
        ("5\r\nhello\r\n0\r\n", "within the answer"),
    ];
    on_a_thread(async || {
        for (body, reason) in bad {
            let answer: &'static str = format!("{head}{body}").leak();
            let address = server(answer.as_bytes(), async || ()).await;
            // The server ends the connection behind its answer, so that nothing is waited for.
            let tally = Load { keep_alive: false, ..load(address) }.run(CancellationToken::new()).await.unwrap();
            assert!(tally.good_count() == 0 && tally.bad_count() > 0, "{body}: {tally:?}");
            assert!(tally.errors.keys().all(|error| error.contains(reason)), "{body}: {:?}", tally.errors);
        }
    });
}
