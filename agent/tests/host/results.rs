//! Results read back: what was written, what an earlier version wrote, and what is no result at all.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use arrow_array::RecordBatch;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::{metadata::KeyValue, properties::WriterProperties},
};
use sandscope::{
    record::{
        Dataset, Limits, Manifest, SCHEMA_VERSION,
        tables::{Exit, Marker, Phase},
    },
    results::{Error, Results},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;
use ulid::Ulid;

fn phase(number: u64) -> Phase {
    let at = i64::try_from(number).unwrap();
    Phase { phase: format!("phase {number}"), start_ns: at, end_ns: 2 * at, time_ns: number }
}

fn exit(detail: Option<&str>, time_ns: Option<u64>, buckets: &[u64]) -> Exit {
    Exit {
        vcpu: 1,
        source: "kvm_exit".to_owned(),
        reason: "io".to_owned(),
        detail: detail.map(str::to_owned),
        count: 3,
        time_ns,
        kernel_ns: None,
        vmm_ns: None,
        blocked_ns: None,
        polled_ns: None,
        runnable_ns: None,
        bucket_floor_ns: buckets.to_vec(),
        bucket_count: buckets.to_vec(),
    }
}

/// A run with 250 phases in three files, and two rows of exits.
fn a_run(out: &Path) -> Ulid {
    let run_id = Ulid::generate();
    let dataset = Dataset::create(out, run_id, &Manifest::new("cold-start", 7)).unwrap();
    let mut dataset = dataset.with_limits(Limits { rows_count: 100, ..Limits::default() });
    dataset.append("one", (0..250).map(phase)).unwrap();
    dataset.append("one", [exit(Some("port"), Some(700), &[100, 500])]).unwrap();
    dataset.append("two", [exit(None, None, &[])]).unwrap();
    dataset.flush().unwrap();
    run_id
}

fn part(out: &Path, table: &str, run_id: Ulid) -> PathBuf {
    out.join(format!("{table}/run={run_id}/part-0.parquet"))
}

/// Writes a file anew, without some of its columns and with this as its version of the schema.
fn rewrite(path: &Path, without: &[&str], version: Option<u32>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let keep = |batch: &RecordBatch| {
        let fields = batch.schema();
        let kept = (0..fields.fields().len()).filter(|index| !without.contains(&fields.field(*index).name().as_str()));
        batch.project(&kept.collect::<Vec<_>>()).unwrap()
    };
    let metadata = version.map(|version| vec![KeyValue::new("schema_version".to_owned(), version.to_string())]);
    let properties = WriterProperties::builder().set_key_value_metadata(metadata).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, keep(&batches[0]).schema(), Some(properties)).unwrap();
    for batch in &batches {
        writer.write(&keep(batch)).unwrap();
    }
    writer.close().unwrap();
}

fn explain(what: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandscope")).args(["explain", what]).output().unwrap()
}

/// What the command says when it refuses; it must do so by the exit code of a bad request.
fn refusal(what: &str) -> String {
    let output = explain(what);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    said
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn rows_come_back_as_they_were_written_in_their_order() {
    let out = scratch();
    let first = a_run(out.path());
    let second = a_run(out.path());
    let results = Results::open(out.path()).unwrap();
    let ids: Vec<_> = results.runs().iter().map(|run| run.id().to_owned()).collect();
    assert_eq!(ids, [first.to_string(), second.to_string()]);
    let phases = results.runs()[0].table::<Phase>().unwrap();
    assert!(phases.missing.is_empty());
    assert_eq!(phases.of("one").cloned().collect::<Vec<_>>(), (0..250).map(phase).collect::<Vec<_>>());
    let exits = results.runs()[1].table::<Exit>().unwrap();
    assert_eq!(exits.rows[0].row, exit(Some("port"), Some(700), &[100, 500]));
    assert_eq!((exits.rows[1].instance_id.as_str(), &exits.rows[1].row), ("two", &exit(None, None, &[])));
    let about = results.runs()[0].row().unwrap();
    assert_eq!((about.seed, about.finished_at_unix_ns), (7, None));
}

#[test]
fn a_table_that_was_not_observed_is_absent_and_not_empty() {
    let out = scratch();
    a_run(out.path());
    let results = Results::open(out.path()).unwrap();
    let error = results.runs()[0].table::<Marker>().unwrap_err();
    assert!(error.is_absence() && error.to_string().ends_with("did not observe the table `markers`"), "{error}");
}

#[test]
fn what_an_earlier_version_did_not_write_is_named() {
    let out = scratch();
    let run_id = a_run(out.path());
    let exits = part(out.path(), "exits", run_id);
    rewrite(&exits, &["detail", "time_ns"], Some(SCHEMA_VERSION));
    let results = Results::open(out.path()).unwrap();
    let rows = results.runs()[0].table::<Exit>().unwrap();
    assert_eq!(rows.missing, ["detail", "time_ns"]);
    assert_eq!(rows.rows[0].row, exit(None, None, &[100, 500]));

    // One that can't be null is not made up.
    rewrite(&exits, &["count"], Some(SCHEMA_VERSION));
    let error = Results::open(out.path()).unwrap().runs()[0].table::<Exit>().unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }) && error.is_absence());
    assert!(error.to_string().contains("part-0.parquet can't be read as the table `exits`: it has no column `count`"));
}

#[test]
fn files_that_are_no_results_are_refused_by_name() {
    let out = scratch();
    let at = out.path().to_str().unwrap();
    assert!(refusal(at).contains("holds no results of sandscope: there is no runs/run=…/part-….parquet in it"));
    assert!(refusal(&format!("{at}/nowhere")).contains("nowhere holds no results"));
    let run_id = a_run(out.path());
    assert!(explain(at).status.success());
    let runs = part(out.path(), "runs", run_id);
    let whole = fs::read(&runs).unwrap();

    rewrite(&runs, &[], None);
    assert!(refusal(at).contains("part-0.parquet was not written by sandscope"));
    rewrite(&runs, &[], Some(SCHEMA_VERSION + 1));
    let said = refusal(at);
    assert!(said.contains(&format!("has version {} of the schema", SCHEMA_VERSION + 1)), "{said}");
    for content in [b"".as_slice(), b"PAR1", b"no Parquet at all"] {
        fs::write(&runs, content).unwrap();
        let said = refusal(at);
        assert!(said.contains("part-0.parquet is no complete Parquet file"), "{said}");
    }
    fs::write(&runs, &whole).unwrap();
    assert!(explain(at).status.success());
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let out = scratch();
    let run_id = a_run(out.path());
    let path = part(out.path(), "phases", run_id);
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        let results = Results::open(out.path()).unwrap();
        let error = results.runs()[0].table::<Phase>().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{length} of {} bytes: {error}", whole.len());
    }
}

#[test]
fn a_run_is_named_by_how_it_begins() {
    let out = scratch();
    let at = out.path().to_str().unwrap();
    let runs = [a_run(out.path()), a_run(out.path())].map(|run| run.to_string());
    let shown = |what: &str| String::from_utf8(explain(what).stdout).unwrap();
    assert!(runs.iter().all(|run| shown(at).contains(run)));
    let latest = shown(&format!("{at}@latest"));
    assert!(latest.contains(&runs[1]) && !latest.contains(&runs[0]), "{latest}");
    assert_eq!(shown(&format!("{at}@{}", runs[1].to_lowercase())), latest);
    // Both were made in the same millennium.
    assert!(refusal(&format!("{at}@0")).contains("has more than one that begin like the run `0`; it has"));
    assert!(refusal(&format!("{at}@x")).contains("has not the run `x`"));
}
