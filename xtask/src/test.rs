//! The README's second command: every check and every test, the cheapest first, and what was skipped.
//!
//! A test that this host can't run says so aloud. Here the skips are counted and printed, and one whose feature the host has, as
//! `sandscope doctor` sees it, is a failure.

use crate::{
    docker, ebpf, images, lab,
    root::{root, target},
    setup::{self, Purpose},
    workloads,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use xshell::{Shell, cmd};

/// What to leave out.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out the lab VM (some minutes).
    #[arg(long)]
    no_lab: bool,
    /// Take no word of the host for what it can't do: fail on every skip but those of the features named by `--allow-skip`.
    #[arg(long)]
    strict: bool,
    /// Features whose tests may be skipped.
    #[arg(long, value_delimiter = ',')]
    allow_skip: Vec<String>,
}

/// Runs everything and reports what failed at the end.
///
/// # Errors
/// When a check or a test failed, or was skipped without need.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    setup::ensure(shell, Purpose::Test)?;
    let skips = target().join("skipped-tests");
    fs::create_dir_all(target()).context("can't make the folder of the build")?;
    fs::write(&skips, "").with_context(|| format!("can't write {}", skips.display()))?;
    shell.set_var("SANDSCOPE_SKIP_LOG", &skips);

    let mut steps = Steps::default();
    let mut daemon = None;
    steps.run("a Docker daemon for the tests", || {
        daemon = docker::start()?;
        Ok(())
    });
    if let Some((variable, endpoint)) = daemon.as_ref().map(docker::Daemon::endpoint) {
        shell.set_var(variable, endpoint);
    }
    steps.run("formatting", || Ok(cmd!(shell, "cargo fmt --all --check").quiet().run()?));
    steps.run("lints", || {
        cmd!(shell, "cargo clippy --quiet --locked --workspace --all-targets -- -D warnings").quiet().run()?;
        Ok(())
    });
    steps.run("documentation", || {
        let _flags = shell.push_env("RUSTDOCFLAGS", "-D warnings");
        Ok(cmd!(shell, "cargo doc --quiet --locked --workspace --no-deps").quiet().run()?)
    });
    steps.run("the committed BPF object", || ebpf::check(shell));
    steps.run("workloads", || {
        workloads::build(shell)?;
        {
            let _directory = shell.push_dir("workloads/go");
            cmd!(shell, "go vet .").quiet().run()?;
            cmd!(shell, "go test .").quiet().run()?;
        }
        {
            let _directory = shell.push_dir("workloads/node");
            let tests = shell.read_dir("test")?;
            cmd!(shell, "node --test {tests...}").quiet().ignore_stdout().run()?;
        }
        let _directory = shell.push_dir("workloads/python");
        Ok(cmd!(shell, "python3 -m unittest discover --quiet tests").quiet().run()?)
    });
    steps.run("images for virtual machines", || {
        shell.set_var("SANDSCOPE_IMAGES", images::build_for_tests(shell)?);
        Ok(())
    });
    shell.set_var("SANDSCOPE_WORKLOAD_GO", target().join("workloads/go/app"));
    shell.set_var("SANDSCOPE_WORKLOAD_NODE", root().join("workloads/node/main.js"));
    shell.set_var("SANDSCOPE_WORKLOAD_PYTHON", root().join("workloads/python/main.py"));
    shell.set_var("SANDSCOPE_PYTHON", setup::python(shell)?);
    // With one set of packages, or what they share is built with other features for each.
    let others = || "--workspace --exclude sandscope".split(' ');
    steps.run("an object store for the tests", || {
        let others = others();
        cmd!(shell, "cargo build --quiet --locked {others...}").quiet().run()?;
        shell.set_var("SANDSCOPE_OBJECT_STORE", target().join("debug/object-store-server"));
        Ok(())
    });
    steps.run("unit tests", || {
        // The agent optimised: quickstart has built its dependencies so, and the lab takes the same programs.
        let others = others();
        let all = cmd!(shell, "cargo test --quiet --locked --release --package sandscope --lib --bins --no-fail-fast")
            .quiet()
            .run();
        cmd!(shell, "cargo test --quiet --locked {others...} --no-fail-fast").quiet().run()?;
        Ok(all?)
    });
    steps.run("integration tests", || {
        // One at a time: each knows the right answer for a host on which nothing else happens. Optimised: what is measured
        // is what people run. The package alone, as `quickstart` builds it: with the others its dependencies have other
        // features, and would all be built once more.
        cmd!(
            shell,
            "cargo test --quiet --locked --release --package sandscope --test * --no-fail-fast -- --test-threads=1"
        )
        .quiet()
        .run()?;
        Ok(())
    });
    steps.run("loaders, notebooks and traces in Python", || {
        // The one that the integration tests have just built.
        shell.set_var("SANDSCOPE_PROGRAM", target().join("release/sandscope"));
        shell.set_var("PYTHONPATH", root().join("analysis"));
        shell.set_var("PYTHONDONTWRITEBYTECODE", "1");
        let (python, tests) = (setup::python(shell)?, root().join("analysis"));
        Ok(cmd!(shell, "{python} -m pytest --quiet -p no:cacheprovider {tests}").quiet().run()?)
    });
    if !arguments.no_lab {
        steps.run("the lab VM", || lab::execute(&lab::Arguments::of_tests()));
        steps.run("virtual machines in the lab VM", || lab::execute(&lab::Arguments::of_tests_of_machines()?));
    }
    steps.run("skipped tests", || judge(shell, arguments, &skips));
    drop(daemon);
    steps.report()
}

