//! The dataset from outside: what is in the files, after good runs, kills, full disks and refusals, and for other
//! readers.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Int64Type, TimestampNanosecondType, UInt32Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sandscope::record::{
    Dataset, Error, Limits, Manifest, Outcome, schema_json,
    tables::{self, EventCount, Exit, Instance, Phase, tables},
};
use sandscope::testing::skip;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use tempfile::TempDir;
use ulid::Ulid;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A dataset whose parts are full after so many rows.
fn dataset(out: &Path, run_id: Ulid, rows_count: usize) -> Dataset {
    let limits = Limits { rows_count, ..Limits::default() };
    let manifest = Manifest::new("cold-start", 7);
    Dataset::create(out, run_id, &manifest).unwrap().with_limits(limits)
}

/// A row that can be told from others by its number.
fn phase(number: u64) -> Phase {
    Phase {
        phase: format!("phase {}", number % 3),
        start_ns: i64::try_from(number).unwrap(),
        end_ns: i64::try_from(2 * number).unwrap(),
        time_ns: number,
    }
}

fn exit(detail: Option<&str>, time_ns: Option<u64>, buckets: &[(u64, u64)]) -> Exit {
    let (bucket_floor_ns, bucket_count) = buckets.iter().copied().unzip();
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
        bucket_floor_ns,
        bucket_count,
    }
}

fn instance(position: u32, error: Option<&str>) -> Instance {
    Instance {
        experiment: "cold-start".to_owned(),
        variant: String::new(),
        repetition: 0,
        sandbox: "process".to_owned(),
        workload: "rust".to_owned(),
        position,
        probes: position.is_multiple_of(2),
        ok: error.is_none(),
        error: error.map(str::to_owned),
        wall_ns: error.is_none().then_some(1_000_000),
        launched_at_monotonic_ns: Some(5),
        launched_at_unix_ns: None,
        cache: "primed".to_owned(),
        cache_pages_count: Some(10),
        cache_resident_pages_count: Some(10),
        network: "private".to_owned(),
        lost_events_count: 0,
        unattributed_ns: None,
        conditions_json: "{}".to_owned(),
        ..Instance::default()
    }
}

/// Parts of a run's table in the order of their numbers. Anything else in the directory fails the test.
fn parts(out: &Path, table: &str, run_id: Ulid) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(out.join(table).join(format!("run={run_id}"))) else {
        return Vec::new();
    };
    let numbered: BTreeMap<u32, PathBuf> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let number = name.strip_prefix("part-").and_then(|rest| rest.strip_suffix(".parquet"));
            let number = number.unwrap_or_else(|| panic!("{name} is in a table"));
            (number.parse().unwrap(), path)
        })
        .collect();
    numbered.into_values().collect()
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap());
    let reader = reader.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    reader.build().unwrap().map(Result::unwrap).collect()
}

fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    let column = batch.column_by_name(name);
    column.unwrap_or_else(|| panic!("no column {name}")).clone()
}

/// All values of a column of signed numbers, over all parts of a run.
fn signed(out: &Path, table: &str, run_id: Ulid, name: &str) -> Vec<i64> {
    let batches = parts(out, table, run_id).into_iter().flat_map(|path| read(&path));
    let values = |batch| column(&batch, name).as_primitive::<Int64Type>().values().to_vec();
    batches.flat_map(values).collect()
}

fn rows_count(path: &Path) -> usize {
    read(path).iter().map(RecordBatch::num_rows).sum()
}

/// Rows of each part of a table.
fn rows_of_parts(out: &Path, table: &str, run_id: Ulid) -> Vec<usize> {
    let parts = parts(out, table, run_id);
    parts.iter().map(|part| rows_count(part)).collect()
}

fn file_metadata(path: &Path) -> BTreeMap<String, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone().unwrap())).collect()
}

