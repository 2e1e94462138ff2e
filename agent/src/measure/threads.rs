//! Names of threads: VMMs name theirs after what they do, which no other event tells.

use crate::{correlate::NamedThread, probe::Record, role::ThreadRule};
use std::fs;

/// The threads that began in a recording and are still there, with the roles that their names tell.
pub fn named(records: &[Record], rules: &'static [ThreadRule]) -> Vec<NamedThread> {
    if rules.is_empty() {
        return Vec::new();
    }
    let begun = records.iter().filter_map(|record| match record {
        Record::TaskNew(new) => Some(new.child_tid),
        _ => None,
    });
    let named = begun.filter_map(|tid| {
        let comm = fs::read(format!("/proc/{tid}/comm")).ok()?;
        let comm = String::from_utf8_lossy(comm.trim_ascii_end()).replace(char::is_control, "\u{fffd}");
        let rule = rules.iter().find(|rule| comm.starts_with(rule.begins));
        Some(NamedThread { tid, comm, role: rule.map(|rule| rule.role) })
    });
    named.collect()
}
