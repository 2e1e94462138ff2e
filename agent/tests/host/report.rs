//! The report as a browser sees it: on results that a hostile guest wrote into.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use sandscope::{
    record::{
        Dataset, Manifest, Outcome,
        tables::{Attribution, Cell, EventCount, Instance, Latency, Memory, MemoryHost, Phase, Step, Wakeup, Window},
    },
    testing::skip,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use ulid::Ulid;

/// Largest page that may be made of a run of this size.
const MOST_BYTES: usize = 3 << 20;

/// What a guest might print to get at whoever reads the report.
const HOSTILE: &str =
    "</td></table><script>document.title='owned'</script><img src=http://example.com/x onerror=alert(1)>";

fn instance(sandbox: &str, position: u32, error: Option<&str>) -> Instance {
    let wall_ns = 20_000_000 + 400_000 * u64::from(position * 7 % 40);
    Instance {
        experiment: "cold-start".to_owned(),
        variant: String::new(),
        repetition: position / 2,
        sandbox: sandbox.to_owned(),
        workload: "rust".to_owned(),
        position,
        probes: position.is_multiple_of(2),
        ok: error.is_none(),
        error: error.map(str::to_owned),
        wall_ns: error.is_none().then_some(wall_ns),
        launched_at_monotonic_ns: Some(5),
        launched_at_unix_ns: Some(5),
        cache: "primed".to_owned(),
        cache_pages_count: Some(100),
        cache_resident_pages_count: Some(100),
        network: "private".to_owned(),
        lost_events_count: u64::from(position == 0),
        unattributed_ns: Some(0),
        conditions_json: "{}".to_owned(),
        ..Instance::default()
    }
}

/// A run of three sandboxes, as large as that of the README's first command.
fn a_run(out: &Path) {
    let mut manifest = Manifest::new("cold-start", 7);
    manifest.probes.available = true;
    manifest.conditions.insert("note".to_owned(), HOSTILE.to_owned());
    let mut dataset = Dataset::create(out, Ulid::generate(), &manifest).unwrap();
    for sandbox in ["runc", "gvisor", HOSTILE] {
        for position in 0..80 {
            let id = format!("{sandbox}-{position}");
            let row = instance(sandbox, position, (position % 40 == 39).then_some(HOSTILE));
            if let Some(wall_ns) = row.wall_ns.filter(|_| row.probes) {
                let phase = |phase: &str, start_ns: u64, end_ns: u64| Phase {
                    phase: phase.to_owned(),
                    start_ns: start_ns.cast_signed(),
                    end_ns: end_ns.cast_signed(),
                    time_ns: end_ns - start_ns,
                };
                let share = |category: &str, detail: &str, time_ns| Attribution {
                    phase: "runtime".to_owned(),
                    category: category.to_owned(),
                    role: Some("runtime".to_owned()),
                    detail: Some(detail.to_owned()),
                    time_ns,
                    ..Attribution::default()
                };
                let (spawn, runtime) = (wall_ns / 40, wall_ns * 9 / 10);
                let phases = [("spawn", 0, spawn), ("runtime", spawn, runtime), ("response", runtime, wall_ns)];
                dataset.append(&id, phases.map(|(name, start, end)| phase(name, start, end))).unwrap();
                let half = wall_ns / 2;
                let shares =
                    [share("user", "", half), share("kernel", HOSTILE, half / 2), share("outside", "x", half / 3)];
                dataset.append(&id, shares).unwrap();
                let lost_count = row.lost_events_count;
                dataset
                    .append(
                        &id,
                        [EventCount {
                            kind: "switch".to_owned(),
                            seen_count: 900,
                            lost_count,
                            inferred_count: Some(0),
                        }],
                    )
                    .unwrap();
            }
            dataset.append(&id, [row]).unwrap();
        }
    }
    dataset.flush().unwrap();
    let started = manifest.started_at_unix_ns;
    dataset
        .describe(&manifest, &Outcome { finished_at_unix_ns: Some(started + 90_000_000_000), ..Outcome::default() })
        .unwrap();
}

