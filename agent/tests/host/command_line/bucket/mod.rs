//! Results in a bucket, by a real server on this machine: as good as those in a directory, and nothing is lost on the way.

mod server;

use super::{PATIENCE, said, sandscope};
use rustix::process::{Pid, Signal, kill_process};
use sandscope::results::Results;
use server::{BUCKET, Server, names};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// A run that needs no privileges, and no more than a second.
const RUN: [&str; 11] = [
    "run",
    "cold-start",
    "--sandbox",
    "process",
    "-n",
    "2",
    "--network",
    "host",
    "--no-probes",
    "--callback-port",
    "3998",
];

fn url(folder: &str) -> String {
    format!("s3://{BUCKET}/{folder}")
}

/// A run whose results go to `out`, by way of `staging`.
fn run_to(out: &str, staging: &Path) -> Command {
    let mut command = sandscope(&RUN);
    command.args(["--out", out, "--staging", staging.to_str().unwrap()]);
    command
}

fn only_run(folder: &Path) -> String {
    let results = Results::open(folder).unwrap();
    assert_eq!(results.runs().len(), 1);
    results.runs()[0].id().to_owned()
}

fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in: {said}");
}

#[test]
fn a_run_into_a_bucket_is_there_as_it_would_be_here() {
    let Some(mut server) = Server::start("a_run_into_a_bucket_is_there_as_it_would_be_here") else { return };
    let home = tempfile::tempdir().unwrap();
    let (here, staging) = (home.path().join("here"), home.path().join("staging"));
    let output = run_to(here.to_str().unwrap(), &staging).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!staging.exists(), "a directory needs no other one");
    // An overloaded server is asked again.
    server.set("refuse 1");
    let output = server.environment(&mut run_to(&url("fleet/a"), &staging)).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("Results: {} (run ", url("fleet/a"))), "{}", said(&output));

    // The same tables with the same columns and as many rows, and nothing is left here.
    let there = server.files("fleet/a");
    let (run_here, run_there) = (only_run(&here), only_run(&there));
    assert_eq!(names(&there, &run_there), names(&here, &run_here));
    assert!(names(&staging, &run_there).is_empty());
    for name in names(&here, &run_here) {
        assert_eq!(
            shape(&there.join(name.replace("RUN", &run_there))),
            shape(&here.join(name.replace("RUN", &run_here)))
        );
    }
    // Read by address as by directory.
    let explain = |what: &str| {
        let output = server.environment(&mut sandscope(&["explain", what, "--json"])).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(explain(&url("fleet/a")), explain(there.to_str().unwrap()));
    assert_eq!(explain(&format!("{}@latest", url("fleet/a"))), explain(there.to_str().unwrap()));
    let read = |what: &str| server.environment(&mut sandscope(&["explain", what])).output().unwrap();
    refused(&read(&url("fleet/b")), &["fleet/b holds no results of sandscope"]);
    refused(&read(&format!("{}@01AAA", url("fleet/a"))), &["fleet/a has not the run `01AAA`; it has", &run_there]);
}

/// Names and types of the columns of a file, and how many rows it has. Only instances and what each has one of are as many in
/// every run.
fn shape(path: &Path) -> (Vec<String>, Option<i64>) {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let metadata = reader.metadata().file_metadata();
    let columns = metadata.schema_descr().columns().iter();
    let as_many = ["runs/", "instances/", "requests/"].iter().any(|table| path.to_string_lossy().contains(table));
    let columns = columns.map(|column| format!("{} {:?}", column.path(), column.physical_type())).collect();
    (columns, as_many.then(|| metadata.num_rows()))
}

#[test]
fn what_can_t_be_written_to_is_refused_before_anything_is_started() {
    let Some(server) = Server::start("what_can_t_be_written_to_is_refused_before_anything_is_started") else { return };
    let home = tempfile::tempdir().unwrap();
    let staging = home.path().join("staging");
    let mut wrong_secret = run_to(&url("x"), &staging);
    refused(
        &server.environment(&mut wrong_secret).env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap(),
        &["can't write to", BUCKET, "credentials in the environment", "Nothing was started"],
    );
    let mut no_bucket = run_to("s3://no-such-bucket/x", &staging);
    refused(&server.environment(&mut no_bucket).output().unwrap(), &["no-such-bucket/x", "a bucket of this name"]);
    let mut no_server = run_to(&url("x"), &staging);
    let no_server = server.environment(&mut no_server).env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    refused(&no_server.output().unwrap(), &["can't write to", "endpoint"]);
    let mut no_account = run_to("az://container/x", &staging);
    no_account.env_remove("AZURE_STORAGE_ACCOUNT_NAME");
    refused(&no_account.output().unwrap(), &["az://container/x can't be used", "Account"]);
    refused(&run_to("ftp://host/x", &staging).output().unwrap(), &["ftp://", "s3://BUCKET/PATH"]);
    assert!(names(&staging, "").is_empty() && names(&server.files("x"), "").is_empty());
}

#[test]
fn an_upload_that_is_killed_loses_nothing_and_can_be_made_good() {
    let Some(mut server) = Server::start("an_upload_that_is_killed_loses_nothing_and_can_be_made_good") else { return };
    let home = tempfile::tempdir().unwrap();
    let staging = home.path().join("staging");
    // The row of the run and two more files; then the server is silent, and whoever waits gives up.
    server.set("answer 3");
    let mut run = run_to(&url("fleet"), &staging);
    let child = server.environment(&mut run).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = end_when_stuck(child, &server, Signal::INT);
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let run = only_run(&staging);
    let upload = format!("sandscope upload {}@{run} {}", staging.display(), url("fleet"));
    assert!(said(&output).contains(&upload), "{}", said(&output));
    let all = names(&staging, &run);
    assert!(all.len() > 10, "{all:?}");
    assert!(names(&server.files("fleet"), &run).len() < all.len());

    // Once more, by the most brutal end.
    server.set("answer 4");
    let arguments = ["upload", &format!("{}@{run}", staging.display()), &url("fleet"), "--remove"];
    let mut again = sandscope(&arguments);
    let child = server.environment(&mut again).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(!end_when_stuck(child, &server, Signal::KILL).status.success());
    assert_eq!(names(&staging, &run), all);
    // What has arrived is whole, and says that the run is not over.
    let results = Results::open(&server.files("fleet")).unwrap();
    assert_eq!(results.runs()[0].row().unwrap().finished_at_unix_ns, None);

    server.set("answer all");
    let output = server.environment(&mut sandscope(&arguments)).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&server.files("fleet"), &run), all);
    assert!(names(&staging, &run).is_empty());
    let results = Results::open(&server.files("fleet")).unwrap();
    assert!(results.runs()[0].row().unwrap().finished_at_unix_ns.is_some());
}

/// Sends a signal to a process that waits for the silent server.
fn end_when_stuck(child: Child, server: &Server, signal: Signal) -> Output {
    server.wait_for("stuck");
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}
