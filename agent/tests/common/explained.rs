//! Virtual machines in a run of the command: started, followed, explained, and nothing left behind.

#![allow(clippy::print_stdout, reason = "what the command printed belongs to a test's report")]

use super::{
    bench::kind,
    dataset::{Row, rows, sum},
    probes,
};
use sandscope::{host::virtualization, probe::Options, testing::skip};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// A kind of machine, and what must be seen of its start.
pub struct Expected {
    pub kind: &'static str,
    pub phases: &'static [&'static str],
    /// Markers, each with who tells.
    pub markers: &'static [(&'static str, &'static str)],
}

/// What is seen of Linux with a workload.
pub const GUEST: [(&str, &str); 7] = [
    ("console_first_byte", "console"),
    ("guest_init", "console"),
    ("guest_app", "console"),
    ("callback", "client"),
    ("first_response", "client"),
    ("guest_listens", "console"),
    ("workload_main", "client"),
];

/// Runs `sandscope run` with these words, and returns what it printed.
pub fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    // Workloads and images are where xtask builds them, unless the environment says otherwise.
    for (variable, folder) in [
        ("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads")),
        ("SANDSCOPE_IMAGES", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/images")),
    ] {
        if std::env::var_os(variable).is_none() {
            command.env(variable, folder);
        }
    }
    let output = command.arg("run").args(arguments).output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{printed}");
    assert!(output.status.success(), "{printed}");
    printed
}

fn of<'a>(rows: &'a [Row], instance: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.text("instance_id") == instance).collect()
}

/// Devices, run directories and processes of instances on this host.
fn left() -> Vec<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let devices = names("/sys/class/net").into_iter().filter(|name| name.starts_with("ss"));
    let runs = names("/run/sandscope").into_iter().filter(|name| Path::new("/run/sandscope").join(name).is_dir());
    let processes = names("/proc").into_iter().filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains("SANDSCOPE_INSTANCE=/run/sandscope/")
    });
    devices.chain(runs).chain(processes).collect()
}

/// Whether the machine can run here; a skip otherwise.
pub fn can_run(test: &str, kind_name: &str) -> bool {
    match kind(kind_name) {
        Ok(_) => true,
        Err(reason) => {
            skip(test, kind_name, reason);
            false
        }
    }
}

/// Starts the machines, and holds the tables against what must be true of them.
///
/// `conditions` are further words for the command.
pub fn explain(test: &str, machines: &[&Expected], workload: &str, lives: usize, conditions: &[&str]) {
    if machines.is_empty() || probes(test, Options::default()).is_none() {
        return;
    }
    let before = left();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let kinds: Vec<_> = machines.iter().map(|machine| machine.kind).collect();
    let (kinds_listed, lives_told) = (kinds.join(","), lives.to_string());
    // Much time: in the lab everything below is emulated.
    let fixed = ["cold-start", "--no-observer-effect", "--seed", "1", "--timeout", "600"];
    let varied =
        ["--sandbox", &kinds_listed, "-n", &lives_told, "--workload", workload, "--out", out.to_str().unwrap()];
    run(&[&fixed[..], &varied, conditions].concat());
    assert_eq!(left(), before, "nothing is left behind");

    let instances = rows(&out, "instances");
    let (attribution, phases, markers) = (rows(&out, "attribution"), rows(&out, "phases"), rows(&out, "markers"));
    let exits = rows(&out, "exits");
    for machine in machines {
        let kind = machine.kind;
        let lived: Vec<_> = instances.iter().filter(|row| row.text("sandbox") == kind).collect();
        assert_eq!(lived.len(), lives, "{kind}");
        for instance in lived {
            let id = instance.text("instance_id");
            assert_eq!(instance.number("ok"), Some(1), "{kind}: {}", instance.text("error"));
            let wall_ns = instance.number("wall_ns").unwrap();
            let phases = of(&phases, id);
            let of_phases: i128 =
                phases.iter().map(|row| row.number("end_ns").unwrap() - row.number("start_ns").unwrap()).sum();
            assert_eq!(of_phases, wall_ns, "{kind}: the phases are the whole time");
            let names: Vec<_> = phases.iter().map(|row| row.text("phase")).collect();
            assert_eq!(names, machine.phases, "{kind}");
            let shares = of(&attribution, id);
            assert_eq!(sum(shares.iter().copied(), "time_ns"), wall_ns, "{kind}: the account is the whole time");
            let unexplained = shares.iter().filter(|share| share.text("category") == "unattributed");
            let unexplained_ns = sum(unexplained.copied(), "time_ns");
            assert!(unexplained_ns * 20 <= wall_ns, "{kind}: {unexplained_ns} of {wall_ns} ns are not explained");
            let roles: BTreeSet<_> = shares.iter().map(|share| share.text("role")).collect();
            assert!(roles.contains("vmm") && roles.contains("vcpu"), "{kind}: {roles:?}");
            let told = of(&markers, id);
            for (marker, source) in machine.markers {
                let found = told.iter().any(|row| row.text("marker") == *marker && row.text("source") == *source);
                assert!(found, "{kind}: {source} has not told {marker}");
            }
            // A KVM that traces exits has seen some of every guest.
            if virtualization::hardware().is_ok() && !kind.contains("tcg") {
                let seen = of(&exits, id);
                let of_guest = sum(seen.iter().copied().filter(|row| row.text("source") == "kvm_exit"), "count");
                assert!(of_guest > 0, "{kind} has no exits");
                let guest = shares.iter().filter(|share| share.text("category") == "guest");
                assert!(sum(guest.copied(), "time_ns") > 0, "{kind} has no time in the guest");
            }
        }
    }
}
