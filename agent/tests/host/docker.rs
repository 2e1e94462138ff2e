//! The Docker daemon's sandboxes from outside: the command is typed, and the daemon asked what it has afterwards.
//!
//! Needs root and a daemon at `DOCKER_HOST` (`cargo xtask test` starts one; `cargo xtask docker -- COMMAND` too). What the host
//! lacks is skipped aloud.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{
    dataset::{Row, parts, rows, sum},
    disturbance::undisturbed,
    program::{hog, printing, write_executable},
};
use anyhow::ensure;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{ContainerCreateBody, ContainerInspectResponse},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    },
};
use sandscope::{
    probe::{Limits, Options},
    sandbox,
    testing::skip,
};
use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the host has the sandbox; says so if not.
fn has(test: &str, kind: &str) -> bool {
    let support = sandbox::find(kind).unwrap().support();
    if !support.is_usable() {
        skip(test, kind, support.evidence());
    }
    support.is_usable()
}

fn sandscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"));
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The daemon that the environment names, asked by the test itself.
struct Witness {
    runtime: tokio::runtime::Runtime,
    client: Docker,
}

impl Witness {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        let client = runtime.block_on(async {
            Docker::connect_with_unix(&endpoint, 60, API_DEFAULT_VERSION).unwrap().negotiate_version().await.unwrap()
        });
        Self { runtime, client }
    }

    /// Names of the containers that sandscope has made.
    fn containers(&self) -> Vec<String> {
        let filters = HashMap::from([("label", vec!["sandscope.instance"])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self.runtime.block_on(self.client.list_containers(Some(options))).unwrap();
        containers.into_iter().filter_map(|container| container.names?.pop()).collect()
    }

    /// Names of the images that sandscope has made.
    fn images(&self) -> Vec<String> {
        let filters = HashMap::from([("label", vec!["sandscope.workload"])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = self.runtime.block_on(self.client.list_images(Some(options))).unwrap();
        images.into_iter().flat_map(|image| image.repo_tags).collect()
    }

    /// A container that sandscope has made, as soon as it runs.
    fn await_container(&self) -> ContainerInspectResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for name in self.containers() {
                let name = name.trim_start_matches('/');
                let inspected = self.client.inspect_container(name, None::<InspectContainerOptions>);
                let Ok(container) = self.runtime.block_on(inspected) else { continue };
                if container.state.as_ref().and_then(|state| state.running) == Some(true) {
                    return container;
                }
            }
            assert!(Instant::now() < deadline, "no container runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn make_orphan(&self, image: &str) {
        let options = CreateContainerOptionsBuilder::new().name("sandscope-orphan").build();
        let labels = HashMap::from([("sandscope.instance".to_owned(), "/run/sandscope/gone/orphan".to_owned())]);
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["/app".to_owned()]),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        self.runtime.block_on(self.client.create_container(Some(options), body)).unwrap();
    }

    /// All that is left of instances, also where the daemon does not look: its shims, and devices on its bridge.
    fn leftovers(&self) -> Vec<String> {
        let mut found = self.containers();
        let processes = procfs::process::all_processes().unwrap().flatten();
        let lines = processes.filter_map(|process| process.cmdline().ok());
        let ours = |line: &Vec<String>| {
            line.first().is_some_and(|program| program.contains("containerd-shim"))
                && line.iter().any(|word| word.starts_with(&self.directory()))
                || line.iter().any(|word| word.contains("/ready/"))
        };
        found.extend(lines.filter(ours).map(|line| line.join(" ")));
        let network = self.client.inspect_network("bridge", None);
        let options = self.runtime.block_on(network).unwrap().options.unwrap();
        let bridge = &options["com.docker.network.bridge.name"];
        let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap().flatten();
        found.extend(ports.map(|port| port.file_name().to_string_lossy().into_owned()));
        found
    }

    /// The folder of the daemon of the tests.
    fn directory(&self) -> String {
        let endpoint = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = Path::new(endpoint.trim_start_matches("unix://"));
        socket.parent().unwrap_or(Path::new("/run/containerd")).display().to_string()
    }

    /// Waits until nothing is left: the daemon ends shims and takes devices away a moment after it has said so.
    fn assert_nothing_left(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.leftovers().is_empty() {
            assert!(Instant::now() < deadline, "{:#?}", self.leftovers());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn of<'a>(rows: &'a [Row], instance: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.text("instance_id") == instance).collect()
}

/// Three cold starts: they are explained to the last nanosecond, everybody has rows of its own, and nothing is left. The response
/// waits for each role of `path` in every start; for those `beside` it only where they are late.
fn explain_and_leave_nothing(test: &str, kind: &str, path: &[&str], beside: &[&str]) {
    if !has(test, kind) || crate::common::probes(test, Options::default()).is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let arguments = ["run", "cold-start", "--sandbox", kind, "-n", "3", "--out", out.to_str().unwrap()];
    let output = sandscope(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));

    let (instances, attribution) = (rows(&out, "instances"), rows(&out, "attribution"));
    let (markers, net, sched) = (rows(&out, "markers"), rows(&out, "net"), rows(&out, "sched"));
    assert_eq!(instances.len(), 6);
    for instance in &instances {
        let id = instance.text("instance_id");
        assert_eq!(instance.number("ok"), Some(1), "{}", instance.text("error"));
        let conditions: serde_json::Value = serde_json::from_str(instance.text("conditions_json")).unwrap();
        for condition in ["window", "runtime", "files", "log", "frames", "seccomp"] {
            assert!(conditions[condition].is_string(), "{condition} is not in {conditions}");
        }
        if instance.number("probes") == Some(0) {
            continue;
        }
        let wall_ns = instance.number("wall_ns").unwrap();
        let shares = of(&attribution, id);
        assert_eq!(sum(shares.iter().copied(), "time_ns"), wall_ns, "the account is the whole time");
        let unattributed = shares.iter().filter(|share| share.text("category") == "unattributed");
        let unexplained_ns = sum(unattributed.copied(), "time_ns");
        assert!(unexplained_ns * 20 <= wall_ns, "{unexplained_ns} of {wall_ns} ns are not explained");
        for role in path {
            let own = shares.iter().filter(|share| share.text("role") == *role);
            assert!(sum(own.copied(), "time_ns") > 0, "no time of {role}");
        }
        for role in path.iter().chain(beside) {
            let threads = of(&sched, id).into_iter().filter(|thread| thread.text("role") == *role);
            assert!(sum(threads, "on_cpu_ns") > 0, "{role} was on no CPU");
        }
        for thread in of(&sched, id) {
            assert_ne!(
                thread.text("role"),
                "unknown",
                "thread {} {}",
                thread.number("tid").unwrap(),
                thread.text("comm")
            );
        }
        let at = |name: &str| {
            let found = of(&markers, id).into_iter().find(|marker| marker.text("marker") == name);
            found.unwrap_or_else(|| panic!("no marker {name}")).number("at_ns").unwrap()
        };
        // Nobody sends before it is there: the first frame is the workload's callback, or the question for its address.
        assert!(0 < at("first_exec") && at("first_exec") < at("workload_main") && at("workload_main") < at("listen"));
        assert!(at("listen") < at("first_frame_out") && at("first_frame_out") < at("callback"));
        assert!(at("callback") < at("first_response") && at("first_response") == wall_ns);
        // Callback and first request, each way.
        for row in of(&net, id) {
            assert!(row.number("frames_count") >= Some(6), "{} frames", row.number("frames_count").unwrap());
        }
    }
    let witness = Witness::new();
    witness.assert_nothing_left();
    let images = witness.images().into_iter().filter(|name| name.starts_with("sandscope/rust:")).count();
    assert_eq!(images, 1, "{:?}", witness.images());
}

#[test]
fn with_runc_everybody_has_a_share_of_the_time() {
    let path = ["dockerd", "containerd", "shim", "runtime", "runtime-init", "workload"];
    explain_and_leave_nothing("with_runc_everybody_has_a_share_of_the_time", "docker-runc", &path, &[]);
}

#[test]
fn with_runsc_everybody_has_a_share_of_the_time() {
    // The gofer starts beside the sentry and is most often ready first.
    let path = ["dockerd", "containerd", "shim", "runtime", "sentry"];
    explain_and_leave_nothing("with_runsc_everybody_has_a_share_of_the_time", "docker-runsc", &path, &["gofer"]);
}

#[test]
fn with_crun_everybody_has_a_share_of_the_time() {
    let path = ["dockerd", "containerd", "shim", "runtime", "workload"];
    explain_and_leave_nothing("with_crun_everybody_has_a_share_of_the_time", "docker-crun", &path, &[]);
}

#[test]
fn docker_takes_longer_than_the_runtime_that_it_starts() {
    const TEST: &str = "docker_takes_longer_than_the_runtime_that_it_starts";
    if !has(TEST, "docker-runc") || !has(TEST, "runc") || crate::common::probes(TEST, Options::default()).is_none() {
        return;
    }
    undisturbed(|| {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("results");
        let arguments = ["run", "cold-start", "--sandbox", "docker-runc,runc", "-n", "3", "--no-observer-effect"];
        let output = sandscope(&arguments).args(["--out", out.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let (instances, attribution) = (rows(&out, "instances"), rows(&out, "attribution"));
        // The quickest of three each: other work on the host only ever adds.
        let quickest = |kind: &str| {
            let own = instances.iter().filter(|row| row.text("sandbox") == kind);
            own.min_by_key(|row| row.number("wall_ns")).unwrap()
        };
        let (docker, runc) = (quickest("docker-runc"), quickest("runc"));
        let added_ns = docker.number("wall_ns").unwrap() - runc.number("wall_ns").unwrap();
        ensure!(added_ns > 0, "{added_ns} ns");
        // What is Docker's own, by name: that is the explanation of what it adds.
        let named = ["dockerd", "containerd", "shim", "network-hook"];
        let shares = of(&attribution, docker.text("instance_id"));
        let own_ns = sum(shares.into_iter().filter(|share| named.contains(&share.text("role"))), "time_ns");
        println!("docker adds {added_ns} ns to runc; {own_ns} ns are its own work");
        ensure!(own_ns * 2 > added_ns, "{own_ns} of {added_ns} ns");
        Ok(())
    });
}

// ---- limits and conditions ------------------------------------------------------------------------------------------

/// A workload that prints for ever and never calls back.
fn flooder(folder: &Path) -> String {
    let path = folder.join("flooder");
    write_executable(&path, &printing(&"all work and no play ".repeat(50), true));
    path.display().to_string()
}

/// Attaches to a container that nobody of ours has started or waits for, twice; the second time the daemon ends it meanwhile.
fn attach_until_it_is_gone(id: &str, home: &Path) {
    if crate::common::aggregate("attach_until_it_is_gone", Limits { threads: 8, vcpus: 1, exits: 8 }).is_none() {
        return;
    }
    let target = format!("container:{id}");
    let attach = |time: &str| {
        let mut agent = sandscope(&["attach", &target, "--for", time, "--json", "--out"]);
        agent.arg(home.join(time)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let output = attach("1s").wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary[0]["target"], target.as_str());
    // Its only process prints for ever.
    assert!(summary[0]["cost"]["cpu_ns"].as_u64().unwrap() > 0, "{summary:#}");
    assert!(rows(&home.join("1s"), "threads").iter().any(|row| row.text("comm") == "app"), "{summary:#}");
    let watching = attach("60s");
    // It writes what it is about to do, attaches, and then watches for a while.
    let deadline = Instant::now() + PATIENCE;
    while parts(&home.join("60s"), "runs").is_empty() {
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    let witness = Witness::new();
    witness.runtime.block_on(witness.client.kill_container(id, None)).unwrap();
    let output = watching.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("ended after"), "{}", said(&output));
}

#[test]
fn limits_reach_the_container_and_a_killed_agent_is_cleaned_up_after() {
    const TEST: &str = "limits_reach_the_container_and_a_killed_agent_is_cleaned_up_after";
    if !has(TEST, "docker") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (workload, out) = (flooder(home.path()), home.path().join("results"));
    let arguments = ["run", "cold-start", "--sandbox", "docker", "-n", "1", "--no-probes", "--timeout", "60"];
    let limits = ["--memory", "64M", "--vcpus", "1", "--cpus", "0"];
    let mut agent = sandscope(&arguments);
    agent.args(limits).args(["--workload", &workload, "--out", out.to_str().unwrap()]);
    let mut agent = agent.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let witness = Witness::new();
    let container = witness.await_container();
    let host_config = container.host_config.unwrap();
    assert_eq!(host_config.memory, Some(64 << 20));
    assert_eq!(host_config.nano_cpus, Some(1_000_000_000));
    assert_eq!(host_config.cpuset_cpus.as_deref(), Some("0"));
    assert_eq!(host_config.readonly_rootfs, Some(true));
    assert_eq!(host_config.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host_config.log_config.unwrap().config.unwrap()["max-size"], "1m");

    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(!witness.leftovers().is_empty(), "a container outlives the agent");
    attach_until_it_is_gone(&container.id.unwrap(), home.path());
    let cleaned = sandscope(&["clean"]).output().unwrap();
    assert!(cleaned.status.success(), "{}", said(&cleaned));
    assert!(said(&cleaned).contains("removed what the run"), "{}", said(&cleaned));
    witness.assert_nothing_left();
}

#[test]
fn conditions_that_are_asked_for_are_kept() {
    const TEST: &str = "conditions_that_are_asked_for_are_kept";
    if !has(TEST, "docker") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let witness = Witness::new();
    let variants: [(&str, &[&str], &str); 4] = [
        ("copy", &["--files", "copy"], "of its own"),
        ("overlay", &["--files", "overlay"], "below a writable one"),
        ("silent", &["--console", "false"], "read-only"),
        ("host", &["--network", "host"], "read-only"),
    ];
    for (name, options, files) in variants {
        let out = home.path().join(name);
        let arguments = ["run", "cold-start", "--sandbox", "docker", "-n", "1", "--no-probes"];
        let output = sandscope(&arguments).args(options).args(["--out", out.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        let instances = rows(&out, "instances");
        assert_eq!(instances[0].number("ok"), Some(1), "{name}");
        let conditions = instances[0].text("conditions_json");
        assert!(conditions.contains(files), "{name}: {conditions}");
        witness.assert_nothing_left();
        assert!(witness.images().iter().all(|image| !image.contains("copy")), "{:?}", witness.images());
    }
}

#[test]
fn what_nobody_needs_goes_from_the_daemon() {
    const TEST: &str = "what_nobody_needs_goes_from_the_daemon";
    if !has(TEST, "docker") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let witness = Witness::new();
    let path = home.path().join("changing");
    let mut seen = Vec::new();
    for text in ["first\n", "second\n"] {
        write_executable(&path, &printing(text, false));
        let out = home.path().join(text.trim());
        let arguments = ["run", "cold-start", "--sandbox", "docker", "-n", "1", "--no-probes"];
        let paths = ["--workload", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let output = sandscope(&arguments).args(paths).output().unwrap();
        assert!(said(&output).contains(text.trim()), "{}", said(&output));
        let images: Vec<_> =
            witness.images().into_iter().filter(|name| name.starts_with("sandscope/changing:")).collect();
        assert_eq!(images.len(), 1, "{images:?}");
        seen.extend(images);
    }
    assert_ne!(seen[0], seen[1]);
    // A container whose instance is gone: the agent was killed while the daemon made it.
    witness.make_orphan(&seen[1]);
    assert_eq!(witness.containers(), ["/sandscope-orphan"]);
    let removed = sandbox::docker::sweep().unwrap();
    assert!(removed.contains(&format!("the image {}", seen[1])), "{removed:?}");
    assert!(removed.contains(&"the container sandscope-orphan".to_owned()), "{removed:?}");
    assert_eq!(witness.images(), [""; 0]);
    witness.assert_nothing_left();
}

// ---- failures -------------------------------------------------------------------------------------------------------

/// Runs one instance that must fail; returns why, as the results have it.
fn fail(kind: &str, workload: &str, options: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let arguments = ["run", "cold-start", "--sandbox", kind, "-n", "1", "--no-probes", "--workload", workload];
    let output = sandscope(&arguments).args(options).args(["--out", out.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let instances = rows(&out, "instances");
    assert_eq!(instances[0].number("ok"), Some(0));
    instances[0].text("error").to_owned()
}

#[test]
fn containers_that_are_started_at_the_same_time_all_answer_and_are_left_without_probes() {
    const TEST: &str = "containers_that_are_started_at_the_same_time_all_answer_and_are_left_without_probes";
    if !has(TEST, "docker-runc") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (file, out) = (home.path().join("burst.toml"), home.path().join("results"));
    let text = "repetitions = 1\nprobes = \"both\"\n\n[experiment.burst]\ninstances = [3]\n\n\
                [[matrix]]\nexperiments = [\"burst\"]\nsandboxes = [\"docker-runc\"]\nworkloads = [\"rust\"]\n";
    fs::write(&file, text).unwrap();
    let output = sandscope(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let instances = rows(&out, "instances");
    let seen: Vec<_> = instances.iter().map(|row| (row.number("ok"), row.number("probes"))).collect();
    assert_eq!(seen, [(Some(1), Some(0)); 3]);
    Witness::new().assert_nothing_left();
}

#[test]
fn a_container_that_ends_is_told_with_its_exit_code_and_last_words() {
    const TEST: &str = "a_container_that_ends_is_told_with_its_exit_code_and_last_words";
    for kind in ["docker-runc", "docker-runsc"] {
        if !has(TEST, kind) {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("quitter");
        write_executable(&path, &printing("I give up\u{1b}[31m, sorry\n", false));
        let error = fail(kind, path.to_str().unwrap(), &[]);
        assert!(error.contains("ended with exit code 3"), "{kind}: {error}");
        assert!(error.contains(r"I give up\u{1b}[31m, sorry"), "{kind}: {error}");
        let error = fail(kind, path.to_str().unwrap(), &["--console", "false"]);
        assert!(error.contains("exit code 3") && error.contains("not kept"), "{kind}: {error}");
        Witness::new().assert_nothing_left();
    }
}

#[test]
fn a_container_that_takes_too_much_memory_is_told_so() {
    const TEST: &str = "a_container_that_takes_too_much_memory_is_told_so";
    if !has(TEST, "docker-runc") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("hog");
    write_executable(&path, &hog());
    let error = fail("docker-runc", path.to_str().unwrap(), &["--memory", "64M"]);
    assert!(error.contains("exit code 137") && error.contains("want of memory"), "{error}");
    assert!(error.contains("67108864"), "{error}");
    Witness::new().assert_nothing_left();
}

#[test]
fn endless_output_is_bounded_and_the_timeout_kept() {
    const TEST: &str = "endless_output_is_bounded_and_the_timeout_kept";
    if !has(TEST, "docker-runc") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let error = fail("docker-runc", &flooder(home.path()), &["--timeout", "8"]);
    assert!(error.contains("not ready within 8s") && error.contains("all work and no play"), "{error}");
    assert!(error.len() < 4096, "{} bytes", error.len());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    Witness::new().assert_nothing_left();
}

#[test]
fn a_workload_that_is_a_folder_becomes_an_image() {
    const TEST: &str = "a_workload_that_is_a_folder_becomes_an_image";
    if !has(TEST, "docker") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("odd");
    for place in ["proc", "dev", "tmp", "bin"] {
        fs::create_dir_all(folder.join("root").join(place)).unwrap();
    }
    fs::write(folder.join("workload.toml"), "command = [\"/bin/it\"]\nstart-files = []\n").unwrap();
    fs::write(folder.join("root/static_file"), "").unwrap();
    write_executable(&folder.join("root/bin/it"), &printing("it was there\n", false));
    let error = fail("docker", folder.to_str().unwrap(), &[]);
    assert!(error.contains("exit code 3") && error.contains("it was there"), "{error}");
    Witness::new().assert_nothing_left();
}

#[test]
fn a_daemon_that_is_not_there_is_said_with_the_way_out() {
    for (endpoint, expected) in [
        ("unix:///nowhere/docker.sock", "/nowhere/docker.sock"),
        ("tcp://192.0.2.1:2375", "tcp://192.0.2.1:2375"),
        ("unix:///dev/null", "/dev/null"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("results");
        let arguments = ["run", "cold-start", "--sandbox", "docker", "--out", out.to_str().unwrap()];
        let output = sandscope(&arguments).env("DOCKER_HOST", endpoint).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let said = said(&output);
        assert!(said.contains(expected) && said.contains("dockerd") && said.contains("DOCKER_HOST"), "{said}");
        assert!(!out.exists());
    }
    let listed = sandscope(&["sandboxes"]).env("DOCKER_HOST", "unix:///nowhere/docker.sock").output().unwrap();
    let listed = said(&listed);
    for kind in ["docker ", "docker-runc ", "docker-runsc ", "docker-crun ", "docker-kata "] {
        let line = listed.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}: {listed}"));
        assert!(line.contains("unsupported"), "{line}");
    }
}

#[test]
fn a_runtime_that_the_daemon_does_not_have_is_said_with_those_it_has() {
    const TEST: &str = "a_runtime_that_the_daemon_does_not_have_is_said_with_those_it_has";
    if !has(TEST, "docker") {
        return;
    }
    let output = sandscope(&["run", "cold-start", "--sandbox", "docker-rnuc"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let said = said(&output);
    assert!(said.contains("no runtime `rnuc`") && said.contains("did you mean `runc`?"), "{said}");
    assert!(said.contains("daemon.json"), "{said}");
}
