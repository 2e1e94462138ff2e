//! Conditions of instances: what was asked for is in force, and is written down.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{
    bench::{Bench, await_failure, await_ready, kind, workload_executable},
    dataset::{rows, sum},
    program::{hog, write_executable},
};
use sandscope::{sandbox::resources::FileSharing, testing::skip};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What the test needs, or a skip that says what is missing.
macro_rules! need {
    ($test:expr, $feature:expr, $what:expr) => {
        match $what {
            Ok(value) => value,
            Err(reason) => return skip($test, $feature, &reason),
        }
    };
}

/// The first of these files in the cgroup of an instance, in whichever hierarchy it is.
fn cgroup_file(label: &str, names: &[&str]) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let candidates = mounts
        .flat_map(|mount| names.iter().map(move |name| Path::new(mount).join(format!("sandscope-{label}")).join(name)));
    candidates.into_iter().find(|file| file.is_file())
}

#[test]
fn a_container_has_the_memory_and_cpus_that_were_asked_for() {
    const TEST: &str = "a_container_has_the_memory_and_cpus_that_were_asked_for";
    let kind = need!(TEST, "runc", kind("runc"));
    let executable = need!(TEST, "workload", workload_executable());
    let bench = Bench::new();
    let mut specification = bench.specification("limits", &executable);
    specification.resources.memory_bytes = Some(96 << 20);
    specification.resources.vcpus = Some(1);
    let mut instance = kind.prepare(&specification).unwrap();
    instance.launch().unwrap();
    await_ready(&bench.callback, "limits", &mut *instance);
    let memory = cgroup_file("limits", &["memory.max", "memory.limit_in_bytes"]).expect("a limit of memory");
    assert_eq!(fs::read_to_string(&memory).unwrap().trim(), (96 << 20).to_string(), "{}", memory.display());
    let quota = cgroup_file("limits", &["cpu.max", "cpu.cfs_quota_us"]).expect("a limit of CPU time");
    let text = fs::read_to_string(&quota).unwrap();
    assert_eq!(text.split_whitespace().next(), Some("100000"), "{}: {text}", quota.display());
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("limits"), [""; 0]);

    // And who wants more than that gets no further.
    let path = bench.base.join("hog");
    write_executable(&path, &hog());
    let mut specification = bench.specification("hog", &path);
    specification.resources.memory_bytes = Some(96 << 20);
    let mut instance = kind.prepare(&specification).unwrap();
    instance.launch().unwrap();
    let failure = await_failure(&mut *instance);
    assert!(failure.contains("137") || failure.contains("signal: 9"), "{failure}");
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("hog"), [""; 0]);
    fs::remove_file(path).unwrap();
}

/// Bytes of the largest mapping of the process that an instance started.
fn largest_mapping(directory: &Path) -> u64 {
    let mark = format!("SANDSCOPE_INSTANCE={}\0", directory.display());
    let process = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).find(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&mark)
    });
    let maps = fs::read_to_string(process.expect("a process of the instance").join("maps")).unwrap();
    let sizes =
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with("rw"))).map(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            u64::from_str_radix(end, 16).unwrap() - u64::from_str_radix(start, 16).unwrap()
        });
    sizes.max().unwrap()
}

#[test]
fn a_machine_has_the_memory_that_was_asked_for() {
    const TEST: &str = "a_machine_has_the_memory_that_was_asked_for";
    for (name, label) in [("qemu-floor", "room1"), ("qemu-tcg-floor", "room2"), ("firecracker-floor", "room3")] {
        let machine = match kind(name) {
            Ok(machine) => machine,
            Err(reason) => {
                skip(TEST, name, reason);
                continue;
            }
        };
        let bench = Bench::new();
        let mut specification = bench.specification(label, Path::new("/unused"));
        // More than anything else that a VMM maps for itself.
        specification.resources.memory_bytes = Some(1536 << 20);
        let mut instance = machine.prepare(&specification).unwrap();
        assert_eq!(instance.conditions()["memory"], "1536M", "{name}");
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut *instance);
        assert_eq!(largest_mapping(&specification.directory), 1536 << 20, "{name}");
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
    }
}

#[test]
fn files_are_shared_copied_or_below_a_layer_before_the_launch() {
    const TEST: &str = "files_are_shared_copied_or_below_a_layer_before_the_launch";
    let kind = need!(TEST, "runc", kind("runc"));
    let executable = need!(TEST, "workload", workload_executable());
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
    for (label, files, names) in [
        ("shared", FileSharing::Shared, ["hard link", "bind mount"].as_slice()),
        ("copy", FileSharing::Copy, &["copy"]),
        ("overlay", FileSharing::Overlay, &["overlay"]),
    ] {
        let bench = Bench::new();
        let mut specification = bench.specification(label, &executable);
        specification.resources.files = files;
        let mut instance = kind.prepare(&specification).unwrap();
        let said = instance.conditions()["files"].as_str();
        assert!(names.contains(&said), "{said}");
        // All is there before the timed window.
        let inside = specification.directory.join("bundle/rootfs/app");
        assert_eq!(fs::read(&inside).unwrap(), fs::read(&executable).unwrap(), "{label}");
        assert_eq!(inode(&inside) == inode(&executable), files == FileSharing::Shared, "{label}");
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut *instance);
        instance.stop().unwrap();
        assert_eq!(bench.leftovers(label), [""; 0]);
        assert!(executable.is_file());
    }
}

#[test]
fn pinned_instances_stay_on_their_cpu_and_conditions_are_written_down() {
    const TEST: &str = "pinned_instances_stay_on_their_cpu_and_conditions_are_written_down";
    if crate::common::probes(TEST, sandscope::probe::Options::default()).is_none() {
        return;
    }
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let output = Command::new(env!("CARGO_BIN_EXE_sandscope"))
        .env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"))
        .args(["run", "cold-start", "--no-observer-effect", "--sandbox", "process", "-n", "3"])
        .args(["--cpus", &last.to_string(), "--console", "false", "--files", "copy", "--memory", "64M"])
        .args(["--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    let threads = rows(&out, "sched");
    let of_workload: Vec<_> = threads.iter().filter(|row| row.text("role") == "workload").collect();
    assert!(!of_workload.is_empty());
    assert_eq!(sum(of_workload, "migrations_count"), 0, "a pinned thread stays where it is");
    let manifest: serde_json::Value = serde_json::from_str(rows(&out, "runs")[0].text("manifest_json")).unwrap();
    let conditions = &manifest["conditions"];
    for (name, value) in
        [("cpus", last.to_string().as_str()), ("console", "false"), ("files", "copy"), ("memory_bytes", "67108864")]
    {
        assert_eq!(conditions[name], value, "{conditions}");
    }
}
