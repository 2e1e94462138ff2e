//! Ground truth for the probes: each test knows the right answer before it runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod common;

use common::{
    bench::{Bench, kind, workload_executable},
    disturbance::{reclaimed_pages, undisturbed},
    probes, spawn_in_scope, subject,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use sandscope::{
    measure::page_cache::{CacheState, bring_about},
    probe::{DeviceCounts, Options, Pickups, Probes, Record, Recording},
    sandbox::network::{Private, TAP},
};
use sandscope_ebpf::event::{Direction, Kind};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use syscalls::Sysno;

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
    assert_eq!(recording.lost.all(), 0);
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
    assert_eq!(recording.lost.all(), 0);
}

#[test]
fn n_sleeps_are_n_switches_and_n_timer_wakeups() {
    const SLEEPS: usize = 25;
    // A host that hides threads from its probes also hides the wake-ups of timers that expire while one of them has the CPU.
    undisturbed(|| {
        let Some(mut probes) = probes("n_sleeps_are_n_switches_and_n_timer_wakeups", Options::default()) else {
            return Ok(());
        };
        probes.attach().unwrap();
        // Long ones: a timer that expires before the thread sleeps, because it lost its CPU in between, wakes nobody.
        let (pid, status) = run_in_scope(&probes, &mut subject(&format!("sleep {SLEEPS} 20")));
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
        assert_eq!((slept, returned), (SLEEPS, SLEEPS));
        anyhow::ensure!(woken == SLEEPS, "{woken} wake-ups");
        Ok(())
    });
}

#[test]
fn first_touches_are_page_faults() {
    const PAGES: u32 = 5000;
    let Some(mut probes) = probes("first_touches_are_page_faults", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    let faults = |probes: &mut Probes, touched: u32| {
        let (_, status) = run_in_scope(probes, &mut subject(&format!("touch {PAGES} {touched}")));
        assert!(status.success());
        let recording = probes.take().unwrap();
        recording
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Traps(traps) if traps.header.scope == SCOPE => Some(traps.faults),
                _ => None,
            })
            .map(|faults| faults.write + faults.unknown)
            .sum::<u32>()
    };
    // Starting takes some faults as well, one more or less with where the kernel puts the stack.
    let without = faults(&mut probes, 0);
    let with = faults(&mut probes, PAGES);
    assert!(with.abs_diff(without + PAGES) <= 10, "{with} - {without} faults, expected {PAGES} more");
}

#[test]
fn a_listening_socket_is_seen_with_its_port() {
    let Some(mut probes) = probes("a_listening_socket_is_seen_with_its_port", Options::default()) else {
        return;
    };
    probes.attach().unwrap();
    let mut command = subject("listen");
    command.stdout(Stdio::piped());
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
    let (_, status) = run_in_scope(&probes, &mut subject("getppid 20000"));
    assert!(status.success());
    probes.detach();
    let recording = probes.take().unwrap();
    let is_call = |record: &Record| matches!(record, Record::Syscall(call) if call.number == Sysno::getppid.id());
    let kept = count(&recording, is_call) as u64;
    let lost = recording.lost.of(SCOPE, Kind::Syscall);
    assert!(lost > 0 && recording.lost.all() >= lost);
    // The others are those by which the program starts and ends.
    assert!((20_000..20_500).contains(&(kept + lost)), "{kept} kept, {lost} lost");
    assert_eq!(recording.lost.of(SCOPE + 1, Kind::Syscall), 0, "they are nobody else's: {:?}", recording.lost);
}