/// A name that has no room in a narrow column.
const LONG: &str = "firecracker-restore-linux-of-a-very-long-name";
const MIB: u64 = 1 << 20;

/// A run with the tables of `run idle`, `run memory` and a suite, in which every figure is known.
fn a_run_of_everything(out: &Path) {
    let mut dataset = Dataset::create(out, Ulid::generate(), &Manifest::new("everything", 7)).unwrap();
    for number in 0..3_u32 {
        let (id, growth) = (format!("{LONG}-{number}"), u64::from(number) + 1);
        dataset.append(&id, [window(growth)]).unwrap();
        let wakeup = |cause: &str, detail: Option<&str>, waker: Option<&str>, count| Wakeup {
            tid: 9,
            role: "vmm".to_owned(),
            cause: cause.to_owned(),
            detail: detail.map(str::to_owned),
            waker: waker.map(str::to_owned),
            waker_tid: None,
            waker_inside: None,
            count,
            waited_ns: 1,
            on_cpu_after_ns: None,
        };
        let wakeups =
            [wakeup("hrtimer", Some("tick_nohz_handler"), None, 200), wakeup("task", None, Some("kubelet"), 30)];
        dataset.append(&id, wakeups).unwrap();
        dataset.append(&id, [memory_host(number + 1)]).unwrap();
        dataset.append(&id, [memory("vmm", 6), memory("guest", 4)]).unwrap();
        dataset.append(&id, [load_step(), Step { step: 0, name: "start".to_owned(), ..load_step() }]).unwrap();
        dataset.append(&id, [latency(growth * 1_000_000)]).unwrap();
        dataset.append(&id, [Instance { probes: false, ..instance(LONG, number, None) }]).unwrap();
    }
    dataset.flush().unwrap();
    let cell = Cell {
        experiment: "cpu".to_owned(),
        variant: "small".to_owned(),
        sandbox: LONG.to_owned(),
        workload: "rust".to_owned(),
        probes: false,
        name: "fft".to_owned(),
        instances_count: 3,
        failed_count: 0,
        good_count: Some(30),
        bad_count: Some(6),
        outliers_count: 0,
        median_ns: Some(12_000_000),
        low_ns: Some(11_000_000),
        high_ns: Some(13_000_000),
        median_bytes: None,
        low_bytes: None,
        high_bytes: None,
    };
    let unsure = Cell { name: "sums".to_owned(), low_ns: None, high_ns: None, ..cell.clone() };
    let [median_bytes, low_bytes, high_bytes] = [12, 11, 13].map(|mib| Some(mib * MIB));
    let size = Cell {
        name: "weigh".to_owned(),
        median_ns: None,
        low_ns: None,
        high_ns: None,
        median_bytes,
        low_bytes,
        high_bytes,
        ..cell.clone()
    };
    dataset.replace(&[cell, unsure, size], []).unwrap();
}

/// Ten seconds, of which the sandbox had a CPU for a hundredth and so much more.
fn window(growth: u64) -> Window {
    Window {
        target: LONG.to_owned(),
        span_ns: 10_000_000_000,
        settled_ns: Some(1),
        cpu_ns: growth * 100_000_000,
        causes_ns: 0,
        helpers_ns: 0,
        ksmd_ns: None,
        cost_ratio: growth as f64 / 100.0,
        wakeups_count: growth * 100,
        named_wakeups_count: growth * 100,
        runnable_ns: 0,
        stolen_ns: None,
        throttled_ns: None,
        unrecorded_count: 0,
        doubts: None,
        maps_bytes: 0,
    }
}

