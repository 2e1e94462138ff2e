//! What the BPF programs say in words: warnings that come with what they count.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Times that the same words are passed on; how often more they came is told at the end.
const SHOWN: u64 = 3;

/// The messages of the programs on their way to the agent's own log.
pub(super) struct Said(EbpfLogger<Few>);

impl Said {
    /// Begins to read them; nothing where the object has no programs that say anything.
    pub(super) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Few::default()).ok().map(Self)
    }

    /// Passes on what came since the last call.
    pub(super) fn pass_on(&mut self) {
        self.0.flush();
    }
}

/// Passes few of the same messages on.
#[derive(Default)]
struct Few(Mutex<BTreeMap<String, u64>>);

impl Few {
    /// How often a message came, this time included. Numbers in it do not make it another one.
    fn count(&self, text: &str) -> u64 {
        let kind: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(kind).or_default();
        *count += 1;
        *count
    }
}

impl Log for Few {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        match self.count(&text) {
            count if count < SHOWN => tracing::warn!("a BPF program says: {text}"),
            SHOWN => tracing::warn!("a BPF program says: {text} (more of these are counted, not shown)"),
            _ => {}
        }
    }

    fn flush(&self) {}
}

impl Drop for Few {
    fn drop(&mut self) {
        let counts = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in counts.iter().filter(|(_, count)| **count > SHOWN) {
            tracing::warn!("{count} times a BPF program said: {kind}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_differ_in_a_number_are_counted_together() {
        let few = Few::default();
        assert_eq!(
            [few.count("no room for thread 17"), few.count("no room for thread 4"), few.count("else")],
            [1, 2, 1]
        );
    }
}
