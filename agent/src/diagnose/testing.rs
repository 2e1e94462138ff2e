//! Results for the tests of rules: a healthy run, in which a test makes the one condition that its rule looks for.

use super::{Finding, RunDiagnosis, diagnose_run, rules};
use crate::{
    record::{
        Dataset, Manifest, Outcome, SCHEMA_VERSION,
        tables::{
            Attribution, Block, EventCount, Execution, Exit, GuestAddress, HeldLock, Instance, MemoryHost, Page,
            PageScan, Sample, Saving, Sched, Thread, Wakeup, Window,
        },
    },
    results::Results,
};
use std::collections::BTreeMap;
use ulid::Ulid;

/// Instances of each sandbox with probes, and as many without.
const INSTANCES: u32 = 12;

/// Sandboxes of the healthy run, and how long a start takes.
const SANDBOXES: [(&str, u64); 5] = [
    ("process", 1_400_000),
    ("runc", 25_000_000),
    ("gvisor", 150_000_000),
    ("docker-runc", 40_000_000),
    ("kvm-floor", 2_000_000),
];

/// What time is spent on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// Category.
    pub category: &'static str,
    /// Role.
    pub role: Option<&'static str>,
    /// System call.
    pub syscall: Option<&'static str>,
    /// What it is about.
    pub object: Option<&'static str>,
    /// More.
    pub detail: Option<&'static str>,
    /// Where in the kernel.
    pub stack: Option<&'static str>,
}

impl Part {
    /// A part of this category and role.
    pub const fn of(category: &'static str, role: &'static str) -> Self {
        Self { category, role: Some(role), syscall: None, object: None, detail: None, stack: None }
    }

    /// The same, in this system call.
    #[must_use]
    pub const fn within(self, syscall: &'static str) -> Self {
        Self { syscall: Some(syscall), ..self }
    }

    /// The same, with this detail.
    #[must_use]
    pub const fn by(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The same, where it waits in the kernel.
    #[must_use]
    pub const fn through(self, stack: &'static str) -> Self {
        Self { stack: Some(stack), ..self }
    }

    /// The same, about this.
    #[must_use]
    pub const fn about(self, object: &'static str) -> Self {
        Self { object: Some(object), ..self }
    }
}

/// Where the time of a healthy start goes: shares of the wall time. The rest is own code of the runtime.
const HEALTHY: [(f64, Part); 7] = [
    (0.20, Part::of("kernel", "runtime").within("execve")),
    (0.08, Part::of("runnable", "runtime").by("idle CPU")),
    (0.01, Part::of("block_io", "runtime").within("read").by("device 8:0")),
    (0.10, Part::of("user", "dockerd")),
    (0.05, Part::of("exit", "vcpu").by("io_instruction")),
    (0.06, Part::of("timer", "runtime").within("nanosleep").by("hrtimer_wakeup")),
    (0.00, Part { category: "unattributed", role: None, syscall: None, object: None, detail: None, stack: None }),
];

/// A run of which a test changes what it is about.
pub struct Scene {
    instances: BTreeMap<String, Instance>,
    attribution: Vec<(String, Attribution)>,
    savings: Vec<(String, Saving)>,
    held_locks: Vec<(String, HeldLock)>,
    sched: Vec<(String, Sched)>,
    /// Rows of `windows`.
    pub windows: Vec<(String, Window)>,
    /// Rows of `threads`.
    pub threads: Vec<(String, Thread)>,
    absent: Vec<&'static str>,
    /// Version of the schema that it was written by.
    pub version: u32,
    /// Rows of `events`.
    pub events: Vec<(String, EventCount)>,
    /// Rows of `block`.
    pub block: Vec<(String, Block)>,
    /// Rows of `executions`.
    pub executions: Vec<(String, Execution)>,
    samples: Vec<(String, Sample)>,
    /// Rows of `exits`.
    pub exits: Vec<(String, Exit)>,
    /// Rows of `wakeups`.
    pub wakeups: Vec<(String, Wakeup)>,
    /// Rows of `guest_addresses`.
    pub guest_addresses: Vec<(String, GuestAddress)>,
    /// Rows of `pages`.
    pub pages: Vec<(String, Page)>,
    /// Rows of `page_scans`.
    pub page_scans: Vec<(String, PageScan)>,
    /// Rows of `memory_host`.
    pub memory_host: Vec<(String, MemoryHost)>,
}

impl Scene {
    /// Five sandboxes, each started often, with and without probes, that all do well.
    pub fn healthy() -> Self {
        let mut scene = Self {
            instances: BTreeMap::new(),
            attribution: Vec::new(),
            savings: Vec::new(),
            held_locks: Vec::new(),
            sched: Vec::new(),
            windows: Vec::new(),
            threads: Vec::new(),
            absent: Vec::new(),
            version: SCHEMA_VERSION,
            events: Vec::new(),
            block: Vec::new(),
            executions: Vec::new(),
            samples: Vec::new(),
            exits: Vec::new(),
            wakeups: Vec::new(),
            guest_addresses: Vec::new(),
            pages: Vec::new(),
            page_scans: Vec::new(),
            memory_host: Vec::new(),
        };
        for (sandbox, wall_ns) in SANDBOXES {
            for number in 0..2 * INSTANCES {
                let position = u32::try_from(scene.instances.len()).unwrap();
                // They vary by some per cent, those with probes as those without.
                let wall_ns = wall_ns + wall_ns / 200 * u64::from(number / 2 * 7 % 12);
                scene.add(&format!("{position:04}"), instance(sandbox, position, number % 2 == 0, wall_ns));
            }
        }
        scene
    }

