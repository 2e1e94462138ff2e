//! `sandscope run memory` from outside: the command is typed, and the tables it writes are held against what must be true of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crate::common::dataset::{Row, rows, sum};
use std::process::{Command, Output};

/// Instances of each sandbox.
const INSTANCES: i128 = 10;

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    if std::env::var_os("SANDSCOPE_WORKLOADS").is_none() {
        // The workloads are where xtask builds them.
        command.env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"));
    }
    command.args(["run", "memory"]).args(arguments).output().expect("the program can be started")
}

/// The sandboxes that this host can run; the others are reported as skipped.
fn runnable(test: &str) -> Vec<&'static str> {
    let can_run = |kind: &&str| match crate::common::bench::kind(kind) {
        Ok(_) => true,
        Err(reason) => {
            sandscope::testing::skip(test, kind, reason);
            false
        }
    };
    ["process", "runc", "crun", "gvisor", "kvm-floor"].into_iter().filter(can_run).collect()
}

#[test]
fn ten_instances_of_each_sandbox_have_footprints_and_every_byte_that_the_host_lost_has_a_name() {
    const TEST: &str = "ten_instances_of_each_sandbox_have_footprints_and_every_byte_that_the_host_lost_has_a_name";
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let kinds = runnable(TEST);
    let output =
        run(&["--sandbox", &kinds.join(","), "-n", "10", "--settle", "0.1", "--pages", "--out", out.to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));

    let (instances, memory, host) = (rows(&out, "instances"), rows(&out, "memory"), rows(&out, "memory_host"));
    assert_eq!(instances.len() as i128, INSTANCES * kinds.len() as i128);
    for kind in kinds {
        let ids: Vec<&str> = instances
            .iter()
            .filter(|row| row.text("sandbox") == kind)
            .inspect(|row| assert_eq!(row.number("ok"), Some(1), "{kind}: {}", row.text("error")))
            .map(|row| row.text("instance_id"))
            .collect();
        let of_kind = |row: &&Row| ids.contains(&row.text("instance_id"));
        let steps: Vec<i128> = {
            let mut steps: Vec<_> =
                memory.iter().filter(of_kind).map(|row| row.number("instances_count").unwrap()).collect();
            steps.sort_unstable();
            steps.dedup();
            steps
        };
        assert_eq!(steps, [1, 2, 4, 8, 10], "{kind}");
        for step in steps {
            let at_step: Vec<&Row> =
                memory.iter().filter(of_kind).filter(|row| row.number("instances_count") == Some(step)).collect();
            let measured: std::collections::BTreeSet<_> = at_step.iter().map(|row| row.text("instance_id")).collect();
            assert_eq!(measured.len() as i128, step, "{kind}: each instance that runs has its rows");
            for row in &at_step {
                let number = |column| row.number(column).unwrap();
                assert!(
                    number("uss_bytes") <= number("pss_bytes") && number("pss_bytes") <= number("rss_bytes"),
                    "{kind}"
                );
                assert!(number("rss_bytes") > 0 && number("minor_faults_count") > 0, "{kind}: {}", row.text("role"));
                assert!(number("minor_faults_estimated_ns") > 0, "{kind}");
            }
            let host = host
                .iter()
                .find(|row| row.text("sandbox") == kind && row.number("instances_count") == Some(step))
                .unwrap_or_else(|| panic!("{kind}: the host's books at {step}"));
            assert_eq!(host.number("pss_bytes").unwrap(), sum(at_step.iter().copied(), "pss_bytes"), "{kind}");
            let parts = [
                "lost_mapped_bytes",
                "lost_page_tables_bytes",
                "lost_kernel_stack_bytes",
                "lost_slab_bytes",
                "lost_per_cpu_bytes",
                "lost_other_bytes",
                "lost_estimate_bytes",
            ];
            let named: i128 = parts.iter().map(|part| host.number(part).unwrap()).sum();
            assert_eq!(named, host.number("lost_bytes").unwrap(), "{kind}: what was lost has a name");
        }
        let roles = |role: &str| memory.iter().filter(of_kind).any(|row| row.text("role") == role);
        let expected: &[&str] = match kind {
            "gvisor" => &["sentry", "gofer"],
            "kvm-floor" => &["vmm"],
            _ => &["workload"],
        };
        assert!(expected.iter().all(|role| roles(role)), "{kind} has {expected:?}");
        let guests = rows(&out, "guest_memory");
        let guests: Vec<&Row> = guests.iter().filter(of_kind).collect();
        assert_eq!(!guests.is_empty(), matches!(kind, "gvisor" | "kvm-floor"), "{kind}");
        for guest in guests {
            let (size, populated) = (guest.number("size_bytes").unwrap(), guest.number("populated_bytes").unwrap());
            assert!(0 < populated && populated < size, "{kind}: {populated} of {size}");
            assert_eq!(guest.number("untouched_bytes"), Some(size - populated), "{kind}");
            assert!(kind != "kvm-floor" || size == 16 << 20, "{kind}: {size}");
        }
        // The program's code is the page cache's in all instances.
        let pages = rows(&out, "pages");
        let pages: Vec<&Row> = pages.iter().filter(of_kind).collect();
        let shared = pages.iter().filter(|row| row.text("class") == "same_as_file" && row.text("state") == "already");
        assert!(sum(shared.copied(), "pages_count") > 10 * INSTANCES, "{kind}");
        let of_pages: i128 = sum(pages.iter().copied(), "size_bytes");
        let last = memory.iter().filter(of_kind).filter(|row| row.number("instances_count") == Some(INSTANCES));
        let rss = sum(last, "rss_bytes");
        // A frame counts once in an instance, though several of its processes may map it, and so count it in their RSS.
        assert!(of_pages <= rss * 11 / 10 && of_pages * 6 >= rss, "{kind}: {of_pages} bytes of pages, {rss} of RSS");
    }
    let scans = rows(&out, "page_scans");
    assert_eq!(sum(&scans, "differed_count"), 0, "they stood still");
    assert!(scans.iter().all(|scan| scan.number("paused_ns").is_some()));
}

#[test]
fn what_ksm_made_of_instances_is_followed_and_its_settings_are_restored() {
    const TEST: &str = "what_ksm_made_of_instances_is_followed_and_its_settings_are_restored";
    if let Err(reason) = crate::common::bench::kind("kvm-floor") {
        sandscope::testing::skip(TEST, "kvm-floor", reason);
        return;
    }
    let settings = || {
        ["run", "pages_to_scan", "sleep_millisecs"]
            .map(|name| std::fs::read_to_string(format!("/sys/kernel/mm/ksm/{name}")).unwrap_or_default())
    };
    let before = settings();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("results");
    let arguments =
        ["--sandbox", "kvm-floor", "-n", "3", "--settle", "0.1", "--pages", "--ksm", "--out", out.to_str().unwrap()];
    let output = run(&arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && error.contains("--ksm") {
        sandscope::testing::skip(TEST, "ksm", error);
        return;
    }
    assert!(output.status.success(), "{}{error}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(settings(), before);
    let ksm = rows(&out, "ksm");
    let last = ksm.last().unwrap();
    assert!(last.number("full_scans_count") > ksm[0].number("full_scans_count"), "it was followed for some scans");
    let merged = sum(rows(&out, "pages").iter().filter(|row| row.number("merged") == Some(1)), "ksm_pages_count");
    assert!(merged > 0 && last.number("merged_pages_count").unwrap() > 0, "{merged}");
    assert!(last.number("possible_pages_count").unwrap() > 0);
}
