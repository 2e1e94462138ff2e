//! Ground truth for the probes: each test knows the right answer before it runs.

mod common;

use common::{probes, python, spawn_in_scope};
use sandscope::{
    measure::page_cache::{CacheState, bring_about},
    probe::{Options, Probes, Record, Recording},
};
use std::{
    collections::BTreeSet,
    process::{Command, ExitStatus},
};

/// A scope number that means nothing else.
const SCOPE: u16 = 7;

fn count(recording: &Recording, wanted: impl Fn(&Record) -> bool) -> usize {
    recording.records.iter().filter(|record| wanted(record)).count()
}

/// Runs a command to its end as a member of the scope.
fn run_in_scope(probes: &Probes, command: &mut Command) -> (u32, ExitStatus) {
    let mut child = spawn_in_scope(probes, SCOPE, command);
    let pid = child.id();
    (pid, child.wait().expect("a child can be waited for once"))
}

#[test]
fn nothing_outside_the_scope_is_recorded() {
    let Some(mut probes) = probes("nothing_outside_the_scope_is_recorded", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    Command::new("true").status().unwrap();
    let recording = probes.take().unwrap();
    assert_eq!(recording.records.len(), 0, "{:?}", recording.records.first());
    assert_eq!(recording.counters.seen.iter().sum::<u64>(), 0);
}

#[test]
fn a_process_is_followed_from_exec_to_exit_with_its_children() {
    let test = "a_process_is_followed_from_exec_to_exit_with_its_children";
    let Some(mut probes) = probes(test, Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    let (pid, status) =
        run_in_scope(&probes, Command::new("sh").args(["-c", "/bin/true; /bin/true; exec /bin/true last"]));
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    let execs: Vec<_> = recording
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Exec(exec) => Some((exec.header.tid, exec)),
            _ => None,
        })
        .collect();
    assert_eq!(execs.len(), 4, "sh, two children, and sh's own exec");
    assert_eq!(execs[0].0, pid);
    assert_eq!(execs[3].0, pid);
    assert!(execs[3].1.args.starts_with(b"/bin/true\0last\0"));
    assert_eq!(execs[3].1.args_bytes as usize, b"/bin/true\0last\0".len());
    assert!(execs[3].1.path.starts_with(b"/bin/true\0"));
    let tasks: BTreeSet<u32> = execs.iter().map(|exec| exec.0).collect();
    let exits = count(&recording, |record| matches!(record, Record::Exit(_)));
    assert_eq!((tasks.len(), exits), (3, 3));
    assert_eq!(recording.lost(), 0);
}

#[test]
fn n_sleeps_are_n_switches_and_n_timer_wakeups() {
    const SLEEPS: usize = 25;
    let Some(mut probes) = probes("n_sleeps_are_n_switches_and_n_timer_wakeups", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    let code = format!("import time\nfor _ in range({SLEEPS}): time.sleep(0.003)");
    let (pid, status) = run_in_scope(&probes, &mut python(&code));
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    let sleep = |syscall: i32| sandscope::probe::syscall_name(syscall) == "clock_nanosleep";
    let slept = count(&recording, |record| match record {
        Record::Switch(switch) => switch.header.tid == pid && switch.prev_state & 1 != 0 && sleep(switch.syscall),
        _ => false,
    });
    let woken = count(&recording, |record| match record {
        Record::Wake(wake) => {
            wake.header.tid == pid && wake.header.flags == sandscope_ebpf::event::WakeCause::Hrtimer as u8
        }
        _ => false,
    });
    let returned = count(
        &recording,
        |record| matches!(record, Record::Syscall(call) if call.header.tid == pid && sleep(call.number)),
    );
    assert_eq!((slept, woken, returned), (SLEEPS, SLEEPS, SLEEPS));
}

#[test]
fn first_touches_are_page_faults() {
    const PAGES: u32 = 5000;
    let Some(mut probes) = probes("first_touches_are_page_faults", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    // A private mapping without huge pages; the interpreter itself needs some hundreds of faults.
    let code = format!(
        "import mmap\nm = mmap.mmap(-1, {PAGES} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
         m.madvise(mmap.MADV_NOHUGEPAGE)\nfor page in range({PAGES}): m[page * 4096] = 1"
    );
    let faults = |probes: &mut Probes, code: &str| {
        let (_, status) = run_in_scope(probes, &mut python(code));
        assert!(status.success());
        let recording = probes.take().unwrap();
        recording
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Switch(switch) if switch.header.scope == SCOPE => Some(switch.faults),
                _ => None,
            })
            .map(|faults| faults.write + faults.unknown)
            .sum::<u32>()
    };
    let without = faults(&mut probes, &code.replace("m[page * 4096] = 1", "m"));
    let with = faults(&mut probes, &code);
    let difference = with - without;
    assert!((PAGES..=PAGES + 50).contains(&difference), "{with} - {without} = {difference}, expected {PAGES}");
}

