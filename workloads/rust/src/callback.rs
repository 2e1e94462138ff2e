//! Tells the host that the server is ready: one GET request, sent once, after the socket listens.

use anyhow::{Context, Result, bail};
use http_body_util::Empty;
use hyper::{
    Request, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use std::{fmt, net::SocketAddrV4, str::FromStr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Header that carries the nanoseconds of monotonic time from the start of `main` to the moment just after `listen`.
const SINCE_MAIN: &str = "sandscope-since-main-ns";

/// Longest time from the first packet of the connection to the head of the response.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the callback goes. The host is an IPv4 address: a sandbox has no resolver, and a statically linked program
/// none that is safe to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackUrl {
    text: String,
    address: SocketAddrV4,
    authority: String,
    path_and_query: String,
}

impl FromStr for CallbackUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("the callback URL {text:?} can't be used: {reason}");
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("{error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("it must start with http://"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?.as_str();
        // Parsed here and not by `Uri`, so that user names and empty or overlong ports are mistakes.
        let address = authority
            .parse()
            .or_else(|_| authority.parse().map(|host| SocketAddrV4::new(host, 80)))
            .map_err(|_| wrong("its host must be an IPv4 address, with or without a port, such as 10.0.0.1:3000"))?;
        let path_and_query = uri.path_and_query().map_or("/", |part| part.as_str());
        Ok(Self {
            text: text.to_owned(),
            address,
            authority: authority.to_owned(),
            path_and_query: path_and_query.to_owned(),
        })
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Sends the request and awaits the head of the response. `since_main`: see [`SINCE_MAIN`].
///
/// # Errors
/// When there is no answer in time, or one that does not say success.
pub async fn send(url: &CallbackUrl, since_main: Duration) -> Result<()> {
    timeout(PATIENCE, exchange(url, since_main))
        .await
        .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn exchange(url: &CallbackUrl, since_main: Duration) -> Result<()> {
    let stream = TcpStream::connect(url.address).await.context("can't connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(&url.path_and_query)
        .header(HOST, &url.authority)
        .header(CONNECTION, "close")
        .header(SINCE_MAIN, since_main.as_nanos().to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("no answer")?;
    if !response.status().is_success() {
        bail!("the answer is {}", response.status());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url: CallbackUrl = "http://10.0.0.1:3000/ready/7?a=b".parse().unwrap();
        assert_eq!(url.address, "10.0.0.1:3000".parse().unwrap());
        assert_eq!(url.authority, "10.0.0.1:3000");
        assert_eq!(url.path_and_query, "/ready/7?a=b");

        let url: CallbackUrl = "http://10.0.0.1".parse().unwrap();
        assert_eq!(url.address, "10.0.0.1:80".parse().unwrap());
        assert_eq!(url.path_and_query, "/");
    }

    #[test]
    fn other_urls_are_refused() {
        for (text, part) in [
            ("https://10.0.0.1/", "http://"),
            ("10.0.0.1:3000", "http://"),
            ("/ready", "http://"),
            ("http://", "the callback URL"),
            ("http://localhost/", "IPv4 address"),
            ("http://[::1]/", "IPv4 address"),
            ("http://name@10.0.0.1/", "IPv4 address"),
            ("http://10.0.0.1:99999/", "the callback URL"),
            ("http://10.0.0.1 /", "the callback URL"),
        ] {
            let error = text.parse::<CallbackUrl>().unwrap_err();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        }
    }
}