/// Prints the skips, and fails when one of them was needless.
fn judge(shell: &Shell, arguments: &Arguments, log: &Path) -> Result<()> {
    let text = fs::read_to_string(log).with_context(|| format!("can't read {}", log.display()))?;
    let lines: BTreeSet<&str> = text.lines().collect();
    println!("{} tests were skipped", lines.len());
    for line in &lines {
        println!("  {line}");
    }
    let absent = if arguments.strict { BTreeSet::new() } else { absent_features(shell)? };
    let may_be_skipped = |line: &&&str| {
        let feature = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(feature, _)| feature);
        feature.is_some_and(|feature| {
            absent.contains(feature) || arguments.allow_skip.iter().any(|allowed| allowed == feature)
        })
    };
    let needless: Vec<_> = lines.iter().filter(|line| !may_be_skipped(line)).collect();
    if !needless.is_empty() {
        bail!("{} of them concern what this host can do, or should be able to do: {needless:#?}", needless.len());
    }
    Ok(())
}

/// The features of tests that this host lacks, according to `sandscope doctor`.
fn absent_features(shell: &Shell) -> Result<BTreeSet<String>> {
    // The integration tests have built it.
    let program = target().join("release/sandscope");
    // It fails when the main job can't be done; what it prints counts.
    let text = cmd!(shell, "{program} doctor --json").quiet().ignore_status().read()?;
    let examination: serde_json::Value = serde_json::from_str(&text).context("`sandscope doctor --json` is no JSON")?;
    let features = examination["features"].as_array().context("`sandscope doctor --json` names no features")?;
    let absent = features.iter().filter(|feature| feature["verdict"] != "ok").filter_map(|feature| {
        let name = feature["name"].as_str()?;
        // Tests name a sandbox by its kind alone.
        Some(name.strip_prefix("sandbox ").unwrap_or(name).to_owned())
    });
    Ok(absent.collect())
}

/// What was done, how it went, and how long it took.
#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration, Result<()>)>,
}

impl Steps {
    /// Goes on after a failure: who waited this long wants to know all that is wrong.
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        println!("── {name}");
        let start = Instant::now();
        let outcome = step();
        if let Err(error) = &outcome {
            println!("{name}: {error:#}");
        }
        self.done.push((name, start.elapsed(), outcome));
    }

    fn report(self) -> Result<()> {
        println!("──");
        let mut failed = 0;
        for (name, time, outcome) in &self.done {
            let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
            failed += usize::from(outcome.is_err());
            println!("{verdict:6} {:5.0} s  {name}", time.as_secs_f64());
        }
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }
}
