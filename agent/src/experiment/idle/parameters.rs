//! The idle cost as a part of a suite.

use super::Watching;
use crate::experiment::{
    kind::{Complaint, Experiment, Method, Needs, Variant, require},
    warm::check_window,
};
use serde::Deserialize;
use std::time::Duration;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Parameters {
    /// Seconds from the first response to the window.
    settle_s: f64,
    /// Seconds of the window.
    window_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { settle_s: 5.0, window_s: 30.0 }
    }
}

impl Experiment for Parameters {
    fn needs(&self) -> Needs {
        Needs { probes: true, ..Needs::START }
    }

    fn check(&self) -> Result<(), Complaint> {
        check_settle("settle-s", self.settle_s)?;
        check_window("window-s", self.window_s)
    }

    fn variants(&self) -> Vec<Variant> {
        let watching =
            Watching { settle: Duration::from_secs_f64(self.settle_s), window: Duration::from_secs_f64(self.window_s) };
        vec![Variant { method: Method::Watch(watching), ..Variant::only(Vec::new()) }]
    }
}

/// Fails unless it is a time in seconds for which instances can be left alone.
pub(in crate::experiment) fn check_settle(key: &'static str, seconds: f64) -> Result<(), Complaint> {
    require(key, (0.0..=3600.0).contains(&seconds), format!("{seconds} s: choose from 0 to 3600"))
}