#[test]
fn n_cold_pages_are_n_pages_from_the_disk() {
    /// 52 MB: requests are so long that the kernel splits some of them on their way to the disk.
    const PAGES: usize = 12_695;
    const PAGE: usize = 4096;
    const WRITTEN: u64 = 50;
    let Some(mut probes) = probes("n_cold_pages_are_n_pages_from_the_disk", Options::default()) else { return };
    // Beside the build, which is on a disk; the directory for temporary files may be in memory.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = file.path().to_owned();
    std::fs::write(&path, vec![5; PAGES * PAGE]).unwrap();
    let read = || {
        let mut command = subject("read");
        command.arg(file.path());
        command
    };
    // Once before, so that only the file itself is cold afterwards.
    assert!(read().status().unwrap().success());
    let evicted = bring_about(CacheState::Evicted, &[file.path().to_owned()]);
    if let Err(error) = evicted {
        return sandscope::testing::skip("n_cold_pages_are_n_pages_from_the_disk", "disk", format!("{error:#}"));
    }
    let reclaimed = reclaimed_pages();
    probes.attach().unwrap();
    probes.watch_files(SCOPE).unwrap();
    let (_, status) = run_in_scope(&probes, &mut read());
    assert!(status.success());
    // The file is the one of which as many bytes were read.
    let bytes = (PAGES * PAGE) as u64;
    let cold = probes.file_sums(SCOPE).unwrap().expect("this kernel tells of files");
    let (file, counts) = cold.files.iter().find(|(_, counts)| counts.read_bytes == bytes).unwrap();
    assert_eq!(file.0, file_inode(&path));
    // What the kernel took back meanwhile, because others wanted memory, may have been brought in again.
    let again = || reclaimed_pages() - reclaimed;
    let missed = |least: u64| least..=least + again();
    assert!(missed(PAGES as u64).contains(&counts.missed_by_reads), "{counts:?}, {} reclaimed", again());
    assert_eq!(counts.missed_by_faults, 0, "{counts:?}");
    assert_eq!((counts.writes, counts.made_by_writes), (0, 0), "{counts:?}");
    // Once more: the same bytes, and no page is missing.
    let (_, status) = run_in_scope(&probes, &mut read());
    assert!(status.success());
    let both = probes.file_sums(SCOPE).unwrap().unwrap();
    let warm = both.since(&cold).files[file];
    assert_eq!((warm.read_bytes, warm.missed_by_faults), (bytes, 0), "{warm:?}");
    assert!(missed(0).contains(&warm.missed_by_reads), "{warm:?}, {} reclaimed", again());
    // What is written to the end of it comes into the page cache as well, and is no miss.
    let (_, status) = run_in_scope(&probes, &mut subject(&format!("write {} {WRITTEN}", path.display())));
    assert!(status.success());
    let written = probes.file_sums(SCOPE).unwrap().unwrap().since(&both).files[file];
    assert_eq!((written.writes, written.written_bytes), (WRITTEN, WRITTEN * PAGE as u64), "{written:?}");
    assert_eq!((written.made_by_writes, written.missed_by_reads), (WRITTEN, 0), "{written:?}");
    probes.detach();
    let recording = probes.take().unwrap();
    assert_eq!(recording.lost.all(), 0);
    // The file system may read something for itself meanwhile, and a page of the program may be cold.
    let places = sectors_of(&path, bytes);
    let requests: Vec<_> = recording
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Block(block) if block.header.flags == 0 => Some(block),
            _ => None,
        })
        .filter(|block| places.iter().any(|place| place.contains(&block.sector)))
        .collect();
    let from_disk: u64 = requests.iter().map(|block| u64::from(block.bytes)).sum();
    let shown = || requests.iter().map(|block| (block.sector, block.bytes)).collect::<Vec<_>>();
    let expected = bytes..=bytes + again() * PAGE as u64;
    let is_right = expected.contains(&from_disk);
    assert!(is_right, "{from_disk} bytes: nothing twice, and not without what was split: {:?} of {places:?}", shown());
    for request in requests {
        let times = [request.queued_ns, request.issued_ns, request.header.at_ns];
        assert!(times.is_sorted() && request.issued_ns > 0, "{request:?}");
        assert_eq!((request.header.flags, request.error), (0, 0));
    }
}

fn file_inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// Extents that one call can tell.
const EXTENTS: usize = 512;

