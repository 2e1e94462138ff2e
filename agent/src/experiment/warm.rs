//! The shortest exchange with a running instance: what client, network path and server cost before any work is done.
//!
//! The same request three ways: by the client of all single requests, on a connection of its own each time; by the load
//! generator on a connection of its own each time; and by the load generator on one connection. The second against the first
//! tells what the client of single requests adds; the third against the second what a connection costs.

use super::{
    kind::{Complaint, Experiment, Needs, Variant, require},
    step::{Action, Step},
};
use crate::workload::load::Pace;
use serde::Deserialize;
use std::time::Duration;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Warm {
    /// Single requests.
    requests: u32,
    /// Seconds of each load.
    window_s: f64,
}

impl Default for Warm {
    fn default() -> Self {
        Self { requests: 50, window_s: 1.0 }
    }
}

impl Experiment for Warm {
    fn needs(&self) -> Needs {
        Needs::SERVER
    }

    fn check(&self) -> Result<(), Complaint> {
        require("requests", self.requests > 0, "choose at least 1 request")?;
        check_window("window-s", self.window_s)
    }

    fn variants(&self) -> Vec<Variant> {
        let load = |name: &str, keep_alive| Step {
            name: name.to_owned(),
            path: "/hello".to_owned(),
            action: Action::Load {
                connections: 1,
                keep_alive,
                pace: Pace::Closed,
                warm_up: Duration::from_millis(100),
                window: Duration::from_secs_f64(self.window_s),
            },
            file: None,
        };
        vec![Variant::only(vec![
            Step::requests("single", "/hello", self.requests),
            load("load-new-connections", false),
            load("load-kept-connection", true),
        ])]
    }
}

/// Fails unless it is a length of a window in seconds.
pub(super) fn check_window(key: &'static str, seconds: f64) -> Result<(), Complaint> {
    let good = seconds.is_finite() && (0.01..=3600.0).contains(&seconds);
    require(key, good, format!("a window of {seconds} s: choose from 0.01 to 3600"))
}
