//! An instance whose program is a VMM: a guest can be dead while the program that runs it lives, and a program that ended well
//! can have left a guest in its grave.

use super::{
    super::{
        Instance, Readiness, RoleRule, ThreadRule,
        child::last_lines,
        console::{Console, Reached},
        network::Private,
    },
    Control, DIED, Shown, Watched,
};
use crate::host::clock::monotonic_ns;
use anyhow::{Result, anyhow};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long a VMM that was asked to end may take before it is killed.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

/// How long a guest may go on after its last words, which are rarely its last line.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Lines of a VMM's own messages that are shown.
const SHOWN_LINES: usize = 3;

/// A VM.
pub struct VmInstance {
    inner: Box<dyn Instance>,
    control: Option<Box<dyn Control>>,
    /// What the VMM prints, apart from what its guest prints.
    messages: Console,
    shown: Shown,
    thread_roles: &'static [ThreadRule],
    static_disk: Option<PathBuf>,
    launched: bool,
    /// What was asked of the VMM in the launch, and done.
    done: Option<Reached>,
    died: Option<Instant>,
}

impl VmInstance {
    pub(super) fn new(inner: Box<dyn Instance>, watched: Watched) -> Self {
        let Watched { control, messages, shown, thread_roles, static_disk } = watched;
        Self { inner, control, messages, shown, thread_roles, static_disk, launched: false, done: None, died: None }
    }

    /// What the VMM itself said, as a further line.
    fn said(&self) -> String {
        let mut lines = self.messages.last_lines(usize::MAX);
        match self.shown {
            Shown::First => lines.truncate(SHOWN_LINES),
            Shown::Last(text) => {
                if lines.iter().any(|line| line.contains(text)) {
                    lines.retain(|line| line.contains(text));
                }
                drop(lines.drain(..lines.len().saturating_sub(SHOWN_LINES)));
            }
        }
        match lines.is_empty() {
            true => String::new(),
            false => format!("\nIts VMM says: {}", lines.join(" | ")),
        }
    }

    /// That the guest is dead, and what it printed last.
    fn dead(&self, evidence: &str) -> String {
        let printed = last_lines(self.inner.console());
        format!("the guest is dead although its VMM lives: {evidence}{printed}{}", self.said())
    }

    /// What the guest said that means its end.
    fn last_words(&self) -> Option<String> {
        let words = self.inner.console().reached().into_iter().find(|reached| reached.marker == DIED)?;
        Some(format!("it said `{}`", words.line))
    }
}

impl Instance for VmInstance {
    fn mergeable_buffers(&mut self) -> Option<bool> {
        self.control.as_mut()?.mergeable_buffers()
    }

    fn static_disk(&self) -> Option<PathBuf> {
        self.static_disk.clone()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.inner.files()
    }

    fn readiness(&self) -> Readiness {
        self.inner.readiness()
    }

    fn roles(&self) -> &'static [RoleRule] {
        self.inner.roles()
    }

    fn thread_roles(&self) -> &'static [ThreadRule] {
        self.thread_roles
    }

    fn conditions(&self) -> &BTreeMap<String, String> {
        self.inner.conditions()
    }

    fn launch(&mut self) -> Result<()> {
        self.inner.launch()?;
        self.launched = true;
        let Some(control) = &mut self.control else { return Ok(()) };
        let inner = &mut self.inner;
        match control.started(&mut || inner.failure()) {
            Ok(done) => {
                let reached = |marker| Reached { marker, at_ns: monotonic_ns(), line: String::new() };
                self.done = done.map(reached);
                Ok(())
            }
            Err(error) => Err(anyhow!("{error:#}{}", self.said())),
        }
    }

    fn failure(&mut self) -> Option<String> {
        let ended = self.inner.failure();
        // After that, so that the last words of a VMM that ended are among it.
        let evidence =
            self.control.as_mut().filter(|_| self.launched).and_then(|control| control.evidence(ended.is_some()));
        let words = self.last_words();
        match (ended, evidence, words) {
            (Some(ended), evidence, words) => {
                let why: String = evidence.into_iter().chain(words).map(|why| why + "; ").collect();
                Some(format!("{why}{ended}{}", self.said()))
            }
            (None, Some(evidence), _) => Some(self.dead(&evidence)),
            (None, None, Some(words)) => {
                // Once it had the time to say more.
                let since = *self.died.get_or_insert_with(Instant::now);
                (since.elapsed() >= LAST_LINES).then(|| self.dead(&words))
            }
            (None, None, None) => None,
        }
    }

    fn console(&self) -> &Console {
        self.inner.console()
    }

    fn reached(&self) -> Vec<(&'static str, Reached)> {
        let by_guest = self.inner.console().reached().into_iter().map(|reached| ("console", reached));
        let by_vmm = self.messages.reached().into_iter().chain(self.done.clone()).map(|reached| ("vmm", reached));
        by_guest.chain(by_vmm).collect()
    }

    fn network(&self) -> Option<&Private> {
        self.inner.network()
    }

    fn members(&self) -> Result<Vec<i32>> {
        self.inner.members()
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut control) = self.control.take().filter(|_| self.launched) {
            control.quit();
            let deadline = Instant::now() + QUIT_LIMIT;
            while self.inner.failure().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.inner.stop()
    }
}