/// Each instance takes 10 MiB, of which its processes have 8.
fn memory_host(instances_count: u32) -> MemoryHost {
    let lost_bytes = i64::from(instances_count) * 10 * MIB.cast_signed();
    MemoryHost {
        sandbox: LONG.to_owned(),
        instances_count,
        available_bytes: 1 << 40,
        lost_bytes,
        lost_mapped_bytes: lost_bytes,
        lost_page_tables_bytes: 0,
        lost_kernel_stack_bytes: 0,
        lost_slab_bytes: 0,
        lost_per_cpu_bytes: 0,
        lost_other_bytes: 0,
        lost_estimate_bytes: 0,
        pss_bytes: u64::from(instances_count) * 8 * MIB,
        pss_file_bytes: 0,
        page_tables_bytes: 0,
        kernel_bytes: None,
    }
}

/// What a process has when three instances run.
fn memory(role: &str, pss_mib: u64) -> Memory {
    Memory {
        instances_count: 3,
        tgid: 1,
        comm: role.to_owned(),
        role: role.to_owned(),
        rss_bytes: 2 * pss_mib * MIB,
        pss_bytes: pss_mib * MIB,
        pss_anonymous_bytes: 0,
        pss_file_bytes: 0,
        pss_shmem_bytes: 0,
        uss_bytes: MIB,
        shared_clean_bytes: 0,
        shared_dirty_bytes: 0,
        swap_bytes: 0,
        huge_bytes: 0,
        hugetlb_bytes: 0,
        ksm_bytes: None,
        page_tables_bytes: 0,
        minor_faults_count: 0,
        major_faults_count: 0,
        minor_faults_estimated_ns: None,
    }
}

fn load_step() -> Step {
    Step {
        step: 1,
        name: "constant rate".to_owned(),
        kind: "load".to_owned(),
        path: Some("/".to_owned()),
        connections_count: Some(4),
        keep_alive: Some(true),
        interval_ns: Some(1_000_000),
        start_ns: 0,
        end_ns: 1,
        ok: true,
        error: None,
        good_count: 500,
        bad_count: 120,
        unsent_count: 5,
        body_bytes: 0,
        file_pages_count: None,
        file_resident_before_count: None,
        file_resident_after_count: None,
        value_ns: Some(1_000_000),
        value_bytes: None,
    }
}

fn latency(p50_ns: u64) -> Latency {
    Latency {
        step: 1,
        count: 500,
        min_ns: 1,
        p50_ns,
        p90_ns: 2 * p50_ns,
        p99_ns: 10 * p50_ns,
        p999_ns: 20 * p50_ns,
        max_ns: 30 * p50_ns,
        bucket_floor_ns: vec![p50_ns],
        bucket_count: vec![500],
    }
}

fn report(results: &Path, page: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    command.arg("report").arg(results).arg("--out").arg(page).output().unwrap()
}

fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join("chromium")).find(|program| program.is_file())
}

/// Runs the browser on a page; what it logs goes to standard error.
fn browse(browser: &Path, home: &Path, page: &Path, options: &[&str]) -> Output {
    let profile = tempfile::tempdir_in(home).unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]);
    command.args(["--enable-logging=stderr", "--v=0", "--window-size=1000,3200", "--hide-scrollbars"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(options);
    command.arg(format!("file://{}", page.display())).output().unwrap()
}

#[test]
fn a_report_needs_nothing_else_and_no_guest_can_write_into_it() {
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("results"), home.path().join("report.html"));
    a_run(&results);
    let output = report(&results, &page);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.len() < MOST_BYTES, "{} bytes", text.len());
    for forbidden in ["<script", "<img", "<link", "<iframe", "src=\"", "href=", "@import", "url("] {
        assert!(!text.contains(forbidden), "{forbidden} is in the page");
    }
    // What the page must show: findings, figures, losses, conditions; and the guest's text as text.
    for shown in [
        "1 record (0.11 %) of 1 instance found",
        "runc, workload rust",
        "observer effect",
        "3 of ",
        "kernel_release",
        "&lt;script&gt;",
    ] {
        assert!(text.contains(shown), "{shown} is not in the page");
    }
    assert_eq!(text.matches("<svg").count(), 3, "a histogram for each sandbox");
    assert_eq!(text.matches("class=\"bar\"").count(), 6, "phases and account of each sandbox");
}

