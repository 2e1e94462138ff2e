//! Reading a file: cold and warm in the guest, cold and warm on the host.
//!
//! The host's page cache is brought into its state before each request, and checked page by page; the guest's is cold for the
//! first request of an instance and warm for the second. So each state of the host has instances of its own. A container has no
//! page cache but the host's: what the guest has read is evicted with it, and the two cold steps cost the same. The body of the
//! answer is the number of bytes; the file itself does not cross the network.

use super::{
    kind::{Complaint, Experiment, Needs, Variant},
    step::Step,
};
use crate::measure::page_cache::CacheState;
use serde::Deserialize;

/// No parameters: the file is the workload's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Read {}

impl Experiment for Read {
    fn needs(&self) -> Needs {
        Needs::FILE
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }

    fn variants(&self) -> Vec<Variant> {
        let variant = |host: &str, file| {
            let step = |guest: &str| Step::requests(format!("{guest}-{host}"), "/read", 1).on_file(file);
            let steps = vec![step("guest-cold"), step("guest-warm")];
            Variant { name: host.to_owned(), ..Variant::only(steps) }
        };
        vec![variant("host-cold", CacheState::Evicted), variant("host-warm", CacheState::Primed)]
    }
}
