//! The critical path, on real recordings whose answer is known.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

mod common;

use common::{histories, probes, spawn_in_scope, subject};
use sandscope::{
    correlate::{Category, Element, Graph, Histories, Names, Source, folded},
    host::clock::monotonic_ns,
    probe::{Options, Probes, Record, Recording},
    role::RoleRule,
    testing::skip,
};
use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const SCOPE: u16 = 9;
const RULES: &[RoleRule] = &[
    RoleRule { role: "program", contains: "sandscope-test-subject", forked: None },
    RoleRule { role: "program", contains: "/sh", forked: None },
    RoleRule { role: "child", contains: "/bin/true", forked: None },
];

/// Whether times mean something here: in software emulation a page fault is cheaper than the code between two of them.
fn keeps_pace(test: &str) -> bool {
    let emulated = std::env::var_os("SANDSCOPE_TEST_PACE").is_some_and(|pace| pace == "emulated");
    if emulated {
        skip(test, "pace", "the CPU is emulated");
    }
    !emulated
}

/// Grace periods that take their usual time, for as long as it lives: whoever has told the kernel to expedite all of them has done so
/// until then, and has it again afterwards.
struct GracePeriods {
    expedited: String,
}

impl GracePeriods {
    const SETTING: &str = "/sys/kernel/rcu_expedited";

    /// `None` with one CPU, where there is nobody to wait for, and where these are emulated and nearly all of a grace period is the
    /// code around it.
    fn usual(test: &str) -> Option<Self> {
        if std::thread::available_parallelism().unwrap().get() < 2 {
            skip(test, "cpus", "one CPU has no grace periods to wait for");
            return None;
        }
        keeps_pace(test).then(|| {
            let expedited = std::fs::read_to_string(Self::SETTING).unwrap();
            std::fs::write(Self::SETTING, "0").unwrap();
            Self { expedited }
        })
    }
}

impl Drop for GracePeriods {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::SETTING, &self.expedited);
    }
}

/// A stretch of the path, in words.
#[derive(Debug)]
struct Part {
    category: Category,
    role: String,
    call: String,
    /// Where in the kernel it waits.
    stack: String,
    time_ns: u64,
}

/// What a command did in scope, and what it printed.
struct Recorded {
    recording: Recording,
    histories: Histories,
    names: Names,
    pid: u32,
    printed: String,
}

/// Runs a command in scope.
fn record(test: &str, command: &mut Command) -> Option<Recorded> {
    let mut probes = probes(test, Options::default())?;
    probes.attach().unwrap();
    let recorded = record_with(&mut probes, command);
    probes.detach();
    Some(recorded)
}

/// The same with probes that are attached already.
fn record_with(probes: &mut Probes, command: &mut Command) -> Recorded {
    record_while(probes, command, |_| ())
}

/// The same, doing something with the process meanwhile.
fn record_while(probes: &mut Probes, command: &mut Command, meanwhile: impl FnOnce(u32)) -> Recorded {
    let mut child = spawn_in_scope(probes, SCOPE, command.stdout(Stdio::piped()));
    let spawned_ns = monotonic_ns();
    let (mut printed, pid) = (String::new(), child.id());
    meanwhile(pid);
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    let recording = probes.take().unwrap();
    assert_eq!(recording.lost.all(), 0);
    let (histories, names) =
        histories(&recording, Source { scope: SCOPE, rules: RULES, ..Source::default() }, spawned_ns, probes);
    Recorded { recording, histories, names, pid, printed }
}

