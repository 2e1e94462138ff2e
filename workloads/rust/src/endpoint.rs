//! What the server can be asked to do: paths, their parameters, and how each outcome is answered.

use crate::{
    compute, memory,
    parameter::Parameter,
    static_file::{self, FileBody},
    unzip::{self, Limits},
};
use anyhow::{Context, Result};
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use std::{fmt::Display, path::PathBuf, sync::Arc};

/// Pieces of work that run at the same time, each on a thread of its own; more of them wait.
pub const MAX_CONCURRENT_WORK: usize = 64;

/// What the file endpoints work on.
#[derive(Debug)]
pub struct Files {
    /// File that `/static` and `/read` deliver and `/unzip` extracts.
    pub static_file: PathBuf,
    /// Directory that `/unzip` empties and fills.
    pub scratch: PathBuf,
}

/// Body of a response: a text, or the static file.
pub type Body = Either<Full<Bytes>, FileBody>;

const FIB: Parameter = Parameter { name: "n", range: 1..=10_000_000_000, default: None };
const FFT: Parameter = Parameter { name: "n", range: 1..=1 << 24, default: None };
const MATRIX: Parameter = Parameter { name: "n", range: 1..=4096, default: None };
const ALLOC: Parameter = Parameter { name: "mib", range: 1..=65_536, default: Some(50) };

#[derive(Clone, Copy)]
enum Endpoint {
    Hello,
    Fib,
    Fft,
    Matrix,
    Read,
    Alloc,
    Unzip,
    Static,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/hello" => Self::Hello,
            "/fib" => Self::Fib,
            "/fft" => Self::Fft,
            "/matrix" => Self::Matrix,
            "/read" => Self::Read,
            "/alloc" => Self::Alloc,
            "/unzip" => Self::Unzip,
            "/static" => Self::Static,
            _ => return None,
        })
    }
}

enum Failure {
    /// The request is wrong.
    Request(String),
    /// The request is right, but the work can't be done.
    Work(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}

/// Answers one request.
pub async fn answer(request: &Request<Incoming>, files: &Arc<Files>) -> Response<Body> {
    let path = request.uri().path();
    let Some(endpoint) = Endpoint::at(path) else {
        return text(
            StatusCode::NOT_FOUND,
            format_args!("{path:?} is unknown: /hello /fib /fft /matrix /read /alloc /unzip /static are there"),
        );
    };
    if request.method() != Method::GET {
        let mut response =
            text(StatusCode::METHOD_NOT_ALLOWED, format_args!("{} is not allowed: use GET", request.method()));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match endpoint.perform(request.uri().query(), files).await {
        Ok(response) => response,
        Err(Failure::Request(reason)) => text(StatusCode::BAD_REQUEST, reason),
        Err(Failure::Work(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format_args!("{error:#}")),
    }
}

impl Endpoint {
    async fn perform(self, query: Option<&str>, files: &Arc<Files>) -> Result<Response<Body>, Failure> {
        let number = |parameter: Parameter| parameter.value(query).map_err(Failure::Request);
        let files = Arc::clone(files);
        let done = match self {
            Self::Hello => return Ok(text(StatusCode::OK, "Hello from sandscope")),
            Self::Static => return Ok(file(work(move || static_file::open(&files.static_file)).await?)),
            Self::Fib => {
                let n = number(FIB)?;
                work(move || Ok(compute::fibonacci(n).to_string())).await?
            }
            Self::Fft => {
                let n = size(number(FFT)?);
                let time = work(move || compute::fourier_transform_time(n)).await?;
                format!("{} ns", time.as_nanos())
            }
            Self::Matrix => {
                let n = size(number(MATRIX)?);
                let time = work(move || compute::matrix_square_time(n)).await?;
                format!("{} ns", time.as_nanos())
            }
            Self::Read => {
                let bytes = work(move || static_file::read(&files.static_file)).await?;
                format!("read {bytes} bytes")
            }
            Self::Alloc => {
                let mib = size(number(ALLOC)?);
                format!("{} pages", work(move || memory::touch(mib)).await?)
            }
            Self::Unzip => {
                let done = work(move || unzip::extract(&files.static_file, &files.scratch, Limits::default())).await?;
                format!("{} files, {} bytes", done.files, done.bytes)
            }
        };
        Ok(text(StatusCode::OK, format_args!("Done ({done})")))
    }
}

/// Runs what takes time on a thread of its own, so that other requests are answered meanwhile.
async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work was given up")?
}

fn size(value: u64) -> usize {
    usize::try_from(value).expect("the ranges of sizes fit into the address space of 64 bits that is built for")
}

fn text(status: StatusCode, line: impl Display) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", Either::Left(Full::from(format!("{line}\n"))))
}

fn file(body: FileBody) -> Response<Body> {
    response(StatusCode::OK, "application/octet-stream", Either::Right(body))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