    fn add(&mut self, id: &str, instance: Instance) {
        if instance.probes {
            self.account(id, &instance, &[]);
            self.events.push((id.to_owned(), event("switch", 900, 0)));
            self.sched.push((id.to_owned(), sched("runtime")));
            if instance.sandbox == "kvm-floor" {
                self.windows.push((id.to_owned(), window(&instance.sandbox)));
                self.threads.push((id.to_owned(), vcpu()));
                self.wakeups.push((id.to_owned(), wakeup("task", "", 50, 20_000)));
            }
        }
        self.instances.insert(id.to_owned(), instance);
    }

    /// Writes the account of an instance: so much for these, the rest as when it is healthy.
    fn account(&mut self, id: &str, instance: &Instance, special: &[(f64, Part)]) {
        let wall_ns = instance.wall_ns.unwrap();
        let taken: f64 = special.iter().map(|line| line.0).sum();
        let usual = HEALTHY.iter().map(|&(share, part)| (share * (1.0 - taken), part));
        let mut left_ns = wall_ns;
        for (share, part) in special.iter().copied().chain(usual) {
            let time_ns = (share * wall_ns as f64) as u64;
            left_ns -= time_ns;
            self.attribution.push((id.to_owned(), attribution(part, time_ns)));
            if time_ns > 0 {
                let whole = Part { category: part.category, ..Part::default() };
                self.savings.extend([part, whole].map(|part| (id.to_owned(), saving(part, time_ns))));
            }
        }
        self.attribution.push((id.to_owned(), attribution(Part::of("user", "runtime"), left_ns)));
    }

    /// Lets the starts of a sandbox spend a share of their time on this, most of which they would save without it.
    pub fn spend(&mut self, sandbox: &str, share: f64, part: Part) {
        for id in self.probed(sandbox) {
            self.spend_one(&id, share, part);
        }
    }

    /// The same for one start.
    pub fn spend_one(&mut self, id: &str, share: f64, part: Part) {
        self.attribution.retain(|(other, _)| other != id);
        self.savings.retain(|(other, _)| other != id);
        let instance = self.instances[id].clone();
        self.account(id, &instance, &[(share, part)]);
    }

    /// Lets each start of a sandbox be found so often with this stack in its own code, on the critical path.
    pub fn look(&mut self, sandbox: &str, role: &str, stack: &str, count: u32) {
        let sample = Sample {
            phase: "boot".to_owned(),
            thread: 4,
            role: role.to_owned(),
            on_path: true,
            program: None,
            stack: stack.to_owned(),
            count,
        };
        self.samples.extend(self.probed(sandbox).into_iter().map(|id| (id, sample.clone())));
    }