impl Recorded {
    /// The path to what the process's first thread does at the end.
    fn path(&self, start_ns: u64, end_ns: u64) -> Vec<Part> {
        let graph = Graph::of(&self.histories, &self.recording.records, &self.names, start_ns, end_ns);
        let path = graph.path(self.pid);
        assert_eq!(path.iter().map(Element::time_ns).sum::<u64>(), end_ns - start_ns, "the path is the whole time");
        let texts = &self.histories.texts;
        let part = |element: &Element| Part {
            category: element.charge.category,
            role: element.charge.role.map_or(String::new(), |role| texts.get(role).to_owned()),
            call: element.charge.within.map_or(String::new(), |within| within.called.name()),
            stack: element
                .charge
                .stack
                .map_or(String::new(), |stack| folded(&self.names.functions(&self.histories.stacks.get(stack).calls))),
            time_ns: element.time_ns(),
        };
        let parts: Vec<_> = path.iter().map(part).collect();
        let unexplained = sum(&parts, |part| part.category == Category::Unattributed);
        assert_eq!(unexplained, 0, "{parts:?}");
        parts
    }

    /// The path from the first thing that happened to the end of the first thread.
    fn whole_path(&self) -> (u64, Vec<Part>) {
        let start_ns = self.recording.records.first().unwrap().header().at_ns;
        let is_end = |record: &&Record| matches!(record, Record::Exit(exit) if exit.header.tid == self.pid);
        let end_ns = self.recording.records.iter().rfind(is_end).unwrap().header().at_ns;
        (end_ns - start_ns, self.path(start_ns, end_ns))
    }
}

fn sum(parts: &[Part], wanted: impl Fn(&Part) -> bool) -> u64 {
    parts.iter().filter(|part| wanted(part)).map(|part| part.time_ns).sum()
}

fn of(parts: &[Part], category: Category) -> u64 {
    sum(parts, |part| part.category == category)
}

/// Runs `race BESIDE MAIN`: the length of the main thing by its own clock, and the path of it.
fn race(test: &str, beside: &str, main: &str) -> Option<(u64, Vec<Part>)> {
    let recorded = record(test, subject("race").args([beside, main]))?;
    let instants: Vec<u64> = recorded.printed.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [start_ns, end_ns] = instants[..] else { panic!("{:?}", recorded.printed) };
    let parts = recorded.path(start_ns, end_ns);
    let told = |category: Category| format!("{} {:.1} ms", category.name(), of(&parts, category) as f64 / 1e6);
    let told: Vec<_> =
        Category::ALL.iter().filter(|(category, _)| of(&parts, *category) > 0).map(|(c, _)| told(*c)).collect();
    println!("{main} beside {beside}: {:.1} ms: {}", (end_ns - start_ns) as f64 / 1e6, told.join(", "));
    Some((end_ns - start_ns, parts))
}

/// What may go on beside a wait and has no part in it.
fn bystanders(disk: &Path) -> Vec<String> {
    let direct = format!("direct:{}", disk.display());
    let all = format!("spin,nice,poll,touch,{direct}");
    ["none", "spin", "nice", "poll", "touch", &direct, &all].map(str::to_owned).to_vec()
}

/// A file on a disk, not in memory.
fn on_disk() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), vec![7; 16 << 20]).unwrap();
    file
}

/// How long somebody may be seen asleep who asked for so many milliseconds: what the call does before it sleeps is a part of the time
/// that was asked for (2 ms were seen on an emulated CPU), and a timer may be late.
fn asleep(ms: u64) -> std::ops::RangeInclusive<u64> {
    let asked_ns = ms * 1_000_000;
    asked_ns - asked_ns / 10..=asked_ns + asked_ns / 10
}

#[test]
fn a_wait_for_a_timer_is_one_whatever_others_do_beside_it() {
    let disk = on_disk();
    for beside in bystanders(disk.path()) {
        let test = "a_wait_for_a_timer_is_one_whatever_others_do_beside_it";
        let Some((wall_ns, parts)) = race(test, &beside, "sleep:60") else { return };
        let timer = of(&parts, Category::Timer);
        assert!(asleep(60).contains(&timer), "{beside}: {timer} ns of {wall_ns}");
    }
}

