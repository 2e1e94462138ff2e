//! Looks at the pages of the instances that an experiment has started.

use crate::{
    measure::memory::{
        footprint,
        pages::{Hold, Subject},
    },
    sandbox::Instance,
    steady::Content,
};
use anyhow::Result;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Looks at all pages of these instances, beside those of the files that their starts read; `None` when it was interrupted.
pub(super) async fn look_at(
    running: &[(&str, &dyn Instance)],
    hold: bool,
    interrupted: &CancellationToken,
) -> Result<Option<Content>> {
    let mut subjects = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for (number, (_, instance)) in running.iter().enumerate() {
        let processes = footprint::of_processes(&instance.members()?, instance.roles())?;
        let of = |process: footprint::Footprint| Subject { pid: process.pid, role: process.role, instance: number };
        subjects.extend(processes.into_iter().map(of));
        files.extend(instance.files());
    }
    // The instances are the agent's children, and what is to be held.
    let hold = if hold { Hold::All } else { Hold::Nobody };
    Content::look_at(subjects, files, hold, interrupted).await
}
