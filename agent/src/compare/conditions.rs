//! What is not the same on both sides of a comparison besides what one wants to compare.

use crate::results::{Error, Results};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of the manifest that say under which conditions figures hold.
const PARTS: [&str; 5] = ["host", "conditions", "sandboxes", "workload", "sandscope_version"];

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
    let (a, b) = (conditions(a)?, conditions(b)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let values = |side: &BTreeMap<String, BTreeSet<String>>, name: &String| -> Vec<String> {
        side.get(name).into_iter().flatten().cloned().collect()
    };
    let both =
        names.into_iter().map(|name| Changed { condition: name.clone(), a: values(&a, name), b: values(&b, name) });
    Ok(both.filter(|condition| condition.a != condition.b).collect())
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
