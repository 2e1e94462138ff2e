//! What was recorded of an instance while it was asked for something, summed up as soon as it is much: what an instance under load
//! makes of records in a minute does not fit into memory, and the sums of its steps are all that is made of most of them.
//!
//! ```text
//! start, steps ─► recording ─► (64 MiB of it) ─► explanation so far + records that say in which state each thread is ─┐
//! more steps   ─► recording ──────────────────────────────────────────────────────────────────────────────────────────┴─► explanation
//! ```

use super::{
    explain::{Explanation, explain_recording},
    observation::{Observation, Recorded},
};
use crate::{
    correlate::{Names, states},
    probe::{ExitReasons, Record, Recording},
};
use sandscope_ebpf::map::Counters;

/// From how many bytes of records on they are summed up.
pub(super) const FROM_BYTES: usize = 64 << 20;

/// Sums of what was recorded so far.
pub(super) struct Digest {
    /// What they say.
    pub(super) explanation: Explanation,
    /// Steps that they have.
    pub(super) steps: usize,
    /// Records that the rest can't do without.
    kept: Vec<Record>,
    counters: Counters,
    names: Names,
}

impl Digest {
    /// Of what came before, if that was summed up already, and what was recorded since, whose records begin with those that were
    /// [joined](Digest::joined).
    pub(super) fn of(before: Option<Self>, observation: &Observation, recorded: &Recorded) -> Self {
        let names = || Names { exits: ExitReasons::of_running_kernel(), ..Names::default() };
        let (explanation, steps, mut names) = match before {
            Some(before) => (Some(before.explanation), before.steps, before.names),
            None => (None, 0, names()),
        };
        let explanation = explain_recording(explanation, observation, Some(recorded), steps, &mut names);
        Self {
            explanation,
            steps: observation.steps.len(),
            kept: states(&recorded.recording.records),
            counters: recorded.recording.counters,
            names,
        }
    }

    /// The recording with what the rest can't do without before it, and all counters together.
    pub(super) fn joined(&self, recording: &Recording) -> Recording {
        let mut counters = recording.counters;
        for (now, before) in counters.seen.iter_mut().zip(self.counters.seen) {
            *now += before;
        }
        for (now, before) in counters.lost.iter_mut().zip(self.counters.lost) {
            *now += before;
        }
        let records = self.kept.iter().chain(&recording.records).cloned().collect();
        Recording { records, counters }
    }
}
