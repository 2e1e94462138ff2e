//! An object store of the test's own, which speaks the protocol of S3 and keeps objects as files: `s3s-fs`, in front of which a
//! gate can refuse requests or let them wait for ever.

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use s3s::{
    Body, HttpError,
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const KEY: &str = "a-key";
pub const SECRET: &str = "a-secret";
/// The only bucket.
pub const BUCKET: &str = "results-bucket";

/// What happens to writes; both count down.
#[derive(Default)]
pub struct Gate {
    /// So many are refused as by a server that is overloaded.
    pub refuse: AtomicI64,
    /// So many get an answer, and no more when this is set.
    pub answer: AtomicI64,
    /// Whether `answer` counts.
    pub closes: AtomicI64,
}

/// The server; its thread ends with the test.
pub struct Server {
    home: TempDir,
    address: SocketAddr,
    pub gate: Arc<Gate>,
}

impl Server {
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(home.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let (service, gate) = (builder.build(), Arc::new(Gate::default()));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let at_gate = Arc::clone(&gate);
        thread::spawn(move || serve(listener, service, at_gate));
        Self { home, address, gate }
    }

    /// Tells a command how to reach it.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
    }

    /// Where the objects below a path of the bucket are.
    pub fn files(&self, path: &str) -> PathBuf {
        self.home.path().join(BUCKET).join(path)
    }
}

fn serve(listener: std::net::TcpListener, service: S3Service, gate: Arc<Gate>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            let (service, gate) = (service.clone(), Arc::clone(&gate));
            let answer = service_fn(move |request| answer(request, service.clone(), Arc::clone(&gate)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
        }
    });
}

async fn answer(request: Request<Incoming>, service: S3Service, gate: Arc<Gate>) -> Result<Response<Body>, HttpError> {
    if request.method() == hyper::Method::PUT {
        // The server would make a bucket of any name; S3 answers so.
        if !request.uri().path().starts_with(&format!("/{BUCKET}/")) {
            let body = "<Error><Code>NoSuchBucket</Code></Error>".to_owned();
            return Ok(Response::builder().status(404).body(Body::from(body)).unwrap());
        }
        if gate.refuse.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(Response::builder().status(503).body(Body::empty()).unwrap());
        }
        if gate.closes.load(Ordering::SeqCst) > 0 && gate.answer.fetch_sub(1, Ordering::SeqCst) <= 0 {
            pending::<()>().await;
        }
    }
    hyper::service::Service::call(&service, request).await
}

/// The names of all files below a folder, with another name instead of the run's, sorted. Those of the server's own are left out.
pub fn names(folder: &Path, run: &str) -> Vec<String> {
    let list = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
            .collect::<Vec<_>>()
    };
    let files = list(folder).into_iter().flat_map(|table| list(&table)).flat_map(|run| list(&run));
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap().to_string_lossy().replace(run, "RUN");
    let mut names: Vec<_> = files.map(name).collect();
    names.sort();
    names
}