#[test]
fn sleeps_in_a_row_are_all_waited_for_though_others_sleep_beside_them() {
    if !keeps_pace("sleeps_in_a_row_are_all_waited_for_though_others_sleep_beside_them") {
        return;
    }
    let disk = on_disk();
    let direct = format!("direct:{}", disk.path().display());
    for beside in ["none", "poll", "touch", &direct] {
        let test = "sleeps_in_a_row_are_all_waited_for_though_others_sleep_beside_them";
        let Some((wall_ns, parts)) = race(test, beside, "sleeps:6") else { return };
        let timer = of(&parts, Category::Timer);
        assert!(asleep(60).contains(&timer), "{beside}: {timer} ns of {wall_ns}");
    }
}

#[test]
fn a_wait_for_a_grace_period_is_one_whatever_others_do_beside_it() {
    let Some(_usual) = GracePeriods::usual("a_wait_for_a_grace_period_is_one_whatever_others_do_beside_it") else {
        return;
    };
    let disk = on_disk();
    for beside in bystanders(disk.path()) {
        let test = "a_wait_for_a_grace_period_is_one_whatever_others_do_beside_it";
        let Some((wall_ns, parts)) = race(test, &beside, "rcu:4") else { return };
        // Nearly all of it is that; with others on both CPUs it is also waited for one of them.
        let (rcu, ready) = (of(&parts, Category::Rcu), of(&parts, Category::Runnable));
        assert!(
            (rcu + ready) * 100 >= wall_ns * 90 && rcu * 100 >= wall_ns * 60,
            "{beside}: {rcu} + {ready} ns of {wall_ns}"
        );
        assert_eq!(of(&parts, Category::BlockIo), 0, "{beside}");
    }
}

