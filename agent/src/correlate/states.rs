//! What of a recording the time after it depends on.

use crate::probe::Record;
use std::collections::BTreeSet;

/// Those records that say which threads there are, and in which state each was in the end.
pub fn states(records: &[Record]) -> Vec<Record> {
    let (mut switched, mut woken, mut crossed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut is_state = |record: &&Record| match record {
        Record::TaskNew(_) | Record::Exec(_) | Record::Exit(_) | Record::Listen(_) | Record::Frame(_) => true,
        Record::Switch(switch) => {
            let (previous, next) = (switched.insert(switch.header.tid), switched.insert(switch.next_tid));
            previous || next
        }
        // Before its last switch, it was another sleep that this one ended.
        Record::Wake(wake) => !switched.contains(&wake.header.tid) && woken.insert(wake.header.tid),
        Record::KvmEntry(_) | Record::KvmExit(_) => crossed.insert(record.header().tid),
        _ => false,
    };
    let mut states: Vec<Record> = records.iter().rev().filter(|record| is_state(record)).cloned().collect();
    states.reverse();
    states
}