#[test]
fn a_browser_shows_it_from_a_file_without_complaint_light_and_dark_and_on_paper() {
    const TEST: &str = "a_browser_shows_it_from_a_file_without_complaint_light_and_dark_and_on_paper";
    let Some(browser) = chromium() else {
        return skip(TEST, "chromium", "there is no program chromium");
    };
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("results"), home.path().join("report.html"));
    a_run(&results);
    assert!(report(&results, &page).status.success());
    // Pictures for people who work on its looks.
    let pictures = env::var_os("SANDSCOPE_TEST_PICTURES").map_or_else(|| home.path().to_owned(), PathBuf::from);
    let mut drawn = Vec::new();
    for (name, scheme) in [("light", 1), ("dark", 0)] {
        let picture = pictures.join(format!("report-{name}.png"));
        let options = [
            &format!("--screenshot={}", picture.display()),
            &format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let output = browse(&browser, home.path(), &page, &options.map(String::as_str));
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        assert!(!log.contains("CONSOLE"), "{log}");
        drawn.push(fs::read(picture).unwrap());
    }
    assert!(drawn.iter().all(|picture| picture.starts_with(b"\x89PNG")) && drawn[0] != drawn[1]);
    let paper = pictures.join("report.pdf");
    let output = browse(&browser, home.path(), &page, &[&format!("--print-to-pdf={}", paper.display())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(paper).unwrap().starts_with(b"%PDF"));
    // The guest's script would have changed the title.
    let output = browse(&browser, home.path(), &page, &["--dump-dom"]);
    let document = String::from_utf8_lossy(&output.stdout);
    assert!(document.contains("<title>sandscope run ") && !document.contains("<script"), "{document}");
}

#[test]
fn every_table_of_figures_has_units_and_intervals_and_breaks_no_name() {
    const TEST: &str = "every_table_of_figures_has_units_and_intervals_and_breaks_no_name";
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("results"), home.path().join("report.html"));
    a_run_of_everything(&results);
    let output = report(&results, &page);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&page).unwrap();
    let shown = [
        // Idle: a cost, wake-ups, and what woke it in 30 s together.
        "2.0 %<span class=\"interval\">1.0 % to 3.0 %</span>",
        "20.0<span class=\"interval\">10.0 to 30.0</span>",
        "20.0 ms<span class=\"interval\">10.0 ms to 30.0 ms</span>",
        "<td class=\"number\">20.0</td><td>vmm</td><td>hrtimer</td><td>tick_nohz_handler</td>",
        "<td class=\"number\">3.0</td><td>vmm</td><td>task</td><td>kubelet</td>",
        // Memory: slopes that are exact, what the first took, and means of an instance.
        "8.0 MiB<span class=\"interval\">8.0 MiB to 8.0 MiB</span></td><td class=\"number\">8.0 MiB</td>",
        "10.0 MiB<span class=\"interval\">10.0 MiB to 10.0 MiB</span></td><td class=\"number\">10.0 MiB</td>",
        "<td>vmm</td><td class=\"number\">1.0</td><td class=\"number\">12.0 MiB</td><td class=\"number\">6.0 MiB</td>",
        // Steps, with an interval and without, and the latencies of a load.
        "<td>cpu/small</td><td>rust</td><td>fft</td><td>without</td><td class=\"number\">12.0 ms<span class=\"interval\">11.0 ms to 13.0 ms</span></td>",
        "<td>weigh</td><td>without</td><td class=\"number\">12.0 MiB<span class=\"interval\">11.0 MiB to 13.0 MiB</span></td>",
        "<td class=\"number\">6 of 36</td>",
        "<td>sums</td><td>without</td><td class=\"number\">12.0 ms</td>",
        // Bad answers are beside the good ones, those that were never sent among them.
        "<td>constant rate</td><td>without</td><td class=\"number\">1500</td><td class=\"number\">375 of 1875</td><td class=\"number\">2.00 ms<span class=\"interval\">1.00 ms to 3.00 ms</span></td>",
        "20.0 ms<span class=\"interval\">10.0 ms to 30.0 ms</span>",
    ];
    for shown in shown {
        assert!(text.contains(shown), "{shown} is not in the page: {text}");
    }
    let Some(browser) = chromium() else {
        return skip(TEST, "chromium", "there is no program chromium");
    };
    // A copy that may run a script: it counts the lines that each first column takes, and whether the page is wider than its window.
    let measured = home.path().join("measured.html");
    let script = "<script>const lines = [...document.querySelectorAll('.wide td:first-child')].map(cell => { const range = \
                  document.createRange(); range.selectNodeContents(cell); return range.getClientRects().length }); \
                  document.title = `${lines.length} cells, ${Math.max(...lines)} line, \
                  ${document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide'}`</script></body>";
    let copy = text.replace("Content-Security-Policy", "x-none").replace("</body>", script);
    fs::write(&measured, copy).unwrap();
    let output = browse(&browser, home.path(), &measured, &["--window-size=700,3000", "--dump-dom"]);
    let document = String::from_utf8_lossy(&output.stdout);
    // One row of the summary, three steps, one load, one of idle and its two causes, one of memory and its two roles.
    assert!(document.contains("<title>11 cells, 1 line, fits</title>"), "{document}");
    if let Some(pictures) = env::var_os("SANDSCOPE_TEST_PICTURES") {
        let picture = format!("--screenshot={}", PathBuf::from(pictures).join("report-everything.png").display());
        browse(&browser, home.path(), &page, &[&picture]);
    }
}

