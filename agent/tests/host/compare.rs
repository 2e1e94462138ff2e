//! Comparisons from outside: the command on results that are known to differ, or not to, and its figures beside SciPy's.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use sandscope::{
    record::{
        Dataset, Manifest,
        tables::{Attribution, Instance},
    },
    testing::skip,
};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};
use ulid::Ulid;

fn instance(sandbox: &str, position: u32, wall_ns: Option<u64>) -> Instance {
    Instance {
        experiment: "cold-start".to_owned(),
        variant: String::new(),
        repetition: 0,
        sandbox: sandbox.to_owned(),
        workload: "rust".to_owned(),
        position,
        probes: position.is_multiple_of(2),
        ok: wall_ns.is_some(),
        error: wall_ns.is_none().then(|| "no response".to_owned()),
        wall_ns,
        launched_at_monotonic_ns: Some(5),
        launched_at_unix_ns: None,
        cache: "primed".to_owned(),
        cache_pages_count: None,
        cache_resident_pages_count: None,
        network: "private".to_owned(),
        lost_events_count: 0,
        unattributed_ns: None,
        conditions_json: "{}".to_owned(),
        ..Instance::default()
    }
}

/// A run of these sandboxes, with `count` instances each, half of them with probes, and the mean time of a start.
fn a_run(out: &Path, seed: u64, count: u32, kernel: &str, sandboxes: &[(&str, f64)]) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut manifest = Manifest::new("cold-start", seed);
    manifest.conditions.insert("cache".to_owned(), kernel.to_owned());
    let mut dataset = Dataset::create(out, Ulid::generate(), &manifest).unwrap();
    for (sandbox, mean_ns) in sandboxes {
        for position in 0..count {
            let id = format!("{sandbox}-{position}");
            // In coarse steps, so that some are equal.
            let wall_ns = (mean_ns * random.random_range(0.8..1.2) / 1e4).round() as u64 * 10_000;
            if position.is_multiple_of(2) {
                let share = |category: &str, time_ns| Attribution {
                    phase: "runtime".to_owned(),
                    category: category.to_owned(),
                    time_ns,
                    ..Attribution::default()
                };
                dataset.append(&id, [share("user", wall_ns / 2), share("kernel", wall_ns - wall_ns / 2)]).unwrap();
            }
            dataset.append(&id, [instance(sandbox, position, Some(wall_ns))]).unwrap();
        }
    }
    dataset.flush().unwrap();
}

fn compare(a: &Path, b: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.arg("compare").args([a, b]).args(options).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn row<'a>(comparison: &'a Value, sandbox: &str, group: &str, metric: &str) -> &'a Value {
    let rows = comparison["rows"].as_array().unwrap();
    let is = |row: &&Value| {
        row["sandbox"] == sandbox && row["group"] == group && row["metric"] == metric && row["probes"] != true
    };
    rows.iter().find(is).unwrap_or_else(|| panic!("{sandbox} {group} {metric}: {comparison:#}"))
}

#[test]
fn what_became_slower_is_worse_and_what_did_not_is_not() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    a_run(&a, 1, 80, "primed", &[("runc", 25e6), ("gvisor", 150e6), ("process", 1e6)]);
    a_run(&b, 2, 80, "evicted", &[("runc", 35e6), ("gvisor", 150e6), ("crun", 1e6)]);
    let output = compare(&a, &b, &["--json"]);
    assert!(output.status.success());
    let comparison = json(&output);
    let runc = row(&comparison, "runc", "start", "time");
    assert_eq!((&runc["verdict"], &runc["primary"], &runc["a_count"]), (&"worse".into(), &true.into(), &40.into()));
    let difference = runc["difference_ratio"].as_f64().unwrap();
    assert!((0.25..0.55).contains(&difference), "{difference}");
    assert_eq!(row(&comparison, "gvisor", "start", "time")["verdict"], "no_difference_seen");
    assert_eq!(row(&comparison, "runc", "failed", "instances")["verdict"], "no_difference_seen");
    let user = row(&comparison, "runc", "time", "user");
    assert_eq!((&user["verdict"], &user["primary"]), (&"worse".into(), &false.into()));
    let changed = serde_json::json!([{"condition": "conditions.cache", "a": ["primed"], "b": ["evicted"]}]);
    assert_eq!(comparison["changed_conditions"], changed);
    let unpaired = serde_json::json!(["process, workload rust is in A alone", "crun, workload rust is in B alone"]);
    assert_eq!(comparison["unpaired"], unpaired);

    let text = String::from_utf8(compare(&a, &b, &[]).stdout).unwrap();
    assert!(text.contains("Not the same on both sides: conditions.cache (primed → evicted)."), "{text}");
    assert!(text.contains("Primary metrics: 1 worse, 3 no difference seen"), "{text}");
    let markdown = String::from_utf8(compare(&a, &b, &["--markdown"]).stdout).unwrap();
    assert!(markdown.contains("| runc/rust | start time, without probes | 2"), "{markdown}");

    let code = |a: &Path, b: &Path, options: &[&str]| compare(a, b, options).status.code();
    assert_eq!(code(&a, &b, &["--fail-on-regression"]), Some(1));
    assert_eq!(code(&a, &b, &["--fail-on-regression", "--tolerate", "100"]), Some(0));
    assert_eq!(code(&b, &a, &["--fail-on-regression"]), Some(0), "better is no regression");
    assert_eq!(code(&a, &home.path().join("nowhere"), &[]), Some(2));
}

#[test]
fn failures_where_there_were_none_are_a_regression() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    for (out, failing) in [(&a, 0), (&b, 12)] {
        let mut dataset = Dataset::create(out, Ulid::generate(), &Manifest::new("cold-start", 1)).unwrap();
        for position in 0..40 {
            let wall_ns = (position >= failing).then(|| 1_000_000 + u64::from(position * 7 % 40));
            dataset.append(&position.to_string(), [instance("runc", position, wall_ns)]).unwrap();
        }
        dataset.flush().unwrap();
    }
    let output = compare(&a, &b, &["--json", "--fail-on-regression", "--tolerate", "50"]);
    assert_eq!(output.status.code(), Some(1));
    let comparison = json(&output);
    let failed = row(&comparison, "runc", "failed", "instances");
    assert_eq!((&failed["verdict"], &failed["b_center"]), (&"worse".into(), &0.3.into()));
    assert_eq!(row(&comparison, "runc", "start", "time")["verdict"], "no_difference_seen");
}

#[test]
fn figures_agree_with_scipy() {
    let Some(python) = std::env::var_os("SANDSCOPE_PYTHON") else {
        return skip("figures_agree_with_scipy", "python", "SANDSCOPE_PYTHON is not set");
    };
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    // Few instances too, for the exact distribution of the rank test.
    for (number, count) in [(1, 14), (2, 60), (3, 101)] {
        let sandboxes = [("runc", 25e6), ("gvisor", 150e6), ("process", 1e6)].map(|(name, mean)| (name, mean));
        let named = sandboxes.map(|(name, mean)| (format!("{name}-{count}"), mean));
        let borrowed = named.each_ref().map(|(name, mean)| (name.as_str(), *mean));
        a_run(&a, number, count, "primed", &borrowed);
        a_run(&b, number + 10, count, "primed", &borrowed.map(|(name, mean)| (name, mean * 1.05)));
    }
    let comparison = compare(&a, &b, &["--json"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check_comparison.py");
    let mut check =
        Command::new(python).arg(script).args([&a, &b]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), &comparison.stdout).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "9 starts agree");
}
