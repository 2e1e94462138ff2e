//! The client's side of a connection.

use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderMap},
};
use hyper_util::rt::TokioIo;
use std::net::Ipv4Addr;
use tokio::net::TcpStream;

/// One connection to a server.
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.request(Method::GET, path).await
    }

    pub async fn request(&mut self, method: Method, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header(HOST, "sandbox");
        self.sender.ready().await.expect("the connection should still be open");
        let response = self.sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks that it is an error with all these parts in its reason.
    pub fn assert_error(&self, status: StatusCode, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for part in parts {
            assert!(self.text().contains(part), "{part:?} should be in {self:?}");
        }
    }

    /// Checks that it says `Done (NUMBER unit)` and returns the number.
    pub fn number_done(&self, unit: &str) -> u64 {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let number = self.text().strip_prefix("Done (").and_then(|rest| rest.strip_suffix(&format!(" {unit})\n")));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// One request on a connection of its own.
pub async fn get(port: u16, path: &str) -> Answer {
    Client::connect(port).await.get(path).await
}
