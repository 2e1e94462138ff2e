//! The memory of idle instances as a part of a suite.

use super::{Pages, Together};
use crate::experiment::{
    idle::check_settle,
    kind::{Complaint, Experiment, Method, Needs, Variant, require},
};
use serde::Deserialize;
use std::time::Duration;

/// Most instances at a time.
const MOST: u32 = 10_000;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Parameters {
    /// Instances that run at the same time in the end.
    instances: u32,
    /// Seconds that they are left alone before they are measured.
    settle_s: f64,
    /// Whether the content of all pages is looked at in the end.
    pages: bool,
    /// Whether they stand still meanwhile.
    pause: bool,
    /// Whether KSM then merges them.
    ksm: bool,
    /// Seconds that it is followed at most.
    ksm_timeout_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { instances: 10, settle_s: 1.0, pages: false, pause: true, ksm: false, ksm_timeout_s: 60.0 }
    }
}

impl Experiment for Parameters {
    fn needs(&self) -> Needs {
        Needs { own_network: self.instances > 1, ..Needs::START }
    }

    fn check(&self) -> Result<(), Complaint> {
        let good = (1..=MOST).contains(&self.instances);
        require("instances", good, format!("{} instances: choose from 1 to {MOST}", self.instances))?;
        check_settle("settle-s", self.settle_s)?;
        require("ksm", self.pages || !self.ksm, "what KSM does is held against the pages: choose `pages = true` too")?;
        let timeout = self.ksm_timeout_s;
        let good = timeout > 0.0 && timeout <= 86_400.0;
        require("ksm-timeout-s", good, format!("{timeout} s: choose above 0, at most 86400"))
    }

    fn variants(&self) -> Vec<Variant> {
        let merge = self.ksm.then(|| Duration::from_secs_f64(self.ksm_timeout_s));
        let together = Together {
            instances: self.instances,
            settle: Duration::from_secs_f64(self.settle_s),
            pages: self.pages.then_some(Pages { hold: self.pause, merge }),
        };
        let instances = self.instances;
        vec![Variant { method: Method::Gather(together), instances, ..Variant::only(Vec::new()) }]
    }
}