#[test]
fn more_runs_than_a_page_can_show_are_refused_with_advice() {
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("results"), home.path().join("report.html"));
    for seed in 0..21 {
        drop(Dataset::create(&results, Ulid::generate(), &Manifest::new("cold-start", seed)).unwrap());
    }
    let output = report(&results, &page);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("a report shows at most 20 runs, and there are 21: name one, such as "), "{said}");
    assert!(!page.exists());
}

/// What a command says about the results in this folder, and whether it succeeds; they are called the same everywhere.
fn said(home: &Path, command: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sandscope"));
    let output = program.current_dir(home).args(command).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn results_with_the_types_of_earlier_versions_say_the_same() {
    let [today, before] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    a_run(&today.path().join("results"));
    a_run_of_everything(&today.path().join("results"));
    let copied = Command::new("cp").arg("-r").arg(today.path().join("results")).arg(before.path()).status().unwrap();
    assert!(copied.success());
    crate::common::former::rewrite(&before.path().join("results"), 2);
    let commands: [&[&str]; 6] = [
        &["explain", "results"],
        &["explain", "results", "--json"],
        &["compare", "results", "results"],
        &["compare", "results", "results", "--json"],
        &["export", "flamegraph", "results", "--instance", "0"],
        &["report", "results"],
    ];
    for command in commands {
        let (now, then) = (said(today.path(), command), said(before.path(), command));
        // Only the version itself is told otherwise.
        let versionless = |(ok, text): &(bool, String)| (*ok, text.replace("schema version 2", "schema version 3"));
        assert!(versionless(&now) == versionless(&then), "{command:?}: {} and {}", now.1, then.1);
    }
    assert!(said(today.path(), commands[0]).0 && said(today.path(), commands[5]).0);

    // Version 1 has another account, and is read as well.
    crate::common::former::rewrite(&before.path().join("results"), 1);
    for command in [commands[0], commands[2], commands[5]] {
        let (ok, text) = said(before.path(), command);
        assert!(ok || command[0] == "compare", "{command:?}: {text}");
        assert!(!text.contains("its column"), "{text}");
    }
}
