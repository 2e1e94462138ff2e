//! The network path: how many requests per second over how many connections, up to where connections fail; how late answers are
//! at a constant rate; and how fast a large file comes.
//!
//! All levels are tried, also after one at which requests fail: the failures are in the tables, and the level at which they begin
//! is the limit.

use super::{
    kind::{Complaint, Experiment, Needs, Variant, require},
    step::{Action, Step},
    warm::check_window,
};
use crate::{
    measure::page_cache::CacheState,
    workload::load::{MAX_CONNECTIONS, Pace},
};
use serde::Deserialize;
use std::time::Duration;

/// Before each window: connections are made, and the server's threads are there.
const WARM_UP: Duration = Duration::from_millis(200);

/// For all fetches of the large file.
const LONGEST: Duration = Duration::from_secs(3600);

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// Numbers of connections that each ask again once they were answered.
    connections: Vec<u32>,
    /// Rates of requests per second that come whatever the workload does.
    rates: Vec<f64>,
    /// Connections for these.
    rate_connections: u32,
    /// Connections over which the large file is fetched; 0: it is not.
    file_connections: u32,
    /// How often it is fetched, over all of them.
    fetches: u64,
    /// Seconds of each window.
    window_s: f64,
}

impl Default for Network {
    fn default() -> Self {
        let connections = (0..=12).map(|power| 1 << power).collect();
        Self {
            connections,
            rates: vec![1000.0],
            rate_connections: 64,
            file_connections: 4,
            fetches: 200,
            window_s: 2.0,
        }
    }
}

impl Experiment for Network {
    fn needs(&self) -> Needs {
        if self.file_connections > 0 { Needs::FILE } else { Needs::SERVER }
    }

    fn check(&self) -> Result<(), Complaint> {
        let allowed = |count: u32| (1..=MAX_CONNECTIONS).contains(&count);
        let bounds = format!("choose from 1 to {MAX_CONNECTIONS} connections");
        for &count in &self.connections {
            require("connections", allowed(count), format!("{count} connections: {bounds}"))?;
        }
        let distinct = self.connections.iter().collect::<std::collections::BTreeSet<_>>().len();
        require("connections", distinct == self.connections.len(), "a number of connections is there twice")?;
        for &rate in &self.rates {
            let good = rate.is_finite() && rate > 0.0 && rate <= 1e6;
            require("rates", good, format!("a rate of {rate} requests per second: choose above 0, at most 1000000"))?;
        }
        require("rate-connections", allowed(self.rate_connections), bounds.clone())?;
        require("file-connections", self.file_connections == 0 || allowed(self.file_connections), bounds)?;
        require("fetches", (1..=1_000_000).contains(&self.fetches), "choose from 1 to 1000000")?;
        check_window("window-s", self.window_s)?;
        let some = !self.connections.is_empty() || !self.rates.is_empty() || self.file_connections > 0;
        require("connections", some, "nothing is left to do: give connections, rates or file-connections")
    }

    fn variants(&self) -> Vec<Variant> {
        let load = |name: String, path: &str, connections, pace| {
            let window = Duration::from_secs_f64(self.window_s);
            let action = Action::Load { connections, keep_alive: true, pace, warm_up: WARM_UP, window };
            Step { name, path: path.to_owned(), action, file: None }
        };
        let closed =
            self.connections.iter().map(|&count| load(format!("closed-{count}"), "/hello", count, Pace::Closed));
        let open = self
            .rates
            .iter()
            .map(|&rate| load(format!("rate-{rate}"), "/hello", self.rate_connections, Pace::Open { rate }));
        let file = (self.file_connections > 0).then(|| {
            let pace = Pace::Count { requests: self.fetches };
            let action = Action::Load {
                connections: self.file_connections,
                keep_alive: true,
                pace,
                warm_up: Duration::ZERO,
                window: LONGEST,
            };
            Step { name: "file".to_owned(), path: "/static".to_owned(), action, file: Some(CacheState::Primed) }
        });
        vec![Variant::only(closed.chain(open).chain(file).collect())]
    }
}