#[test]
fn where_it_waits_in_the_kernel_is_what_the_kernel_says_of_it() {
    let Some(_usual) = GracePeriods::usual("where_it_waits_in_the_kernel_is_what_the_kernel_says_of_it") else {
        return;
    };
    let test = "where_it_waits_in_the_kernel_is_what_the_kernel_says_of_it";
    let Some(mut probes) = probes(test, Options::default()) else { return };
    probes.attach().unwrap();
    let mut said: BTreeMap<String, u32> = BTreeMap::new();
    let recorded = record_while(&mut probes, subject("race").args(["none", "rcu:8"]), |pid| {
        while let Some(stack) = stack_of(pid) {
            *said.entry(stack).or_default() += 1;
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    probes.detach();
    let (_, parts) = recorded.whole_path();
    let waits: Vec<&Part> = parts.iter().filter(|part| part.category == Category::Rcu).collect();
    assert!(waits.len() >= 8, "{parts:?}");
    for wait in &waits {
        assert!(wait.stack.contains("_membarrier;") && wait.stack.contains("synchronize_rcu"), "{}", wait.stack);
        assert!(said.contains_key(&wait.stack), "{} is none of {said:#?}", wait.stack);
    }
    // The other way round: what the kernel said often is in the recording.
    let often = said.iter().filter(|(stack, count)| **count >= 10 && stack.contains("synchronize_rcu"));
    for (stack, count) in often {
        assert!(waits.iter().any(|wait| wait.stack == *stack), "{stack}, seen {count} times, was not recorded");
    }
}

/// Where in the kernel the first thread of a process is, by its own word; `None` when the process is over.
fn stack_of(pid: u32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if status.contains("\nState:\tZ") {
        return None;
    }
    // Lines such as `[<0>] synchronize_rcu_normal+0x9d/0xf0`, the innermost first.
    let stack = std::fs::read_to_string(format!("/proc/{pid}/stack")).ok()?;
    let function = |line: &str| line.split_whitespace().nth(1)?.split_once('+').map(|(name, _)| name.to_owned());
    Some(folded(&stack.lines().filter_map(function).collect::<Vec<_>>()))
}

#[test]
fn a_lock_that_others_hold_is_waited_for_where_it_is_taken() {
    let test = "a_lock_that_others_hold_is_waited_for_where_it_is_taken";
    const READS: u32 = 100;
    let read = || {
        let recorded = record(test, subject("race").args(["none", &format!("mounts:{READS}")]))?;
        let instants: Vec<u64> = recorded.printed.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [start_ns, end_ns] = instants[..] else { panic!("{:?}", recorded.printed) };
        Some((end_ns - start_ns, recorded.path(start_ns, end_ns)))
    };
    let Some((alone_ns, parts)) = read() else { return };
    assert_eq!(of(&parts, Category::Lock), 0, "nobody else wants it");
    // Others copy a namespace with many mounts again and again: each copy holds the lock of all namespaces.
    let mut storm = subject("mounts 600 4");
    let mut storm = storm.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    storm.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let (beside_ns, parts) = read().unwrap();
    drop(storm.stdin.take());
    assert!(storm.wait().unwrap().success());
    let told = |category: Category| format!("{} {:.1} ms", category.name(), of(&parts, category) as f64 / 1e6);
    let told: Vec<_> = Category::ALL.iter().map(|(category, _)| told(*category)).collect();
    println!("{READS} reads: {alone_ns} ns alone; {beside_ns} ns beside others: {}", told.join(", "));
    let (lock, ready) = (of(&parts, Category::Lock), of(&parts, Category::Runnable));
    // Whatever is longer than alone is the lock, but for the CPUs that the others use too.
    let longer = beside_ns - alone_ns - ready;
    assert!(lock * 100 >= longer * 70 && lock <= beside_ns - ready, "{lock} of {longer} ns more");
    let waits = || parts.iter().filter(|part| part.category == Category::Lock);
    let named: u64 = waits().filter(|part| part.stack.ends_with("m_start")).map(|part| part.time_ns).sum();
    assert!(named * 10 >= lock * 9, "{:?}", waits().collect::<Vec<_>>());
}

#[test]
fn page_faults_are_not_own_code() {
    if !keeps_pace("page_faults_are_not_own_code") {
        return;
    }
    const PAGES: u64 = 20_000;
    let test = "page_faults_are_not_own_code";
    for beside in ["none", "poll"] {
        let Some((wall_ns, parts)) = race(test, beside, &format!("touch:{PAGES}")) else { return };
        let (faults, user) = (of(&parts, Category::Fault), of(&parts, Category::User));
        // The loop itself is a store per page; entering and leaving the kernel is counted with it.
        assert!(faults > 3 * user, "{beside}: {faults} ns in page faults, {user} ns of own code");
        let had_cpu_ns = wall_ns - of(&parts, Category::Runnable);
        assert!(faults * 100 >= had_cpu_ns * 60, "{beside}: {faults} of {had_cpu_ns} ns");
    }
}

#[test]
fn who_is_joined_is_on_the_path_with_what_it_waits_for() {
    if !keeps_pace("who_is_joined_is_on_the_path_with_what_it_waits_for") {
        return;
    }
    let test = "who_is_joined_is_on_the_path_with_what_it_waits_for";
    for beside in ["none", "poll", "touch"] {
        let Some((_, parts)) = race(test, beside, "join:60") else { return };
        let timer = of(&parts, Category::Timer);
        let computed = [Category::User, Category::Fault, Category::Interrupt, Category::Runnable];
        let computed = computed.map(|category| of(&parts, category)).iter().sum::<u64>();
        assert!(asleep(60).contains(&timer), "{beside}: {timer} ns asleep");
        assert!((4_900_000..15_000_000).contains(&computed), "{beside}: {computed} ns computed");
    }
}

#[test]
fn who_is_asked_outside_is_waited_for() {
    const ANSWER: Duration = Duration::from_millis(60);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, answered) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read_exact(&mut [0]);
            let asked = Instant::now();
            std::thread::sleep(ANSWER);
            let _ = tell.send(asked.elapsed());
            let _ = std::io::Write::write_all(&mut stream, b"!");
        }
    });
    // On one CPU, threads beside it also have it between the question and the wait for the answer.
    let alone = std::thread::available_parallelism().unwrap().get() < 2;
    let all = ["none", "spin,nice", "poll"];
    for beside in if alone { &all[..1] } else { &all } {
        let test = "who_is_asked_outside_is_waited_for";
        let Some((_, parts)) = race(test, beside, &format!("ask:{}", path.display())) else { return };
        let outside = Duration::from_nanos(of(&parts, Category::Outside));
        let answer = answered.recv().unwrap();
        // It may also take a while until they have a CPU for it, or until who asks has one to begin to wait.
        let ready = Duration::from_nanos(of(&parts, Category::Runnable));
        assert!(
            outside >= answer * 4 / 5
                && outside + ready + Duration::from_millis(3) >= answer
                && outside <= answer + Duration::from_millis(12),
            "{beside}: {outside:?} for somebody outside who took {answer:?}, {ready:?} without a CPU"
        );
    }
}

