//! What is not the same on both sides of a comparison besides what one wants to compare.

use crate::{
    record::tables::Instance,
    report::units::percent,
    results::{Error, Results},
    statistics::median,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of the manifest that say under which conditions figures hold.
const PARTS: [&str; 5] = ["host", "conditions", "sandboxes", "workload", "sandscope_version"];

/// Share of the host's CPUs by which what others used may differ.
const LOAD: f64 = 0.10;

/// A condition with different values on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its place in the manifest, such as `host.kernel_release`.
    pub condition: String,
    /// All its values in the baseline; none where it is not written down.
    pub a: Vec<String>,
    /// The same in what is compared.
    pub b: Vec<String>,
}

/// The conditions that differ, in alphabetical order.
pub(super) fn changed(a: &Results, b: &Results) -> Result<Vec<Changed>, Error> {
    let load = load(a, b)?;
    let (a, b) = (conditions(a)?, conditions(b)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let values = |side: &BTreeMap<String, BTreeSet<String>>, name: &String| -> Vec<String> {
        side.get(name).into_iter().flatten().cloned().collect()
    };
    let both =
        names.into_iter().map(|name| Changed { condition: name.clone(), a: values(&a, name), b: values(&b, name) });
    Ok(load.into_iter().chain(both.filter(|condition| condition.a != condition.b)).collect())
}

/// What others used of the CPUs right before the instances, if that was not alike.
fn load(a: &Results, b: &Results) -> Result<Option<Changed>, Error> {
    let (Some(before), Some(after)) = (median(&loads(a)?), median(&loads(b)?)) else { return Ok(None) };
    let changed = || Changed { condition: "host load".to_owned(), a: vec![percent(before)], b: vec![percent(after)] };
    Ok(((before - after).abs() > LOAD).then(changed))
}

fn loads(results: &Results) -> Result<Vec<f64>, Error> {
    let mut loads = Vec::new();
    for run in results.runs() {
        for instance in run.observed::<Instance>()?.iter().flat_map(|table| &table.rows) {
            loads.extend(instance.host_busy_ratio());
        }
    }
    Ok(loads)
}

/// Each condition with all values that it has in the runs.
fn conditions(results: &Results) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
    let mut conditions = BTreeMap::new();
    for run in results.runs() {
        // A manifest that is no JSON says nothing.
        let manifest: Value = serde_json::from_str(&run.row()?.manifest_json).unwrap_or_default();
        for part in PARTS {
            flatten(part, &manifest[part], &mut conditions);
        }
    }
    Ok(conditions)
}

fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(member, value)| flatten(&format!("{name}.{member}"), value, into));
        }
        Value::Null => {}
        Value::String(text) => {
            into.entry(name.to_owned()).or_default().insert(text.clone());
        }
        other => {
            into.entry(name.to_owned()).or_default().insert(other.to_string());
        }
    }
}