/// Declares every table about instances.
/// Every table but `runs`, which is written anyway; a test fails when one is missing here.
fn declare_all(dataset: &mut Dataset) {
    dataset.declare::<tables::Activity>().unwrap();
    dataset.declare::<tables::Answer>().unwrap();
    dataset.declare::<tables::Attribution>().unwrap();
    dataset.declare::<tables::AttributionSlice>().unwrap();
    dataset.declare::<tables::Block>().unwrap();
    dataset.declare::<tables::BlockLatency>().unwrap();
    dataset.declare::<tables::FileLatency>().unwrap();
    dataset.declare::<tables::ConsoleLine>().unwrap();
    dataset.declare::<tables::Counter>().unwrap();
    dataset.declare::<EventCount>().unwrap();
    dataset.declare::<tables::Execution>().unwrap();
    dataset.declare::<tables::Saving>().unwrap();
    dataset.declare::<tables::HeldLock>().unwrap();
    dataset.declare::<tables::Sample>().unwrap();
    dataset.declare::<Exit>().unwrap();
    dataset.declare::<tables::ExitEvent>().unwrap();
    dataset.declare::<tables::Fault>().unwrap();
    dataset.declare::<tables::File>().unwrap();
    dataset.declare::<tables::GuestAddress>().unwrap();
    dataset.declare::<tables::GuestMemory>().unwrap();
    dataset.declare::<tables::IdleState>().unwrap();
    dataset.declare::<Instance>().unwrap();
    dataset.declare::<tables::KernelMemory>().unwrap();
    dataset.declare::<tables::Ksm>().unwrap();
    dataset.declare::<tables::Latency>().unwrap();
    dataset.declare::<tables::Marker>().unwrap();
    dataset.declare::<tables::Memory>().unwrap();
    dataset.declare::<tables::MemoryHost>().unwrap();
    dataset.declare::<tables::Net>().unwrap();
    dataset.declare::<tables::Offload>().unwrap();
    dataset.declare::<tables::Outlier>().unwrap();
    dataset.declare::<tables::Page>().unwrap();
    dataset.declare::<tables::PageScan>().unwrap();
    dataset.declare::<tables::PerfCounter>().unwrap();
    dataset.declare::<Phase>().unwrap();
    dataset.declare::<tables::Pickup>().unwrap();
    dataset.declare::<tables::Preemption>().unwrap();
    dataset.declare::<tables::Request>().unwrap();
    dataset.declare::<tables::Response>().unwrap();
    dataset.declare::<tables::Sched>().unwrap();
    dataset.declare::<tables::Step>().unwrap();
    dataset.declare::<tables::Syscall>().unwrap();
    dataset.declare::<tables::Thread>().unwrap();
    dataset.declare::<tables::ThreadSlice>().unwrap();
    dataset.declare::<tables::Traffic>().unwrap();
    dataset.declare::<tables::VcpuSlice>().unwrap();
    dataset.declare::<tables::Wakeup>().unwrap();
    dataset.declare::<tables::WakeupFlow>().unwrap();
    dataset.declare::<tables::Window>().unwrap();
    dataset.replace::<tables::Cell>(&[], []).unwrap();
}