/// `struct fiemap` of `include/uapi/linux/fiemap.h`, with room for extents.
#[repr(C)]
struct Fiemap {
    head: FiemapHead,
    extents: [FiemapExtent; EXTENTS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// Where the first bytes of a file are on its disk, in sectors.
fn sectors_of(path: &Path, bytes: u64) -> Vec<Range<u64>> {
    const SECTOR: u64 = 512;
    const FS_IOC_FIEMAP: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<FiemapHead>(b'f', 11);
    let file = std::fs::File::open(path).unwrap();
    let head =
        FiemapHead { start: 0, length: bytes, flags: 0, mapped_extents: 0, extent_count: EXTENTS as u32, reserved: 0 };
    let mut map = Fiemap { head, extents: [FiemapExtent::default(); EXTENTS] };
    // SAFETY: the opcode is that of this struct, of which its size counts only the head.
    let ask = unsafe { rustix::ioctl::Updater::<FS_IOC_FIEMAP, _>::new(&mut map) };
    // SAFETY: the kernel writes no more extents than there is room for, as the head says.
    unsafe { rustix::ioctl::ioctl(&file, ask) }.unwrap();
    let extents = &map.extents[..map.head.mapped_extents as usize];
    assert!(extents.iter().map(|extent| extent.length).sum::<u64>() >= bytes, "{} extents", extents.len());
    let device = file.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // Only a partition has a start.
    let start = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/start"));
    let start: u64 = start.map_or(0, |start| start.trim().parse().unwrap());
    let place = |extent: &FiemapExtent| {
        start + extent.physical / SECTOR..start + (extent.physical + extent.length).div_ceil(SECTOR)
    };
    extents.iter().map(place).collect()
}

/// Port on which the test's server listens.
const PORT: u16 = 8123;

/// Starts a command in the network namespace of an instance.
fn spawn_inside(network: &Private, command: &mut Command) -> Child {
    std::thread::scope(|scope| {
        let spawn = scope.spawn(|| {
            move_into_link_name_space(network.namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            command.spawn().unwrap()
        });
        spawn.join().unwrap()
    })
}

/// Connects to the server, which may not listen yet.
fn connect(address: Ipv4Addr) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), Duration::from_secs(5)) {
            Ok(stream) => {
                stream.set_nodelay(true).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP segment with so much data in an Ethernet frame, as `send` takes it.
fn segment(sequence: u32, bytes: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    let length = 40 + bytes;
    frame.extend([0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([0x10, 0x00, 0x20, 0x00]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + usize::from(bytes), 1);
    frame
}

/// Sends a frame out of a device as it is.
fn send(ifindex: u32, frame: &[u8]) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None).unwrap();
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the pointers are to a buffer and an address of these lengths.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), length)
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_known_transfer_is_seen_frame_by_frame_and_a_known_delay_as_time_to_the_answer() {
    const TEST: &str = "a_known_transfer_is_seen_frame_by_frame_and_a_known_delay_as_time_to_the_answer";
    const REQUESTS: u64 = 10;
    const DELAY_MS: u64 = 30;
    const DATAGRAMS: u64 = 50;
    let Some(mut probes) = probes(TEST, Options::default()) else { return };
    let process = match kind("process") {
        Ok(process) => process,
        Err(reason) => return sandscope::testing::skip(TEST, "process", reason),
    };
    let bench = Bench::new();
    let workload = match workload_executable() {
        Ok(workload) => workload,
        Err(reason) => return sandscope::testing::skip(TEST, "workload", reason),
    };
    // Only its network is used: the server in it is the test's own.
    let mut instance = process.prepare(&bench.specification("net", &workload)).unwrap();
    let (device, address) = (instance.device().unwrap(), instance.network().unwrap().sandbox_address);
    probes.attach().unwrap();
    let probe = probes.watch_device(&device.name, device.index, SCOPE).unwrap().expect("the kernel takes TC programs");
    let mut command = subject(&format!("answer {PORT} {DELAY_MS} 700"));
    let mut server = spawn_inside(instance.network().unwrap(), &mut command);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut stream = connect(address);
        let mut seen = DeviceCounts::default();
        let mut since = |probes: &mut Probes| {
            let now = probes.device_counts(&probe).unwrap();
            now.since(&std::mem::replace(&mut seen, now.clone()))
        };
        since(&mut probes);

        let mut answer = [0; 700];
        for _ in 0..REQUESTS {
            stream.write_all(&[b'q'; 100]).unwrap();
            stream.read_exact(&mut answer).unwrap();
        }
        let asked = since(&mut probes);
        assert_eq!(asked.answers.count(), REQUESTS);
        assert!(asked.answers_ns >= REQUESTS * DELAY_MS * 1_000_000, "{} ns", asked.answers_ns);
        let (floors, counts) = asked.answers.buckets();
        // A bucket begins up to a sixteenth before the values in it.
        assert!(floors[0] >= DELAY_MS * 1_000_000 * 15 / 16, "{floors:?}");
        let soon = floors.iter().zip(&counts).filter(|(floor, _)| **floor < 3 * DELAY_MS * 1_000_000);
        let soon: u64 = soon.map(|(_, count)| count).sum();
        assert!(soon > REQUESTS / 2, "most come soon after the delay: {floors:?} {counts:?}");
        assert_eq!(asked.retransmits, [0, 0]);
        // Each request and each answer is one frame of known length, headers of 14 + 20 + 32 bytes included.
        let [answers, requests] = asked.sizes.each_ref().map(sandscope::probe::Distribution::buckets);
        let of = |(floors, counts): &(Vec<u64>, Vec<u64>), bytes: u64| {
            floors.iter().rposition(|&floor| floor <= bytes).map_or(0, |at| counts[at])
        };
        assert_eq!((of(&answers, 766), of(&requests, 166)), (REQUESTS, REQUESTS), "{answers:?} {requests:?}");

        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        for _ in 0..DATAGRAMS {
            socket.send_to(&[b'u'; 1000], (address, PORT)).unwrap();
        }
        let sent = since(&mut probes);
        let way = Direction::ToSandbox as usize;
        // The host may ask once more who has the address, in 42 bytes, or acknowledge late, in 66; headers of a datagram are
        // 14 + 20 + 8 bytes.
        let beside =
            |all: u64, datagrams: u64| all.checked_sub(datagrams).unwrap_or_else(|| panic!("too few: {sent:?}"));
        let others = beside(sent.frames[way], DATAGRAMS);
        assert!(others <= 2, "{others} frames beside the datagrams");
        let of_others = beside(sent.bytes[way], DATAGRAMS * 1042);
        assert!((others * 42..=others * 66).contains(&of_others), "{of_others} bytes in {others} frames");

        for sequence in [1, 101, 201, 301, 101, 201, 401] {
            send(device.index, &segment(sequence, 100));
        }
        assert_eq!(since(&mut probes).retransmits[way], 2, "two of them had passed before");

        let offloads = instance.network().unwrap().offloads().unwrap();
        let places: Vec<_> = offloads.iter().map(|offload| offload.place).collect();
        assert_eq!(places, ["host_end", "sandbox_end"]);
        assert!(offloads.iter().all(|offload| offload.tso && offload.tx_checksum), "a veth has them: {offloads:?}");
    }));
    probes.detach();
    server.kill().unwrap();
    server.wait().unwrap();
    instance.stop().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// What happens on a tap device in a network namespace of the calling thread's own, whose frames the test's subject takes.
