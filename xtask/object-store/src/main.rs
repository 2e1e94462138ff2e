//! An object store for the tests: `s3s-fs`, which speaks the protocol of S3 and keeps objects as files, behind a gate that can
//! refuse writes or let them wait for ever.
//!
//! A package of its own, because what `s3s` depends on would have other features in the agent's tests than in the agent, and be
//! compiled twice with all that depends on it. `object-store-server FOLDER BUCKET KEY SECRET` prints the address it listens at. Its
//! input is the gate, a line each, answered by `ok`:
//!
//! - `refuse N`: the next N writes are refused as by a server that is overloaded;
//! - `answer N`: N more writes are answered; whoever writes then waits, and `stuck` is printed;
//! - `answer all`: they are answered again.
//!
//! It ends with its input.

#![allow(clippy::print_stdout, reason = "that is how it answers")]

use anyhow::{Context as _, Result, bail};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use s3s::{
    Body, HttpError,
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use std::{cell::Cell, future::pending, net::Ipv4Addr, rc::Rc};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    net::TcpListener,
    task::{LocalSet, spawn_local},
};

/// What happens to writes; each number counts down.
#[derive(Default)]
struct Gate {
    refuse: Cell<u64>,
    /// `None`: all are answered.
    answer: Cell<Option<u64>>,
}

/// What becomes of one write.
enum Fate {
    Answer,
    Refuse,
    Wait,
}

impl Gate {
    fn next(&self) -> Fate {
        if self.refuse.get() > 0 {
            self.refuse.set(self.refuse.get() - 1);
            return Fate::Refuse;
        }
        match self.answer.get() {
            Some(0) => return Fate::Wait,
            left => self.answer.set(left.map(|left| left - 1)),
        }
        Fate::Answer
    }

    fn set(&self, line: &str) -> Result<()> {
        match line.split_once(' ') {
            Some(("refuse", count)) => self.refuse.set(count.parse()?),
            Some(("answer", "all")) => self.answer.set(None),
            Some(("answer", count)) => self.answer.set(Some(count.parse()?)),
            _ => bail!("`{line}` is neither `refuse N` nor `answer N` nor `answer all`"),
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, bucket, key, secret] = &arguments[..] else {
        bail!("usage: object-store-server FOLDER BUCKET KEY SECRET")
    };
    let files = s3s_fs::FileSystem::new(folder).map_err(|error| anyhow::anyhow!("can't serve {folder}: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(key.as_str(), secret.as_str()));
    let (service, gate, bucket) = (builder.build(), Rc::new(Gate::default()), Rc::from(bucket.as_str()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("can't listen")?;
        println!("{}", listener.local_addr()?);
        spawn_local(serve(listener, service, Rc::clone(&gate), bucket));
        let mut lines = BufReader::new(stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            gate.set(&line)?;
            println!("ok");
        }
        Ok(())
    })
}

async fn serve(listener: TcpListener, service: S3Service, gate: Rc<Gate>, bucket: Rc<str>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (service, gate, bucket) = (service.clone(), Rc::clone(&gate), Rc::clone(&bucket));
        let answer = service_fn(move |request| answer(request, service.clone(), Rc::clone(&gate), Rc::clone(&bucket)));
        spawn_local(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
    }
}

async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    gate: Rc<Gate>,
    bucket: Rc<str>,
) -> Result<Response<Body>, HttpError> {
    let refusal = |status, text: &str| {
        let mut response = Response::new(Body::from(text.to_owned()));
        *response.status_mut() = status;
        Ok(response)
    };
    if request.method() == hyper::Method::PUT {
        // The server would make a bucket of any name; S3 answers so.
        if !request.uri().path().starts_with(&format!("/{bucket}/")) {
            return refusal(hyper::StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>");
        }
        match gate.next() {
            Fate::Answer => {}
            Fate::Refuse => return refusal(hyper::StatusCode::SERVICE_UNAVAILABLE, ""),
            Fate::Wait => {
                println!("stuck");
                pending::<()>().await;
            }
        }
    }
    hyper::service::Service::call(&service, request).await
}