#[test]
fn every_table_has_its_documented_columns_and_metadata() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut dataset = dataset(out.path(), run_id, 10);
    declare_all(&mut dataset);
    dataset.flush().unwrap();
    let plain = out.path().join("plain");
    fs::write(&plain, "").unwrap();
    for table in tables() {
        let [part] = parts(out.path(), table.name, run_id).try_into().expect("one part");
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&part).unwrap()).unwrap();
        assert_eq!(reader.schema().fields(), table.schema().fields(), "{}", table.name);
        assert_eq!(rows_count(&part), usize::from(table.name == "runs"));
        let mode = |path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(&part), mode(&plain), "who may read a part is what the umask says");
        let metadata = file_metadata(&part);
        assert_eq!(metadata["run_id"], run_id.to_string());
        assert_eq!(metadata["schema_version"], sandscope::record::SCHEMA_VERSION.to_string());
        assert_eq!(metadata["sandscope_version"], env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn rows_come_back_as_they_were() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut dataset = dataset(out.path(), run_id, 10);
    let with_all = exit(Some("port 0x3f8"), Some(700), &[(100, 2), (500, 1)]);
    dataset.append("one", [with_all]).unwrap();
    dataset.append("two", [exit(None, None, &[])]).unwrap();
    dataset.append("two", [instance(0, Some("no such file"))]).unwrap();
    dataset.flush().unwrap();

    let [exits] = read(&parts(out.path(), "exits", run_id)[0]).try_into().unwrap();
    let text = |name| {
        let column = column(&exits, name);
        let texts = column.as_string::<i32>().iter();
        texts.map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(text("run_id"), vec![some(&run_id.to_string()); 2]);
    assert_eq!(text("instance_id"), [some("one"), some("two")]);
    assert_eq!(text("reason"), [some("io"), some("io")]);
    assert_eq!(text("detail"), [some("port 0x3f8"), None]);
    assert_eq!(column(&exits, "vcpu").as_primitive::<UInt32Type>().values(), &[1, 1]);
    let times = column(&exits, "time_ns");
    let times: Vec<_> = times.as_primitive::<Int64Type>().iter().collect();
    assert_eq!(times, [Some(700), None]);
    let list = |name, row| {
        let elements = column(&exits, name).as_list::<i32>().value(row);
        elements.as_primitive::<Int64Type>().values().to_vec()
    };
    assert_eq!(list("bucket_floor_ns", 0), [100, 500]);
    assert_eq!(list("bucket_count", 0), [2, 1]);
    assert!(list("bucket_floor_ns", 1).is_empty() && list("bucket_count", 1).is_empty());

    let [instances] = read(&parts(out.path(), "instances", run_id)[0]).try_into().unwrap();
    assert!(column(&instances, "probes").as_boolean().value(0));
    assert!(!column(&instances, "ok").as_boolean().value(0));
    let error = column(&instances, "error");
    assert_eq!(error.as_string::<i32>().value(0), "no such file");
    assert!(column(&instances, "wall_ns").is_null(0));
}

#[test]
fn a_number_that_went_below_zero_is_refused_and_the_rows_before_it_stay() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut dataset = dataset(out.path(), run_id, 100);
    let wrapped = 3_u64.wrapping_sub(5);
    let error = dataset.append("one", [phase(1), Phase { time_ns: wrapped, ..phase(2) }, phase(3)]).unwrap_err();
    let said = error.to_string();
    let place = "can't write 18446744073709551614 into the column `time_ns` of the table `phases`";
    assert!(matches!(error, Error::Excess { .. }) && said.starts_with(place), "{said}");
    // In a list and where there may be none, as well.
    dataset.append("one", [exit(None, Some(wrapped), &[])]).unwrap_err();
    dataset.append("one", [exit(None, None, &[(100, 2), (wrapped, 1)])]).unwrap_err();
    dataset.append("one", [phase(4)]).unwrap();
    dataset.flush().unwrap();
    assert_eq!(signed(out.path(), "phases", run_id, "start_ns"), [1, 4]);
    // What names something has all 64 bits.
    let seeded = Dataset::create(out.path(), Ulid::generate(), &Manifest::new("cold-start", u64::MAX));
    assert!(seeded.is_ok());
}

#[test]
fn a_full_part_is_finished_and_never_written_again() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut dataset = dataset(out.path(), run_id, 100);
    let first_inode = || fs::metadata(&parts(out.path(), "phases", run_id)[0]).unwrap().ino();
    let mut inode_when_full = None;
    for step in 0..25 {
        dataset.append("one", (step * 10..step * 10 + 10).map(phase)).unwrap();
        dataset.flush().unwrap();
        let rows = rows_of_parts(out.path(), "phases", run_id);
        let written = usize::try_from(step * 10 + 10).unwrap();
        assert_eq!(rows.iter().sum::<usize>(), written, "after step {step}");
        assert!(rows.iter().rev().skip(1).all(|rows| *rows == 100), "{rows:?}");
        if written == 100 {
            inode_when_full = Some(first_inode());
        }
    }
    let starts = signed(out.path(), "phases", run_id, "start_ns");
    assert_eq!(starts, (0..250).collect::<Vec<_>>());
    assert_eq!(rows_of_parts(out.path(), "phases", run_id), [100, 100, 50]);
    assert_eq!(Some(first_inode()), inode_when_full);
}

#[test]
fn rows_that_no_flush_separates_are_divided_too_by_number_and_by_memory() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let limits = Limits { rows_count: 100, rows_bytes: 64 << 10 };
    let manifest = Manifest::new("cold-start", 7);
    let dataset = Dataset::create(out.path(), run_id, &manifest).unwrap();
    let mut dataset = dataset.with_limits(limits);
    dataset.append("one", (0..1050).map(phase)).unwrap();
    // Each of these takes 16,000 bytes and a little more.
    let wide = exit(None, None, &[(1, 1); 1000]);
    dataset.append("one", std::iter::repeat_n(wide, 10)).unwrap();
    assert_eq!(rows_of_parts(out.path(), "exits", run_id), [5], "others are in memory only");
    dataset.flush().unwrap();
    assert_eq!(rows_of_parts(out.path(), "exits", run_id), [5, 5]);
    let rows = rows_of_parts(out.path(), "phases", run_id);
    assert_eq!(rows, [[100; 10].as_slice(), &[50]].concat());
}