    /// Lets one start wait for a lock that threads of the sandbox held for a share of its time.
    pub fn wait_for_own(&mut self, id: &str, share: f64, lock: HeldLock) {
        let time_ns = (share * self.instances[id].wall_ns.unwrap() as f64) as u64;
        self.held_locks.push((id.to_owned(), HeldLock { time_ns, ..lock }));
    }

    /// The instances of a sandbox, to be changed.
    pub fn instances_of(&mut self, sandbox: &str) -> impl Iterator<Item = &mut Instance> {
        self.instances.values_mut().filter(move |instance| instance.sandbox == sandbox)
    }

    /// The vCPU of an instance with probes, to be changed.
    pub fn thread_of(&mut self, id: &str) -> &mut Thread {
        self.threads.iter_mut().find(|(of, _)| of == id).map(|(_, thread)| thread).unwrap()
    }

    /// One instance, to be changed.
    pub fn instance(&mut self, id: &str) -> &mut Instance {
        self.instances.get_mut(id).unwrap()
    }

    /// The instances of a sandbox with probes.
    pub fn probed(&self, sandbox: &str) -> Vec<String> {
        let probed = self.instances.iter().filter(|(_, instance)| instance.sandbox == sandbox && instance.probes);
        probed.map(|(id, _)| id.clone()).collect()
    }

    /// One of these.
    pub fn first_probed(&self, sandbox: &str) -> String {
        self.probed(sandbox).remove(0)
    }

    /// The same run, which did not observe a table.
    pub fn without(mut self, table: &'static str) -> Self {
        self.absent.push(table);
        self
    }

    /// Writes it as a run does.
    pub fn write(&self, out: &std::path::Path) {
        let mut manifest = Manifest::new("cold-start", 7);
        manifest.probes.available = true;
        manifest.schema_version = self.version;
        manifest.conditions.insert("ring_buffer_bytes".to_owned(), "16777216".to_owned());
        let mut dataset = Dataset::create(out, Ulid::generate(), &manifest).unwrap();
        fn append<R: crate::record::OfInstance + Clone>(dataset: &mut Dataset, rows: &[(String, R)]) {
            dataset.declare::<R>().unwrap();
            for (id, row) in rows {
                dataset.append(id, [row.clone()]).unwrap();
            }
        }
        append(&mut dataset, &self.attribution);
        append(&mut dataset, &self.savings);
        append(&mut dataset, &self.held_locks);
        append(&mut dataset, &self.sched);
        append(&mut dataset, &self.events);
        append(&mut dataset, &self.block);
        append(&mut dataset, &self.executions);
        append(&mut dataset, &self.samples);
        append(&mut dataset, &self.exits);
        append(&mut dataset, &self.windows);
        append(&mut dataset, &self.threads);
        append(&mut dataset, &self.wakeups);
        append(&mut dataset, &self.guest_addresses);
        append(&mut dataset, &self.pages);
        append(&mut dataset, &self.page_scans);
        append(&mut dataset, &self.memory_host);
        for (id, instance) in &self.instances {
            dataset.append(id, [instance.clone()]).unwrap();
        }
        dataset.flush().unwrap();
        dataset.describe(&manifest, &Outcome { finished_at_unix_ns: Some(1), ..Outcome::default() }).unwrap();
        for table in &self.absent {
            std::fs::remove_dir_all(out.join(table)).unwrap();
        }
    }

    /// Writes it as a run does, reads it back and examines it by all rules.
    pub fn diagnose(&self) -> RunDiagnosis {
        let out = tempfile::tempdir().unwrap();
        self.write(out.path());
        let results = Results::open(out.path()).unwrap();
        diagnose_run(&results.runs()[0], rules::all()).unwrap()
    }

