//! Looks at the pages of the instances that an experiment has started.

use crate::{
    measure::memory::{footprint, pages::Subject},
    sandbox::Instance,
    steady::Content,
};
use anyhow::Result;
use std::path::PathBuf;

/// Looks at all pages of these instances, beside those of the files that their starts read.
pub(super) fn look_at(running: &[(&str, &dyn Instance)], hold: bool) -> Result<Content> {
    let mut subjects = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for (number, (_, instance)) in running.iter().enumerate() {
        let processes = footprint::of_processes(&instance.members()?, instance.roles())?;
        let of = |process: footprint::Footprint| Subject { pid: process.pid, role: process.role, instance: number };
        subjects.extend(processes.into_iter().map(of));
        files.extend(instance.files());
    }
    Content::look_at(subjects, files, hold)
}