fn frames_for_a_vmm(probes: &mut Probes) {
    const FRAMES: u64 = 40;
    const DELAY: Duration = Duration::from_millis(30);
    // SAFETY: of what threads share, a new network namespace takes nothing away.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    // It would send frames of its own.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let mut command = subject("tap");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut vmm = spawn_in_scope(probes, SCOPE, &mut command);
    let (mut go, mut says) = (vmm.stdin.take().unwrap(), BufReader::new(vmm.stdout.take().unwrap()).lines());
    assert_eq!(says.next().unwrap().unwrap(), "ready");
    let ip = |words: &str| assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
    ip(&format!("link set {TAP} up"));
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let index = rustix::net::netdevice::name_to_index(&socket, TAP).unwrap();
    let probe = probes.watch_device(TAP, index, SCOPE).unwrap().expect("the kernel takes TC programs");
    let mut before = DeviceCounts::default();
    let mut taken_of = |frames: u64| {
        for sequence in 0..frames {
            send(index, &segment(1 + 100 * sequence as u32, 100));
        }
        std::thread::sleep(DELAY);
        writeln!(go).unwrap();
        let taken: u64 = says.next().unwrap().unwrap().parse().unwrap();
        let now = probes.device_counts(&probe).unwrap();
        let seen = now.since(&std::mem::replace(&mut before, now.clone()));
        assert_eq!(seen.frames[Direction::ToSandbox as usize], frames);
        let Pickups { waits, waits_ns, unseen } = seen.pickups;
        assert_eq!((waits.count(), unseen), (taken, frames - taken));
        assert!(waits_ns >= taken * DELAY.as_nanos() as u64, "{waits_ns} ns for {taken} frames");
        let (floors, _) = waits.buckets();
        // A bucket begins up to a sixteenth before the values in it.
        assert!(floors.iter().all(|&floor| u128::from(floor) >= DELAY.as_nanos() * 15 / 16), "{floors:?}");
        taken
    };
    assert_eq!(taken_of(FRAMES), FRAMES);
    // One that the host is to send, but the device has no room for, is not taken for one that waits for ever. (Kernels that hold
    // it back instead lose none.)
    ip(&format!("link set {TAP} qlen 10"));
    let taken = taken_of(FRAMES);
    assert!(taken >= 10, "{taken} frames");
    assert_eq!(taken_of(3), 3);
    probes.unwatch_device(probe).unwrap();
    drop(go);
    assert!(vmm.wait().unwrap().success());
}

#[test]
fn frames_wait_for_a_vmm_as_long_as_it_lets_them() {
    const TEST: &str = "frames_wait_for_a_vmm_as_long_as_it_lets_them";
    let Some(mut probes) = probes(TEST, Options::default()) else { return };
    if !Path::new("/dev/net/tun").exists() {
        return sandscope::testing::skip(TEST, "tun", "there is no /dev/net/tun: `modprobe tun`");
    }
    probes.attach().unwrap();
    std::thread::scope(|scope| scope.spawn(|| frames_for_a_vmm(&mut probes)).join()).unwrap();
    probes.detach();
}
