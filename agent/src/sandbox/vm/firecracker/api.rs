//! Firecracker's control protocol: HTTP on a socket that it makes when it starts. A request is a few bytes and its answer is
//! awaited: a load happens inside the timed window, where a thread and a runtime of their own would be part of the figure.

use super::{super::Control, snapshot_files};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long Firecracker may take to make its socket, and to answer a request.
const LIMIT: Duration = Duration::from_secs(30);

/// How often it is looked whether it still lives while its socket is awaited.
const LIFE_INTERVAL: Duration = Duration::from_millis(50);

/// Between the making of a socket and its listening there are a few microseconds.
const LISTEN_INTERVAL: Duration = Duration::from_micros(50);

/// Bytes of the longest answer: an error with its reason.
const MOST_BYTES: usize = 64 * 1024;

/// The agent's end.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
    /// Tells that something was made in the socket's directory.
    made: OwnedFd,
    /// The snapshot to load once Firecracker has started.
    load: Option<Value>,
}

impl Api {
    /// For a Firecracker that is to make this socket; before it starts.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn of(socket: PathBuf) -> Result<Self> {
        let directory = socket.parent().context("a socket is in no directory")?;
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("could not make an inotify")?;
        inotify::add_watch(&made, directory, WatchFlags::CREATE)
            .with_context(|| format!("could not watch {}", directory.display()))?;
        Ok(Self { socket, made, load: None })
    }

    /// With a snapshot that is to be loaded.
    pub fn loading(self, snapshot: Value) -> Self {
        Self { load: Some(snapshot), ..self }
    }

    /// Connects as soon as there is somebody to connect to.
    fn connect(&self, ended: &mut dyn FnMut() -> Option<String>) -> Result<UnixStream> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(LIMIT)).context("could not set up the socket of a VMM")?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => self.await_change()?,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => sleep(LISTEN_INTERVAL),
                Err(error) => {
                    return Err(error).with_context(|| format!("could not connect to {}", self.socket.display()));
                }
            }
            if let Some(ended) = ended() {
                bail!("{ended}");
            }
            ensure!(Instant::now() < deadline, "it made no socket within {} s", LIMIT.as_secs());
        }
    }

    /// Waits until something is made in the directory, but not for long.
    fn await_change(&self) -> Result<()> {
        let limit = LIFE_INTERVAL.try_into().context("a time limit is too long")?;
        if poll(&mut [PollFd::new(&self.made, PollFlags::IN)], Some(&limit)).unwrap_or(0) > 0 {
            // What was made matters less than that it is looked again.
            let mut events = [0; 4096];
            let _ = rustix::io::read(&self.made, &mut events);
        }
        Ok(())
    }

    /// Sends a request and awaits its good answer.
    fn request(&self, method: &str, path: &str, body: &Value, ended: &mut dyn FnMut() -> Option<String>) -> Result<()> {
        let asked = || format!("{method} {path}");
        let mut stream = self.connect(ended).with_context(asked)?;
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // In one piece: each is a wake-up of who reads it.
        stream.write_all(request.as_bytes()).with_context(asked)?;
        let (status, text) = answer(&mut stream).with_context(asked)?;
        ensure!((200..300).contains(&status), "{}: Firecracker answers {status}: {text}", asked());
        Ok(())
    }
}

/// Reads an answer; gives its status and its body.
fn answer(stream: &mut UnixStream) -> Result<(u16, String)> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(head) = response.parse(&received).context("the answer is no HTTP")? {
            let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
            let body = &received[head..];
            if body.len() >= length.unwrap_or(0) {
                let status = response.code.context("the answer has no status")?;
                return Ok((status, String::from_utf8_lossy(body).into_owned()));
            }
        }
        ensure!(received.len() < MOST_BYTES, "the answer has more than {MOST_BYTES} bytes");
        match stream.read(&mut buffer) {
            Ok(0) => bail!("it hung up"),
            Ok(length) => received.extend(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("no answer"),
        }
    }
}

impl Control for Api {
    fn started(&mut self, ended: &mut dyn FnMut() -> Option<String>) -> Result<Option<&'static str>> {
        let Some(snapshot) = self.load.take() else { return Ok(None) };
        self.request("PUT", "/snapshot/load", &snapshot, ended).context("could not load the snapshot")?;
        Ok(Some("restored"))
    }

    fn save(&mut self, directory: &Path, ended: &mut dyn FnMut() -> Option<String>) -> Result<()> {
        self.request("PATCH", "/vm", &json!({ "state": "Paused" }), ended).context("could not pause the guest")?;
        self.request("PUT", "/snapshot/create", &snapshot_files(directory), ended)
            .context("could not make the snapshot")
    }

    fn evidence(&mut self, _: bool) -> Option<String> {
        // It ends with its guest.
        None
    }

    fn quit(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A server that gives one answer; what it was asked.
    fn serve(socket: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).unwrap();
            // In pieces, as a socket may give them.
            for part in answer.as_bytes().chunks(7) {
                stream.write_all(part).unwrap();
            }
            String::from_utf8_lossy(&asked[..length]).into_owned()
        })
    }

    #[test]
    fn a_load_waits_for_the_socket_and_reports_what_was_refused() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("api.sock");
        let mut api = Api::of(socket.clone()).unwrap().loading(json!({ "a": 1 }));
        let server = std::thread::spawn({
            let socket = socket.clone();
            move || {
                sleep(Duration::from_millis(120));
                serve(&socket, "HTTP/1.1 204 \r\nServer: x\r\n\r\n").join().unwrap()
            }
        });
        assert_eq!(api.started(&mut || None).unwrap(), Some("restored"));
        let asked = server.join().unwrap();
        assert!(
            asked.starts_with("PUT /snapshot/load HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n{\"a\":1}"),
            "{asked}"
        );
        // Loaded once.
        assert_eq!(api.started(&mut || None).unwrap(), None);

        std::fs::remove_file(&socket).unwrap();
        let text = "HTTP/1.1 400 \r\nContent-Length: 27\r\n\r\n{\"fault_message\":\"no such\"}";
        let server = serve(&socket, text);
        let error = format!("{:#}", api.save(Path::new("/nowhere"), &mut || None).unwrap_err());
        assert!(error.contains("pause") && error.contains("400") && error.contains("no such"), "{error}");
        assert!(server.join().unwrap().starts_with("PATCH /vm "));
    }

    #[test]
    fn a_vmm_that_ended_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let mut api = Api::of(home.path().join("api.sock")).unwrap().loading(json!({}));
        let began = Instant::now();
        let error = format!("{:#}", api.started(&mut || Some("it ended".into())).unwrap_err());
        assert!(error.contains("could not load") && error.contains("it ended"), "{error}");
        assert!(began.elapsed() < LIMIT / 2);
    }

    #[test]
    fn an_answer_without_an_end_is_bounded() {
        let (mut theirs, mut ours) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let _ = theirs.write_all(b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n");
            while theirs.write_all(&[b'x'; 1000]).is_ok() {}
        });
        assert!(answer(&mut ours).unwrap_err().to_string().contains("more than"));
    }
}