#[test]
fn a_busy_loop_is_own_code_of_its_role() {
    let Some(recorded) = record("a_busy_loop_is_own_code_of_its_role", &mut subject("spin 300")) else { return };
    let (_, parts) = recorded.whole_path();
    let running = sum(&parts, |part| {
        matches!(part.category, Category::User | Category::Runnable | Category::Interrupt) && part.role == "program"
    });
    assert!(running >= 290_000_000, "{running} ns in the loop");
}

#[test]
fn children_are_on_the_path_by_role() {
    let script = "i=0; while [ $i -lt 30 ]; do /bin/true; i=$((i+1)); done";
    let test = "children_are_on_the_path_by_role";
    let Some(recorded) = record(test, Command::new("sh").args(["-c", script])) else { return };
    let (wall_ns, parts) = recorded.whole_path();
    let execs = recorded.recording.records.iter().filter(|record| matches!(record, Record::Exec(_))).count();
    assert_eq!(execs, 31);
    for role in ["program", "child"] {
        let time = sum(&parts, |part| part.role == role);
        assert!(time * 50 > wall_ns, "{role} has only {time} of {wall_ns} ns");
    }
    // The shell waits for each child and nothing else: its waits are the children's time.
    assert_eq!(
        sum(&parts, |part| part.call == "wait4" && !matches!(part.category, Category::Kernel | Category::Runnable)),
        0
    );
}

#[test]
fn nothing_is_unexplained_where_the_kernel_leaves_out_switches_and_what_was_inferred_is_counted() {
    if !keeps_pace("nothing_is_unexplained_where_the_kernel_leaves_out_switches_and_what_was_inferred_is_counted") {
        return;
    }
    const SPIN_NS: u64 = 20_000_000;
    let test = "nothing_is_unexplained_where_the_kernel_leaves_out_switches_and_what_was_inferred_is_counted";
    // Of some thousand starts on such a kernel one in a hundred has a switch that did not come: many are tried by hand.
    let rounds: u32 = std::env::var("SANDSCOPE_TEST_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let Some(mut probes) = probes(test, Options::default()) else { return };
    probes.attach().unwrap();
    let (mut inferred, mut concerned) = (0, 0);
    for round in 0..rounds {
        let recorded = record_with(&mut probes, subject("spin").arg("20"));
        let (wall_ns, parts) = recorded.whole_path();
        let ran = sum(&parts, |part| {
            matches!(part.category, Category::User | Category::Runnable | Category::Interrupt | Category::Fault)
        });
        assert!(ran * 20 >= SPIN_NS * 19, "round {round}: ran {ran} ns of {wall_ns}: {parts:?}");
        let missing: u64 = recorded.histories.tasks.iter().map(|task| task.missing().all()).sum();
        (inferred, concerned) = (inferred + missing, concerned + u32::from(missing > 0));
    }
    println!("{rounds} starts: {inferred} events were inferred in {concerned} of them");
}
