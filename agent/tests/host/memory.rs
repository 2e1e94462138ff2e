//! Memory whose content is known is looked at, and the figures must be exact; then what may go wrong meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crate::common::subject;
use sandscope::{
    measure::memory::{
        footprint::is_alive,
        guest, ksm,
        mapping::{self, Region},
        pages::{
            Analysis, Subject, analyse,
            balance::Balance,
            classify::{Class, Reason, State},
        },
    },
    sandbox::setting::Settings,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that does what it is told on its standard input.
struct Told {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Told {
    /// Starts a subject and waits until it is ready.
    fn start(words: &str) -> Self {
        Self::of(&mut subject(words))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut told = Self { child, orders, answers };
        assert_eq!(told.answer(), "ready", "{command:?}");
        told
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn order(&mut self, what: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{what}").unwrap();
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// As the process of a VMM: its largest memory is taken for its guest's, so that it is told from what the program has besides.
    fn subject(&self, instance: usize) -> Subject {
        Subject { pid: self.pid(), role: "vmm".into(), instance }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames are known to root only.
fn knows_frames(test: &str) -> bool {
    let knows = sandscope::measure::memory::pages::pagemap::zero_frame().is_some();
    if !knows {
        sandscope::testing::skip(test, "page frames", "needs CAP_SYS_ADMIN");
    }
    knows
}

/// Pages of the guest of an instance by class.
fn by_class(analysis: &Analysis, instance: usize) -> [u64; 4] {
    [Class::Zero, Class::SameWithin, Class::SameAcross, Class::Unique]
        .map(|class| analysis.pages(|bin| (bin.instance, bin.region, bin.class) == (instance, Region::Guest, class)))
}

#[test]
fn pages_of_each_class_are_counted_exactly() {
    const TEST: &str = "pages_of_each_class_are_counted_exactly";
    if !knows_frames(TEST) {
        return;
    }
    for kind in ["anonymous", "memfd", "reserved"] {
        let told = [
            Told::start(&format!("pages {kind} 300 200 500 400")),
            Told::start(&format!("pages {kind} 311 222 533 444")),
        ];
        let start = Instant::now();
        let analysis = analyse(&[told[0].subject(0), told[1].subject(1)], &[], true).unwrap();
        assert!(start.elapsed() < PATIENCE, "{kind}: {:?}", start.elapsed());
        assert!(analysis.not_paused.is_empty() && analysis.paused.is_some(), "{kind}");
        // What is across has a number, which begins where the others end: 500 to 999 and 533 to 1065.
        let across = |from: u64, to: u64| to.min(1000) - from.max(533);
        let both = across(500, 1000);
        assert_eq!(by_class(&analysis, 0), [300, 200, both, 400 + 500 - both], "{kind}");
        assert_eq!(by_class(&analysis, 1), [311, 222, both, 444 + 533 - both], "{kind}");
        assert_eq!((analysis.verified > 0, analysis.differed), (true, 0), "{kind}");
        let Balance { found, counted_by_kernel } = analysis.balance;
        assert_eq!(found, counted_by_kernel, "{kind}: the classes add up to what the kernel counts");
        // Nobody asked KSM, and what others may write to can't be merged.
        let (state, reason) = match kind {
            "memfd" => (State::CouldNot, Reason::SharedMapping),
            _ => (State::Could, Reason::NotMergeable),
        };
        let guest = |bin: &sandscope::measure::memory::pages::classify::Bin| bin.region == Region::Guest;
        let same = analysis.pages(|bin| guest(bin) && bin.class != Class::Unique);
        let told = analysis.pages(|bin| guest(bin) && (bin.state, bin.reason) == (state, Some(reason)));
        assert_eq!(same, told, "{kind}: {:#?}", analysis.counts);
    }
}

#[test]
fn huge_pages_of_hugetlbfs_are_counted_exactly() {
    const TEST: &str = "huge_pages_of_hugetlbfs_are_counted_exactly";
    const RESERVED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    if !knows_frames(TEST) {
        return;
    }
    let Ok(before) = fs::read_to_string(RESERVED) else {
        sandscope::testing::skip(TEST, "hugetlbfs", format!("no {RESERVED}"));
        return;
    };
    let more = before.trim().parse::<u64>().unwrap() + 2;
    if fs::write(RESERVED, more.to_string()).is_err()
        || fs::read_to_string(RESERVED).unwrap().trim() != more.to_string()
    {
        let _ = fs::write(RESERVED, before.trim());
        sandscope::testing::skip(TEST, "hugetlbfs", "no free memory in pieces of 2 MiB");
        return;
    }
    let found = std::panic::catch_unwind(|| {
        let told = [Told::start("pages hugetlb 112 100 200 100"), Told::start("pages hugetlb 112 100 200 100")];
        let analysis = analyse(&[told[0].subject(0), told[1].subject(1)], &[], true).unwrap();
        let mut mappings = mapping::of_process(told[0].pid()).unwrap();
        guest::mark(&mut mappings, "vmm");
        let memory = guest::memory(told[0].pid(), &mappings).unwrap();
        let reasons = analysis.pages(|bin| bin.region == Region::Guest && bin.reason == Some(Reason::Hugetlb));
        assert_eq!(reasons, 2 * (112 + 100 + 200), "{:#?}", analysis.counts);
        ([by_class(&analysis, 0), by_class(&analysis, 1)], memory)
    });
    fs::write(RESERVED, before.trim()).unwrap();
    let (classes, memory) = found.unwrap();
    assert_eq!(classes, [[112, 100, 200, 100]; 2]);
    assert_eq!((memory.backing, memory.populated_bytes), ("hugetlb", 2 << 20));
}

#[test]
fn what_a_process_has_closed_to_itself_is_read_all_the_same() {
    const TEST: &str = "what_a_process_has_closed_to_itself_is_read_all_the_same";
    if !knows_frames(TEST) {
        return;
    }
    // Not writable, so that it is not told from the program's other memory, which is the same in both.
    let within = [200, 300].map(|within| {
        let told = Told::start(&format!("pages closed 0 {within} 0 0"));
        let analysis = analyse(&[told.subject(0)], &[], true).unwrap();
        assert_eq!(analysis.pages(|bin| bin.class == Class::Unread), 0);
        analysis.pages(|bin| (bin.region, bin.class) == (Region::Anonymous, Class::SameWithin))
    });
    assert_eq!(within[1] - within[0], 100);
}

#[test]
fn a_page_of_a_file_is_recognised_where_it_was_copied() {
    const TEST: &str = "a_page_of_a_file_is_recognised_where_it_was_copied";
    if !knows_frames(TEST) {
        return;
    }
    // The subject's pages that are the same in all processes hold their number, so that a file can be made of them.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = home.path().join("rootfs");
    let page = |number: u64| {
        let mut page = vec![0_u8; 4096];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page
    };
    fs::write(&path, (1..=300).flat_map(page).collect::<Vec<u8>>()).unwrap();
    let told = Told::start("pages anonymous 0 0 512 0");
    let analysis = analyse(&[told.subject(0)], &[path], true).unwrap();
    let of_file = analysis.pages(|bin| {
        (bin.region, bin.class, bin.reason) == (Region::Guest, Class::SameAsFile, Some(Reason::GuestPageCache))
    });
    assert_eq!((of_file, by_class(&analysis, 0)), (300, [0, 0, 0, 212]));
}

#[test]
fn a_target_that_changes_meanwhile_is_no_error() {
    let mut told = Told::start("pages anonymous 3000 3000 3000 3000");
    for order in ["grow", "shrink", "shrink", "grow", "exec"] {
        let subject = told.subject(0);
        let looking = thread::spawn(move || analyse(&[subject], &[], false).unwrap());
        told.order(order);
        let answer = told.answer();
        assert!(answer == "done" || answer == "ready", "{answer}");
        let analysis = looking.join().unwrap();
        assert!(analysis.scanned_bytes > 0 || order == "exec", "{order}");
    }
    // Ends at the end of its input, in the middle of being looked at.
    let subject = told.subject(0);
    let looking = thread::spawn(move || analyse(&[subject], &[], false));
    told.orders = None;
    looking.join().unwrap().unwrap();
    let pid = told.pid();
    told.child.wait().unwrap();
    assert!(!is_alive(pid));
    assert_eq!(analyse(&[told.subject(0)], &[], true).unwrap().scanned_bytes, 0);
}

/// The floor with a guest that has so many pages of each kind, when it has written them all.
fn floor(options: &str) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandscope-kvm-floor"));
    command.args(options.split(' ')).arg("--stay").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
    let mut told = Told { child, orders, answers };
    assert_eq!([told.answer(), told.answer()], ["sandscope floor: up", "sandscope floor: done"]);
    told
}

#[test]
fn pages_of_guests_are_counted_exactly() {
    const TEST: &str = "pages_of_guests_are_counted_exactly";
    if let Err(reason) = crate::common::bench::kind("kvm-floor") {
        sandscope::testing::skip(TEST, "kvm-floor", reason);
        return;
    }
    if !knows_frames(TEST) {
        return;
    }
    // What every guest has besides: its image and its boot parameters, equal in guests with the same options.
    let of_two = |options: &str| {
        let told = [floor(options), floor(options)];
        let analysis = analyse(&[told[0].subject(0), told[1].subject(1)], &[], true).unwrap();
        assert!(analysis.not_paused.is_empty(), "{:?}", analysis.not_paused);
        let mut mappings = mapping::of_process(told[0].pid()).unwrap();
        guest::mark(&mut mappings, "vmm");
        let memory = guest::memory(told[0].pid(), &mappings).unwrap();
        assert_eq!(memory.size_bytes, 16 << 20, "the guest's memory is found");
        let pages = |memory: guest::GuestMemory| memory.populated_bytes / 4096;
        ([by_class(&analysis, 0), by_class(&analysis, 1)], pages(memory))
    };
    let (besides, populated) = of_two("--touch 0");
    assert!(populated <= 8, "{populated}");
    let (found, more) = of_two("--touch 300 --zeros 200 --equals 100 --uniques 400");
    assert_eq!(more - populated, 1000);
    for instance in [0, 1] {
        let counted: Vec<u64> =
            found[instance].iter().zip(besides[instance]).map(|(all, besides)| all - besides).collect();
        assert_eq!(counted, [200, 100, 300, 400], "zero, within, across, unique of {instance}");
    }
}

/// KSM is the host's, and so are its settings and what it merges: one test at a time.
fn ksm_alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes the settings of KSM for as long as it lives, or says why it can't.
fn merging(home: &std::path::Path) -> anyhow::Result<Settings> {
    let directory = home.join("settings");
    fs::create_dir(&directory)?;
    let settings = [("pages_to_scan", "20000"), ("sleep_millisecs", "2"), ("run", "1")];
    Settings::change(&directory, &settings.map(|(name, value)| (ksm::path(name), value.to_owned())))
}

#[test]
fn what_ksm_has_merged_is_what_it_could_and_what_the_kernel_counts() {
    const TEST: &str = "what_ksm_has_merged_is_what_it_could_and_what_the_kernel_counts";
    if !knows_frames(TEST) {
        return;
    }
    let _alone = ksm_alone();
    let home = tempfile::tempdir().unwrap();
    let read = |name| fs::read_to_string(ksm::path(name)).unwrap_or_default();
    let before = ["run", "pages_to_scan", "sleep_millisecs"].map(read);
    let told = [Told::start("pages mergeable 300 200 500 400"), Told::start("pages mergeable 300 200 500 400")];
    let subjects = [told[0].subject(0), told[1].subject(1)];
    let possible = analyse(&subjects, &[], true).unwrap();
    let guest = |analysis: &Analysis| -> (u64, u64) {
        let of_guest = analysis.counts.iter().filter(|(bin, _)| bin.region == Region::Guest);
        of_guest
            .map(|(_, count)| (count.freeable, count.ksm))
            .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1))
    };
    // 500 across, 199 within each, and of 600 zeros all but three frames, each of which at most 256 can use.
    let most_sharing: u64 = read("max_page_sharing").trim().parse().unwrap_or(256);
    let zeros = 600 - 600_u64.div_ceil(most_sharing);
    assert_eq!(guest(&possible).0, 500 + 2 * 199 + zeros, "{:#?}", possible.counts);
    let settings = match merging(home.path()) {
        Ok(settings) => settings,
        Err(error) => {
            sandscope::testing::skip(TEST, "ksm", format!("{error:#}"));
            return;
        }
    };
    // All but those that nothing equals.
    let merged = |told: &Told| ksm::merged_pages(told.pid()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while told.iter().any(|told| merged(told) < 1000) {
        assert!(Instant::now() < deadline, "{:?}", ksm::Counters::read());
        thread::sleep(Duration::from_millis(10));
    }
    let achieved = analyse(&subjects, &[], true).unwrap();
    // The kernel takes a page out of its count for as long as it looks at it again.
    let counted = || told.iter().map(merged).sum::<u64>();
    while counted() != achieved.ksm_pages() {
        assert!(Instant::now() < deadline, "{} of {}", counted(), achieved.ksm_pages());
    }
    assert_eq!((guest(&achieved).1, achieved.ksm_pages()), (2000, 2000));
    let freed = achieved.ksm_pages() - achieved.ksm_frames;
    assert_eq!((guest(&achieved).0, freed), (0, guest(&possible).0), "nothing is left to be merged");
    let shared = achieved.pages(|bin| (bin.region, bin.state) == (Region::Guest, State::Already));
    // Frames of each instance: 200 equal pages are one, and its 300 zeros are in two or three.
    assert!((2 * (500 + 1 + 1)..=2 * (500 + 1 + 3)).contains(&shared), "{shared}");
    drop(settings);
    assert_eq!(["run", "pages_to_scan", "sleep_millisecs"].map(read), before, "the settings are restored");
}

/// A program and its forked child, and who they are.
fn forked(words: &str) -> (Told, [Subject; 2]) {
    let told = Told::start(words);
    let pid = told.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = Subject { pid: children.trim().parse().unwrap(), ..told.subject(0) };
    let parent = told.subject(0);
    (told, [parent, child])
}

#[test]
fn what_ksm_frees_of_a_program_and_its_forked_child_is_what_it_could() {
    const TEST: &str = "what_ksm_frees_of_a_program_and_its_forked_child_is_what_it_could";
    if !knows_frames(TEST) {
        return;
    }
    let _alone = ksm_alone();
    let home = tempfile::tempdir().unwrap();
    let settings_now =
        || ["run", "pages_to_scan", "sleep_millisecs"].map(|name| fs::read_to_string(ksm::path(name)).ok());
    let before = settings_now();
    let (_told, subjects) = forked("forked 300 200 0 400 150");
    let possible = analyse(&subjects, &[], true).unwrap();
    assert_eq!(by_class(&possible, 0), [300, 200 + 2 * 150, 0, 250]);
    let guest = |analysis: &Analysis| -> (u64, u64) {
        let of_guest = analysis.counts.iter().filter(|(bin, _)| bin.region == Region::Guest);
        of_guest.fold((0, 0), |sum, (_, count)| (sum.0 + count.pages, sum.1 + count.freeable))
    };
    // Each mapping takes a place: 600 of zeros, 400 of those within. Of those that the child has rewritten, one of two goes.
    let most_sharing = fs::read_to_string(ksm::path("max_page_sharing")).unwrap_or_default();
    let most_sharing: u64 = most_sharing.trim().parse().unwrap_or(256);
    let could = 300 - 600_u64.div_ceil(most_sharing) + 200 - 400_u64.div_ceil(most_sharing) + 150;
    assert_eq!(guest(&possible).1, could, "{:#?}", possible.counts);
    let settings = match merging(home.path()) {
        Ok(settings) => settings,
        Err(error) => {
            sandscope::testing::skip(TEST, "ksm", format!("{error:#}"));
            return;
        }
    };
    // All mappings but those of what nothing equals. Until then nobody looks: KSM passes over a page that is being copied.
    let merged = || subjects.iter().map(|subject| ksm::merged_pages(subject.pid).unwrap()).sum::<u64>();
    let deadline = Instant::now() + PATIENCE;
    while merged() < 2 * (300 + 200 + 150) {
        assert!(Instant::now() < deadline, "{} are merged, {:?}", merged(), ksm::Counters::read());
        thread::sleep(Duration::from_millis(10));
    }
    let achieved = analyse(&subjects, &[], true).unwrap();
    let freed = (guest(&possible).0 - guest(&achieved).0, guest(&achieved).1);
    drop(settings);
    assert_eq!(settings_now(), before, "the settings are restored");
    assert_eq!(freed, (could, 0), "frames that KSM has freed, and that it still could");
}

#[test]
fn a_process_whose_first_thread_has_ended_is_read_through_another() {
    const TEST: &str = "a_process_whose_first_thread_has_ended_is_read_through_another";
    if !knows_frames(TEST) {
        return;
    }
    let told = Told::start("leaderless 300 200 0 4000");
    let state = || procfs::process::Process::new(told.pid()).unwrap().stat().unwrap().state;
    let deadline = Instant::now() + PATIENCE;
    while state() != 'Z' {
        assert!(Instant::now() < deadline, "its first thread does not end");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(is_alive(told.pid()));
    let analysis = analyse(&[told.subject(0)], &[], true).unwrap();
    assert_eq!(by_class(&analysis, 0), [300, 200, 0, 4000]);
    assert!(analysis.not_paused.is_empty() && analysis.paused.is_some(), "{:?}", analysis.not_paused);
    assert_eq!(analysis.balance.found, analysis.balance.counted_by_kernel);
    let footprint = sandscope::measure::memory::footprint::Footprint::of_process(told.pid()).unwrap();
    assert!(footprint.rss_bytes > 4500 * 4096, "{footprint:?}");
}

#[test]
fn two_copies_of_a_file_are_equal_in_the_page_cache_and_not_shared() {
    const TEST: &str = "two_copies_of_a_file_are_equal_in_the_page_cache_and_not_shared";
    if !knows_frames(TEST) {
        return;
    }
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let paths = ["layer-a", "layer-b"].map(|name| home.path().join(name));
    // The content of each page is its own, but that of the last, which is that of the first: no copy, as it is somewhere else.
    let content: Vec<u8> = (1..300_u64).chain([1]).flat_map(|page| page.to_le_bytes().repeat(512)).collect();
    for path in &paths {
        fs::write(path, &content).unwrap();
    }
    let map = |path: &std::path::Path| Told::start(&format!("map {}", path.display()));
    let copies = |told: &[Told; 2]| {
        let analysis = analyse(&[told[0].subject(0), told[1].subject(1)], &paths, true).unwrap();
        let pages = analysis.pages(|bin| bin.reason == Some(Reason::FileCopy));
        (analysis.file_copies, pages)
    };
    assert_eq!(copies(&[map(&paths[0]), map(&paths[1])]), (300, 600), "each has a copy of its own");
    let one = [map(&paths[0]), map(&paths[0])];
    assert_eq!(copies(&one).0, 300, "nobody maps the other copy, but the page cache has it");
    fs::remove_file(&paths[1]).unwrap();
    assert_eq!(copies(&one), (0, 0), "both map one file");
}

#[test]
fn pages_are_looked_at_half_as_fast_as_one_core_copies_and_hashes_and_in_little_memory() {
    const TEST: &str = "pages_are_looked_at_half_as_fast_as_one_core_copies_and_hashes_and_in_little_memory";
    if !knows_frames(TEST) {
        return;
    }
    // Of what the process itself can do with the same pages on one core. Without optimisation only the copying and the hashing are
    // fast, and those are all that it does. One core alone has to look up every page besides.
    let has_one_core = thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let least = if cfg!(debug_assertions) || has_one_core { 0.2 } else { 0.5 };
    let mut told = Told::start("pages anonymous 1000 1000 1000 30000");
    // Others run on the machine too: the two are measured in turn until both were undisturbed.
    let deadline = Instant::now() + PATIENCE;
    let (mut limit, mut fastest) = (0.0_f64, 0.0_f64);
    loop {
        told.order("limit");
        limit = limit.max(told.answer().parse().unwrap());
        let analysis = analyse(&[told.subject(0)], &[], true).unwrap();
        fastest = fastest.max(analysis.scanned_bytes as f64 / analysis.scan_time.as_secs_f64());
        // 64 MB for 8 GiB.
        let share = analysis.table_bytes as f64 / analysis.scanned_bytes as f64;
        assert!(share <= 64e6 / (8_u64 << 30) as f64, "{share} bytes per byte");
        if fastest >= least * limit {
            break;
        }
        assert!(Instant::now() < deadline, "{fastest:.3e} of {limit:.3e} bytes per second");
    }
    eprintln!("{:.2} of {:.2} GB/s", fastest / 1e9, limit / 1e9);
}

#[test]
fn content_that_is_shifted_is_found_and_other_content_is_not() {
    const TEST: &str = "content_that_is_shifted_is_found_and_other_content_is_not";
    if !knows_frames(TEST) {
        return;
    }
    let share = |words: [&str; 2]| {
        let told = words.map(Told::start);
        let shifted = analyse(&[told[0].subject(0), told[1].subject(1)], &[], true).unwrap().shifted;
        assert!(shifted.unique >= 1200 && shifted.sampled == shifted.unique, "{shifted:?}");
        shifted.shifted as f64 / shifted.sampled as f64
    };
    // Both hold the same, the second 100 bytes further on; the programs' own pages are few.
    let shifted = share(["noise 600 0", "noise 600 100"]);
    assert!(shifted > 0.9, "{shifted}");
    let other = share(["pages anonymous 0 0 0 600", "pages anonymous 0 0 0 600"]);
    assert!(other < 0.1, "{other}");
}

#[test]
fn nobody_stays_held_when_who_holds_is_killed() {
    let mut told = Told::start("pages anonymous 1 1 1 1");
    let mut holder = Told::start(&format!("hold {}", told.pid()));
    let state = |pid: i32| procfs::process::Process::new(pid).unwrap().stat().unwrap().state;
    assert_eq!(state(told.pid()), 't');
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while state(told.pid()) == 't' {
        assert!(Instant::now() < deadline, "it stays held");
        thread::sleep(Duration::from_millis(1));
    }
    told.order("grow");
    assert_eq!(told.answer(), "done", "it goes on where it was");
}
