//! QEMU's control protocol: JSON messages on a socket that it inherits. Nothing here blocks for long, and no thread is needed: what
//! QEMU has to say waits in the socket until somebody asks.
//!
//! The socket is a pair made before the launch, so the first requests are there before QEMU is, and no event can come earlier
//! than the subscription to it.

use super::Control;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread::sleep,
    time::{Duration, Instant},
};

/// Tells the answer about what the guest has accepted from others.
const FEATURES: &str = "features";

/// How long that may take, and how often it is looked for.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);

/// Most that is read at once, and the longest message that is kept: a guest that has taken QEMU over must not fill the agent's
/// memory.
const MOST_BYTES: usize = 64 * 1024;

/// How long QEMU may take to end after it said that it would: the end of the process says more. Some take longer, with software
/// emulation more than a second, but a dead guest is to be told within one.
const END_LIMIT: Duration = Duration::from_millis(700);

/// States of a machine that it does not leave by itself, and what each means.
const DEAD: [(&str, &str); 5] = [
    ("internal-error", "the accelerator could not go on with the guest"),
    ("io-error", "the guest's drive failed"),
    ("guest-panicked", "the guest's kernel panicked"),
    ("shutdown", "the guest switched its machine off"),
    ("watchdog", "the guest's watchdog expired"),
];

/// Reasons of a shutdown, and what each means.
const SHUTDOWNS: [(&str, &str); 4] = [
    ("guest-reset", "the guest reset its machine: a reboot, or a triple fault"),
    ("guest-shutdown", "the guest switched its machine off"),
    ("guest-panic", "the guest's kernel panicked"),
    ("host-signal", "a signal ended QEMU"),
];

/// The agent's end.
#[derive(Debug)]
pub struct Qmp {
    socket: UnixStream,
    received: Vec<u8>,
    /// The state that QEMU last named, if it is one that a guest does not leave.
    dead: Option<&'static (&'static str, &'static str)>,
    shutdown: Option<(String, Instant)>,
    /// Where QEMU has the virtio part of the guest's network device, among its objects.
    nic: String,
    /// Names of what the guest has accepted of that device, in words of QEMU's; `None`: it has not answered.
    accepted: Option<Vec<String>>,
}

impl Qmp {
    /// Makes both ends, with the first requests on their way. QEMU gets the second.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn pair(nic: String) -> Result<(Self, OwnedFd)> {
        let (socket, theirs) = UnixStream::pair().context("could not make the control socket of a VMM")?;
        socket.set_nonblocking(true).context("could not set up the control socket of a VMM")?;
        let mut qmp = Self { socket, received: Vec::new(), dead: None, shutdown: None, nic, accepted: None };
        qmp.request(&json!({ "execute": "qmp_capabilities" }));
        qmp.request(&json!({ "execute": "query-status" }));
        Ok((qmp, theirs.into()))
    }

    fn request(&mut self, command: &Value) {
        // A few bytes always fit; if QEMU is gone, its end is what will be reported.
        let _ = writeln!(self.socket, "{command}");
    }

    /// Takes what has come.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..MOST_BYTES / buffer.len() {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.received.len() + part.len() <= MOST_BYTES {
                self.received.extend(part);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.received);
                if let Ok(message) = serde_json::from_slice(&line) {
                    self.note(&message);
                }
            }
        }
    }

    fn note(&mut self, message: &Value) {
        match message["event"].as_str() {
            // It says that the machine stands still, but not why.
            Some("STOP" | "GUEST_PANICKED") => self.request(&json!({ "execute": "query-status" })),
            Some("SHUTDOWN") => {
                let reason = message["data"]["reason"].as_str().unwrap_or("unknown").to_owned();
                self.shutdown.get_or_insert((reason, Instant::now()));
            }
            _ => {}
        }
        if message["id"] == FEATURES {
            let names = message["return"]["guest-features"]["dev-features"].as_array();
            let names = names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            // An older QEMU has no such command, and answers with an error.
            self.accepted = Some(names.collect());
        } else if let Some(status) = message["return"]["status"].as_str() {
            self.dead = DEAD.iter().find(|(state, _)| *state == status);
        }
    }
}

impl Control for Qmp {
    fn evidence(&mut self, ended: bool) -> Option<String> {
        self.read();
        if let Some((reason, since)) = &self.shutdown
            && (ended || since.elapsed() > END_LIMIT)
        {
            let known = SHUTDOWNS.iter().find(|(known, _)| known == reason);
            let meaning = known.map_or("QEMU ended the machine", |(_, meaning)| meaning);
            return Some(format!("{meaning} (shutdown by {reason:?})"));
        }
        self.dead.map(|(state, meaning)| format!("{meaning} (QEMU's state `{state}`)"))
    }

