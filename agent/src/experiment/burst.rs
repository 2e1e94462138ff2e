//! Many cold starts at the same time: each instance has its own launcher thread, all are prepared before, and all are launched at
//! once. A burst is repeated like any other instance, so that it has a distribution and not one value.

use super::kind::{Complaint, Experiment, Needs, Variant, require};
use serde::Deserialize;

/// Most instances at a time: beyond that the agent's own threads are the measurement.
const MOST: u32 = 1000;

/// Parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Burst {
    /// Numbers of instances.
    instances: Vec<u32>,
}

impl Default for Burst {
    fn default() -> Self {
        Self { instances: (1..=10).map(|tens| 10 * tens).collect() }
    }
}

impl Experiment for Burst {
    fn needs(&self) -> Needs {
        Needs { own_network: true, ..Needs::START }
    }

    fn check(&self) -> Result<(), Complaint> {
        require("instances", !self.instances.is_empty(), "give at least one number of instances")?;
        for &count in &self.instances {
            let good = (1..=MOST).contains(&count);
            require("instances", good, format!("{count} instances: choose from 1 to {MOST}"))?;
        }
        let distinct = self.instances.iter().collect::<std::collections::BTreeSet<_>>().len();
        require("instances", distinct == self.instances.len(), "a number of instances is there twice")
    }

    fn variants(&self) -> Vec<Variant> {
        let variant =
            |&instances: &u32| Variant { name: instances.to_string(), instances, ..Variant::only(Vec::new()) };
        self.instances.iter().map(variant).collect()
    }
}