    /// What this rule finds; all others must find nothing.
    pub fn only_finding(&self, rule: &str) -> Finding {
        let [finding] = self.diagnose().findings.try_into().unwrap_or_else(|all| panic!("{all:#?}"));
        assert_eq!(finding.rule, rule, "{finding:#?}");
        finding
    }
}

/// A row of `events`.
pub fn event(kind: &str, seen_count: u64, lost_count: u64) -> EventCount {
    EventCount { kind: kind.to_owned(), seen_count, lost_count, inferred_count: Some(0) }
}

/// A row of `block`.
pub fn block(size_bytes: u64) -> Block {
    Block {
        tid: 1,
        role: "runtime".to_owned(),
        device: "8:0".to_owned(),
        sector: 0,
        size_bytes,
        write: false,
        queued_ns: 0,
        issued_ns: Some(1),
        completed_ns: 1000,
        error_code: 0,
    }
}

/// A row of `executions` by the runtime.
pub fn execution(program: &str, arguments: &str) -> Execution {
    Execution {
        tgid: 10,
        parent_tgid: Some(9),
        parent_role: Some("runtime".to_owned()),
        role: "runtime".to_owned(),
        program: program.to_owned(),
        arguments: arguments.to_owned(),
        start_ns: 0,
        end_ns: Some(1_000_000),
        cpu_ns: 900_000,
        path_ns: 500_000,
    }
}

/// A row of `exits`.
pub fn exit(reason: &str, count: u64) -> Exit {
    Exit {
        vcpu: 0,
        source: "kvm_exit".to_owned(),
        reason: reason.to_owned(),
        detail: None,
        count,
        time_ns: Some(1000 * count),
        kernel_ns: None,
        vmm_ns: None,
        blocked_ns: None,
        polled_ns: None,
        runnable_ns: None,
        bucket_floor_ns: vec![1000],
        bucket_count: vec![count],
    }
}

/// A row of `exits` about starts of the guest's timer.
pub fn timer(reason: &str, count: u64) -> Exit {
    Exit { source: "timer".to_owned(), time_ns: None, ..exit(reason, count) }
}

/// A row of `wakeups` of the vCPU, after each of which it ran for so long.
pub fn wakeup(cause: &str, detail: &str, count: u64, mean_on_cpu_ns: u64) -> Wakeup {
    Wakeup {
        tid: 1,
        role: "vcpu".to_owned(),
        cause: cause.to_owned(),
        detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
        waker: None,
        waker_tid: None,
        waker_inside: None,
        count,
        waited_ns: 1000 * count,
        on_cpu_after_ns: Some(mean_on_cpu_ns * count),
    }
}

/// A row of `guest_addresses`.
pub fn guest_address(kind: &str, symbol: &str, count: u64) -> GuestAddress {
    let (source, reason) = if kind == "timer" { ("timer", "apic_initial_count") } else { ("kvm_exit", kind) };
    GuestAddress {
        vcpu: 0,
        source: source.to_owned(),
        reason: reason.to_owned(),
        address: Some("0x100000".to_owned()),
        symbol: Some(symbol.to_owned()),
        count,
    }
}

/// A row of `pages`, about the memory of a guest.
pub fn page(class: &str, state: &str, reason: Option<&str>, pages_count: u64) -> Page {
    Page {
        instances_count: 1,
        merged: false,
        role: "vmm".to_owned(),
        region: "guest".to_owned(),
        class: class.to_owned(),
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        inferred: false,
        pages_count,
        distinct_pages_count: pages_count,
        size_bytes: pages_count * 4096,
        ksm_pages_count: 0,
        freeable_pages_count: 0,
    }
}

/// A row of `page_scans` about 100,000 pages, all of which were found.
pub fn page_scan(sandbox: &str) -> PageScan {
    PageScan {
        sandbox: sandbox.to_owned(),
        instances_count: 1,
        merged: false,
        scanned_bytes: 100_000 * 4096,
        scan_ns: 1_000_000,
        paused_ns: Some(1_000_000),
        running_threads_count: 0,
        verified_count: 10,
        differed_count: 0,
        sampled_pages_count: 0,
        shifted_pages_count: 0,
        shifted_estimated_bytes: 0,
        table_bytes: 0,
        spared_processes_count: Some(0),
        cut_short: Some(false),
        mapped_pages_count: Some(100_000),
        kernel_pages_count: Some(100_000),
        file_copies_bytes: Some(0),
    }
}

/// A row of `memory_host` in which the host has lost what the processes have.
pub fn memory_host(sandbox: &str, instances_count: u32, bytes: u64) -> MemoryHost {
    MemoryHost {
        sandbox: sandbox.to_owned(),
        instances_count,
        available_bytes: 8 << 30,
        lost_bytes: bytes.cast_signed(),
        lost_mapped_bytes: bytes.cast_signed(),
        lost_page_tables_bytes: 0,
        lost_kernel_stack_bytes: 0,
        lost_slab_bytes: 0,
        lost_per_cpu_bytes: 0,
        lost_other_bytes: 0,
        lost_estimate_bytes: 0,
        pss_bytes: bytes + 5000,
        pss_file_bytes: 5000,
        page_tables_bytes: 0,
        kernel_bytes: None,
    }
}

fn attribution(part: Part, time_ns: u64) -> Attribution {
    let Part { category, role, syscall, object, detail, stack } = part;
    Attribution {
        phase: "runtime".to_owned(),
        category: category.to_owned(),
        role: role.map(str::to_owned),
        thread: role.map(|_| 0),
        syscall: syscall.map(str::to_owned),
        object: object.map(str::to_owned),
        detail: detail.map(str::to_owned),
        stack: stack.map(str::to_owned),
        time_ns,
    }
}

/// Four fifths of the time of a part, the rest being waited for something else.
fn saving(part: Part, time_ns: u64) -> Saving {
    let Part { category, role, syscall, object, detail, .. } = part;
    Saving {
        category: category.to_owned(),
        role: role.map(str::to_owned),
        syscall: syscall.map(str::to_owned),
        object: object.map(str::to_owned),
        detail: detail.filter(|_| category == "exit").map(str::to_owned),
        time_ns,
        saves_ns: time_ns / 5 * 4,
    }
}

fn sched(role: &str) -> Sched {
    Sched {
        tid: 1,
        tgid: 1,
        comm: role.to_owned(),
        role: role.to_owned(),
        on_cpu_ns: 1000,
        user_ns: 600,
        fault_ns: Some(0),
        interrupt_ns: Some(0),
        kernel_ns: 400,
        guest_ns: 0,
        exit_ns: 0,
        kvm_run_ns: 0,
        runnable_ns: 100,
        throttled_ns: Some(0),
        blocked_ns: 100,
        switches_count: 3,
        preemptions_count: 1,
        sleeps_count: 2,
        wakeups_count: 2,
        migrations_count: 0,
    }
}

/// Ten seconds in which little happens.
pub fn window(target: &str) -> Window {
    Window {
        target: target.to_owned(),
        span_ns: 10_000_000_000,
        settled_ns: None,
        cpu_ns: 1_000_000,
        causes_ns: 0,
        helpers_ns: 0,
        ksmd_ns: None,
        cost_ratio: 0.0001,
        wakeups_count: 50,
        named_wakeups_count: 50,
        runnable_ns: 0,
        stolen_ns: None,
        throttled_ns: None,
        unrecorded_count: 0,
        doubts: None,
        maps_bytes: 1,
    }
}

/// A row of `threads`: the vCPU, or any other thread if these parts are changed.
pub fn vcpu() -> Thread {
    Thread {
        tid: 1,
        tgid: 1,
        threads_count: Some(1),
        comm: "vcpu 0".to_owned(),
        role: "vcpu".to_owned(),
        vcpu: Some(0),
        syscall: Some("ioctl".to_owned()),
        found_in: None,
        on_cpu_ns: 1_000_000,
        runnable_ns: 0,
        blocked_ns: 9_000_000_000,
        switches_count: 50,
        preemptions_count: 0,
        sleeps_count: 50,
        wakeups_count: 50,
        migrations_count: 0,
        causes_ns: 0,
        latency_floor_ns: Vec::new(),
        latency_count: Vec::new(),
    }
}

fn instance(sandbox: &str, position: u32, probes: bool, wall_ns: u64) -> Instance {
    Instance {
        experiment: "cold-start".to_owned(),
        variant: String::new(),
        repetition: 0,
        sandbox: sandbox.to_owned(),
        workload: "rust".to_owned(),
        position,
        probes,
        ok: true,
        error: None,
        wall_ns: Some(wall_ns),
        launched_at_monotonic_ns: Some(5),
        launched_at_unix_ns: Some(5),
        cache: "primed".to_owned(),
        cache_pages_count: Some(100),
        cache_resident_pages_count: Some(100),
        network: "private".to_owned(),
        lost_events_count: 0,
        unattributed_ns: probes.then_some(0),
        inferred_events_count: probes.then_some(0),
        skipped_program_runs_count: probes.then_some(0),
        conditions_json: "{}".to_owned(),
    }
}