#[test]
fn the_row_of_the_run_is_replaced_at_its_end() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut manifest = Manifest::new("cold-start", 7);
    let mut dataset = Dataset::create(out.path(), run_id, &manifest).unwrap();
    let row = || {
        let [part] = parts(out.path(), "runs", run_id).try_into().expect("one part");
        let [batch] = read(&part).try_into().expect("one batch");
        assert_eq!(batch.num_rows(), 1);
        assert!(column(&batch, "instance_id").is_null(0));
        let json = column(&batch, "manifest_json");
        let json = json.as_string::<i32>().value(0);
        assert_eq!(file_metadata(&part)["manifest"], json);
        let finished = column(&batch, "finished_at_unix_ns");
        let finished = finished.as_primitive::<TimestampNanosecondType>().iter().next().unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        (finished, json)
    };
    let (finished, json) = row();
    assert_eq!((finished, &json["conditions"]), (None, &serde_json::json!({})));

    manifest.conditions.insert("cache".to_owned(), "evicted".to_owned());
    let outcome = Outcome { finished_at_unix_ns: Some(9), instances_count: 4, ..Outcome::default() };
    dataset.describe(&manifest, &outcome).unwrap();
    let (finished, json) = row();
    assert_eq!((finished, &json["conditions"]["cache"]), (Some(9), &"evicted".to_owned().into()));
    assert_eq!(json["host"]["name"], rustix::system::uname().nodename().to_str().unwrap());
}

#[test]
fn a_run_that_goes_on_keeps_its_rows_and_removes_only_its_own_remains() {
    let (out, run_id, other) = (scratch(), Ulid::generate(), Ulid::generate());
    let mut first = dataset(out.path(), run_id, 100);
    first.append("one", (0..3).map(phase)).unwrap();
    first.flush().unwrap();
    drop(first);
    let own = out.path().join(format!(".unfinished/{run_id}-x"));
    let foreign = out.path().join(format!(".unfinished/{other}-x"));
    fs::write(&own, "PAR1").unwrap();
    fs::write(&foreign, "PAR1").unwrap();

    let mut second = dataset(out.path(), run_id, 100);
    assert!(!own.exists());
    assert!(foreign.exists());
    second.append("two", (3..5).map(phase)).unwrap();
    second.flush().unwrap();
    let starts = signed(out.path(), "phases", run_id, "start_ns");
    assert_eq!(starts, [0, 1, 2, 3, 4]);
    assert_eq!(rows_of_parts(out.path(), "phases", run_id), [3, 2]);
}

/// Where [`writer_to_be_killed`] writes.
const KILLED_OUT: &str = "SANDSCOPE_TEST_KILLED_OUT";
/// Rows in `phases` of each of its instances.
const KILLED_PHASES: u64 = 37;

/// The child of [`a_kill_leaves_whole_instances_in_readable_files`], which runs until it is killed; nothing unless that says where
/// to write.
#[test]
fn writer_to_be_killed() {
    let Some(out) = env::var_os(KILLED_OUT) else { return };
    let run_id = Ulid::nil();
    let mut dataset = dataset(Path::new(&out), run_id, 100);
    for position in 0_u32.. {
        let first = u64::from(position) * KILLED_PHASES;
        let phases = (first..first + KILLED_PHASES).map(phase);
        dataset.append(&position.to_string(), phases).unwrap();
        dataset.append(&position.to_string(), [instance(position, None)]).unwrap();
        dataset.flush().unwrap();
        eprintln!("flushed {position}");
    }
}