    fn mergeable_buffers(&mut self) -> Option<bool> {
        self.accepted = None;
        let path = self.nic.clone();
        self.request(&json!({ "execute": "x-query-virtio-status", "arguments": { "path": path }, "id": FEATURES }));
        let deadline = Instant::now() + ANSWER_LIMIT;
        while self.accepted.is_none() && Instant::now() < deadline {
            sleep(ANSWER_INTERVAL);
            self.read();
        }
        let accepted = self.accepted.take().filter(|names| !names.is_empty())?;
        Some(accepted.iter().any(|name| name.starts_with("VIRTIO_NET_F_MRG_RXBUF")))
    }

    fn quit(&mut self) {
        self.request(&json!({ "execute": "quit" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};

    #[test]
    fn a_machine_that_stands_still_is_asked_why() {
        let (mut qmp, theirs) = Qmp::pair("/nic".into()).unwrap();
        let mut theirs = UnixStream::from(theirs);
        let mut requests = BufReader::new(theirs.try_clone().unwrap()).lines().map(Result::unwrap);
        assert_eq!(requests.next().unwrap(), r#"{"execute":"qmp_capabilities"}"#);
        assert_eq!(requests.next().unwrap(), r#"{"execute":"query-status"}"#);
        theirs
            .write_all(b"{\"QMP\":{}}\r\n{\"return\":{}}\r\n{\"return\":{\"status\":\"running\"}}\r\n{\"event\":\"ST")
            .unwrap();
        assert_eq!(qmp.evidence(false), None);
        theirs.write_all(b"OP\",\"timestamp\":{}}\r\n").unwrap();
        assert_eq!(qmp.evidence(false), None);
        assert_eq!(requests.next().unwrap(), r#"{"execute":"query-status"}"#);
        theirs.write_all(b"{\"return\":{\"running\":false,\"status\":\"internal-error\"}}\r\n").unwrap();
        assert!(qmp.evidence(false).unwrap().contains("internal-error"));
    }

    #[test]
    fn what_the_guest_has_accepted_is_told_unless_qemu_is_too_old_or_silent() {
        let with = r#"{"return":{"guest-features":{"dev-features":["VIRTIO_NET_F_MAC: x","VIRTIO_NET_F_MRG_RXBUF: y"]}},"id":"features"}"#;
        let without = r#"{"return":{"guest-features":{"dev-features":["VIRTIO_NET_F_MAC: x"]}},"id":"features"}"#;
        let unknown = r#"{"id":"features","error":{"class":"CommandNotFound"}}"#;
        for (answer, expected) in [(with, Some(true)), (without, Some(false)), (unknown, None)] {
            let (mut qmp, theirs) = Qmp::pair("/nic".into()).unwrap();
            let mut theirs = UnixStream::from(theirs);
            writeln!(theirs, "{answer}").unwrap();
            assert_eq!(qmp.mergeable_buffers(), expected, "{answer}");
        }
        let (mut qmp, _theirs) = Qmp::pair("/nic".into()).unwrap();
        assert_eq!(qmp.mergeable_buffers(), None);
    }

    #[test]
    fn a_shutdown_is_told_when_qemu_has_ended_or_should_have() {
        let (mut qmp, theirs) = Qmp::pair("/nic".into()).unwrap();
        let event = br#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
        UnixStream::from(theirs).write_all(&[event.as_slice(), b"\n"].concat()).unwrap();
        assert_eq!(qmp.evidence(false), None);
        assert!(qmp.evidence(true).unwrap().contains("triple fault"));
        sleep(END_LIMIT);
        assert!(qmp.evidence(false).unwrap().contains("guest-reset"));
    }

    #[test]
    fn what_makes_no_sense_is_passed_over_within_bounds() {
        let (mut qmp, theirs) = Qmp::pair("/nic".into()).unwrap();
        let mut theirs = UnixStream::from(theirs);
        for _ in 0..100 {
            theirs.write_all(&[b'x'; 10_000]).unwrap();
            assert_eq!(qmp.evidence(false), None);
            assert!(qmp.received.len() <= MOST_BYTES);
        }
        theirs.write_all(b"\n[1]\n{\"return\":{\"status\":\"watchdog\"}}\n").unwrap();
        assert!(qmp.evidence(false).unwrap().contains("watchdog"));
    }
}