#[test]
fn a_listening_socket_is_seen_with_its_port() {
    let Some(mut probes) = probes("a_listening_socket_is_seen_with_its_port", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    let code = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)";
    let mut command = python(code);
    command.stdout(std::process::Stdio::piped());
    let child = spawn_in_scope(&probes, SCOPE, &mut command);
    let output = child.wait_with_output().unwrap();
    let port: u16 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    probes.detach();
    let recording = probes.take().unwrap();
    let ports: Vec<u16> = recording
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Listen(listen) => Some(listen.port),
            _ => None,
        })
        .collect();
    assert_eq!(ports, [port]);
}

#[test]
fn a_full_ring_loses_records_and_counts_them() {
    let options = Options { ring_bytes: 4096, ..Options::default() };
    let Some(mut probes) = probes("a_full_ring_loses_records_and_counts_them", options) else {
        return;
    };
    probes.attach().unwrap();
    let code = "import os\nfor _ in range(20000): os.getppid()";
    let (_, status) = run_in_scope(&probes, &mut python(code));
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    assert!(recording.lost() > 0);
    let seen: u64 = recording.counters.seen.iter().sum();
    assert_eq!(recording.records.len() as u64 + recording.lost(), seen);
    assert!(seen > 20_000);
}

#[test]
fn n_cold_pages_are_n_pages_from_the_disk() {
    const PAGES: usize = 300;
    const PAGE: usize = 4096;
    let Some(mut probes) = probes("n_cold_pages_are_n_pages_from_the_disk", Options::default()) else { return };
    // Beside the build, which is on a disk; the directory for temporary files may be in memory.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), vec![5; PAGES * PAGE]).unwrap();
    let path = file.path().display();
    let read = format!("import os\nf = os.open('{path}', os.O_RDONLY)\nwhile os.read(f, 65536): pass");
    // Once before, so that only the file itself is cold afterwards.
    assert!(python(&read).status().unwrap().success());
    let evicted = bring_about(CacheState::Evicted, &[file.path().to_owned()]);
    if let Err(error) = evicted {
        return sandscope::testing::skip("n_cold_pages_are_n_pages_from_the_disk", "disk", format!("{error:#}"));
    }
    probes.attach().unwrap();
    let (_, status) = run_in_scope(&probes, &mut python(&read));
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    let requests: Vec<_> = recording
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Block(block) => Some(block),
            _ => None,
        })
        .collect();
    let bytes: u64 = requests.iter().map(|block| u64::from(block.bytes)).sum();
    assert_eq!(bytes, (PAGES * PAGE) as u64, "{requests:?}");
    for request in requests {
        let times = [request.queued_ns, request.issued_ns, request.header.at_ns];
        assert!(times.is_sorted() && request.issued_ns > 0, "{request:?}");
        assert_eq!((request.header.flags, request.error), (0, 0));
    }
}