#[test]
fn a_kill_leaves_whole_instances_in_readable_files() {
    let mut in_the_middle_of_a_file = 0;
    let mut instances_in_total = 0;
    for _ in 0..40 {
        let out = scratch();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "record::writer_to_be_killed", "--nocapture"])
            .env(KILLED_OUT, out.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut flushed = String::new();
        messages.read_line(&mut flushed).unwrap();
        thread::sleep(Duration::from_micros(rand::random_range(0..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        messages.read_to_string(&mut flushed).unwrap();

        let run_id = Ulid::nil();
        assert_eq!(rows_of_parts(out.path(), "runs", run_id), [1]);
        let starts = signed(out.path(), "phases", run_id, "start_ns");
        let ascending: Vec<_> = (0..).take(starts.len()).collect();
        assert_eq!(starts, ascending, "rows of phases are a prefix");
        let instances: usize = rows_of_parts(out.path(), "instances", run_id).iter().sum();
        let promised = flushed.lines().filter(|line| line.starts_with("flushed ")).count();
        assert!(instances >= promised, "{promised} instances were flushed, {instances} are there");
        let phases = instances * usize::try_from(KILLED_PHASES).unwrap();
        assert!(starts.len() >= phases, "{instances} instances but {} phases", starts.len());
        instances_in_total += instances;
        in_the_middle_of_a_file += fs::read_dir(out.path().join(".unfinished")).unwrap().count();
    }
    println!("{instances_in_total} instances; {in_the_middle_of_a_file} of 40 kills left an unfinished file");
    assert!(instances_in_total > 40);
}

/// Runs `body` in a thread whose mounts are its own, with a tmpfs of so many bytes at `target`; `None` without the
/// privilege.
fn on_small_disk<T: Send + 'static>(
    target: &Path,
    size_bytes: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    let target = target.to_owned();
    let body = move || {
        // SAFETY: needed for mounts that vanish with the thread. Only this thread, which ends soon, gets other mounts,
        // and no file descriptor table is unshared.
        match unsafe { unshare_unsafe(UnshareFlags::NEWNS) } {
            Err(rustix::io::Errno::PERM) => return None,
            other => other.unwrap(),
        }
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let options = std::ffi::CString::new(format!("size={size_bytes}")).unwrap();
        mount("tmpfs", &target, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Some(body())
    };
    let ended = thread::spawn(body).join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_full_disk_is_an_error_that_costs_no_row() {
    let (mount_point, run_id) = (scratch(), Ulid::generate());
    let out = mount_point.path().to_owned();
    let ran = on_small_disk(mount_point.path(), 400 << 10, move || {
        let ballast = out.join("ballast");
        fs::write(&ballast, vec![0; 100 << 10]).unwrap();
        let mut dataset = dataset(&out, run_id, 100);
        let mut written = 0;
        let error = loop {
            // Compression can't make these small.
            let rows = (written..written + 20).map(|number| Phase {
                phase: (0..16).map(|_| format!("{:x}", rand::random::<u64>())).collect(),
                ..phase(number)
            });
            if let Err(error) = dataset.append("one", rows).and_then(|()| dataset.flush()) {
                break error;
            }
            written += 20;
            assert!(written < 10_000, "the disk takes everything");
        };
        let Error::File { path, reason, .. } = &error else { panic!("{error}") };
        assert_eq!(reason.kind(), ErrorKind::StorageFull);
        assert!(path.starts_with(&out), "{error}");
        let message = error.to_string();
        assert!(message.contains("No space left on device"), "{message}");
        assert!(message.contains("free some space"), "{message}");

        assert!(written > 100, "the disk was full too early: {written}");
        let expected: Vec<_> = (0..written.cast_signed() + 20).collect();
        let rows = signed(&out, "phases", run_id, "start_ns");
        assert_eq!(rows, expected[..expected.len() - 20], "what was written before stays");
        assert_eq!(fs::read_dir(out.join(".unfinished")).unwrap().count(), 0);

        fs::remove_file(&ballast).unwrap();
        dataset.flush().unwrap();
        let rows = signed(&out, "phases", run_id, "start_ns");
        assert_eq!(rows, expected, "rows are kept for the next try");
    });
    if ran.is_none() {
        skip("a_full_disk_is_an_error_that_costs_no_row", "mount", "mounting a small tmpfs needs CAP_SYS_ADMIN");
    }
}

/// Runs `body` in a thread that file permissions bind, even where the tests run as root.
fn without_privileges<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let body = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        body()
    };
    let ended = thread::scope(|scope| scope.spawn(body).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The message with which creating a dataset fails.
fn refusal(out: &Path) -> String {
    let manifest = Manifest::new("cold-start", 7);
    match Dataset::create(out, Ulid::generate(), &manifest) {
        Ok(_) => panic!("{} is accepted", out.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_an_error() {
    let directory = scratch();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    for out in [directory.path().to_owned(), directory.path().join("results")] {
        let message = without_privileges(|| refusal(&out));
        assert!(message.starts_with("can't make the directory "), "{message}");
        assert!(message.contains(out.to_str().unwrap()), "{message}");
        assert!(message.contains("Permission denied"), "{message}");
        assert!(message.contains("--out"), "{message}");
    }
}

#[test]
fn a_table_that_may_not_be_written_leaves_the_others_intact() {
    let (out, run_id) = (scratch(), Ulid::generate());
    let mut dataset = dataset(out.path(), run_id, 100);
    dataset.append("one", [phase(0)]).unwrap();
    dataset.flush().unwrap();
    let directory = out.path().join(format!("phases/run={run_id}"));
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    dataset.append("one", [phase(1)]).unwrap();
    dataset.append("one", [instance(0, None)]).unwrap();
    let message = without_privileges(|| dataset.flush().unwrap_err().to_string());
    assert!(message.contains("part-0.parquet"), "{message}");
    assert!(message.contains("Permission denied"), "{message}");
    assert_eq!(signed(out.path(), "phases", run_id, "start_ns"), [0]);
    let instances = || rows_of_parts(out.path(), "instances", run_id);
    assert!(instances().is_empty(), "an instance without its phases");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    dataset.flush().unwrap();
    assert_eq!(signed(out.path(), "phases", run_id, "start_ns"), [0, 1]);
    assert_eq!(instances(), [1]);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error() {
    let directory = scratch();
    let file = directory.path().join("results");
    fs::write(&file, "precious").unwrap();
    for out in [file.clone(), file.join("deeper")] {
        let message = refusal(&out);
        assert!(message.contains(file.to_str().unwrap()), "{message}");
        assert!(message.contains("a file where a directory has to be"), "{message}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn polars_pandas_and_duckdb_read_each_table_as_one() {
    let Some(python) = env::var_os("SANDSCOPE_PYTHON") else {
        return skip("readers", "python", "SANDSCOPE_PYTHON is not set");
    };
    let out = scratch();
    for run in 0..2 {
        let mut dataset = dataset(out.path(), Ulid::generate(), 100);
        declare_all(&mut dataset);
        dataset.append("one", (0..250).map(phase)).unwrap();
        let with_all = exit(Some("port 0x3f8"), Some(700), &[(100, 2), (500, 1)]);
        dataset.append("one", [with_all, exit(None, None, &[])]).unwrap();
        dataset.append("one", [instance(0, None)]).unwrap();
        dataset.append("two", [instance(run, Some("no such file"))]).unwrap();
        dataset.flush().unwrap();
    }
    // What kills leave behind.
    let killed = Ulid::generate();
    fs::write(out.path().join(format!(".unfinished/{killed}-x")), "PAR1").unwrap();
    fs::create_dir(out.path().join(format!("phases/run={killed}"))).unwrap();
    let schema = out.path().join(".schema.json");
    fs::write(&schema, schema_json().to_string()).unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_dataset.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(out.path()).arg(schema).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for reader in ["polars", "pandas", "duckdb"] {
        let of = |table: &str, what: &str| seen[reader][table][what].clone();
        assert_eq!(of("runs", "rows"), 2, "{reader}");
        assert_eq!(of("phases", "rows"), 500, "{reader}");
        assert_eq!(of("phases", "runs"), 2, "{reader}");
        // 2 runs of 0 + 1 + … + 249.
        let phases = serde_json::json!({"start_ns": 62250, "end_ns": 124500, "time_ns": 62250});
        assert_eq!(of("phases", "sums"), phases, "{reader}");
        let exits = serde_json::json!({
            "vcpu": 4, "count": 12, "time_ns": 1400, "kernel_ns": 0, "vmm_ns": 0, "blocked_ns": 0, "polled_ns": 0,
            "runnable_ns": 0, "bucket_floor_ns": 1200, "bucket_count": 6
        });
        assert_eq!(of("exits", "sums"), exits, "{reader}");
        let nulls = serde_json::json!({
            "detail": 2, "time_ns": 2, "kernel_ns": 4, "vmm_ns": 4, "blocked_ns": 4, "polled_ns": 4, "runnable_ns": 4
        });
        assert_eq!(of("exits", "nulls"), nulls, "{reader}");
        assert_eq!(of("instances", "rows"), 4, "{reader}");
        assert_eq!(of("instances", "sums")["ok"], 2, "{reader}");
        assert_eq!(of("instances", "sums")["probes"], 3, "{reader}");
        assert_eq!(of("instances", "nulls")["error"], 2, "{reader}");
        assert_eq!(of("block", "rows"), 0, "{reader}");
    }
}
