//! The lab VM: stock distribution kernels with a real hardware-style KVM in software emulation, where the integration tests and
//! a cold start run that no development host is needed for. `docs/lab.md` says what for and how.

mod disk;
mod machine;
mod machines;
mod programs;
mod report;

use crate::{
    cpio::Archive,
    kernel::{Files, KERNELS, Kernel},
    root::{root, target},
    workloads,
};
use anyhow::{Context, Result, bail, ensure};
use disk::{Disk, Filesystem};
use lab_guest::{Module, PLAN, Plan, RESULTS, RESULTS_DISK, Step};
use machine::Machine;
use machines::Machines;
use programs::Programs;
use report::{Count, Verdict};
use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};
use xshell::{Shell, cmd};

/// What to boot, and what to run there.
#[derive(clap::Args, Default)]
pub struct Arguments {
    /// Kernels to boot, separated by commas: 6.1, 6.12, 6.17, newest. Without it, the first three.
    #[arg(long = "kernel", value_delimiter = ',', value_parser = |name: &str| Kernel::find(name))]
    kernels: Vec<&'static Kernel>,
    /// Look for newer packages of the kernels than those used before.
    #[arg(long)]
    refresh: bool,
    /// Seconds after which a kernel has failed; 3600 without it, two and a half hours with machines.
    #[arg(long)]
    timeout: Option<u64>,
    /// Kernels that run at the same time: each takes one processor. Without it, as many as there are processors.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Kernels in which virtual machines are started too: QEMU is packed, and Firecracker if this machine has it.
    #[arg(long, value_name = "KERNELS", value_delimiter = ',', value_parser = |name: &str| Kernel::find(name))]
    machines: Vec<&'static Kernel>,
    /// Arguments for sandscope, which then runs there instead of the tests; what it prints is shown.
    #[arg(long, value_name = "WORDS", conflicts_with = "tests")]
    run: Option<String>,
    /// Arguments for the test programs, such as a part of a test's name; with any, nothing but tests runs.
    #[arg(last = true)]
    tests: Vec<String>,
}

/// Modules that the lab needs, with their parameters; those that they depend on are found.
///
/// `vgif=0`: with QEMU's virtual GIF a nested Linux guest hangs, waiting for an interrupt. `avic=0`: without AVIC every EOI and
/// every timer is an exit, as `docs/kvm-floor.md` counts them, whatever the kernel's default is.
const MODULES: [(&str, &str); 8] = [
    ("virtio_pci", ""),
    ("virtio_blk", ""),
    ("kvm-amd", "vgif=0 avic=0"),
    ("veth", ""),
    ("bridge", ""),
    ("sch_ingress", ""),
    ("cls_bpf", ""),
    ("tun", ""),
];

/// Megabytes of the lab VM's memory: the files of the initial RAM disk take most of it, then a machine inside and its snapshot.
const MEMORY_MIB: u32 = 1536;
/// Processors of the lab VM. More than one, because migrations and wake-ups across processors belong to what is tested.
const CPUS: u32 = 2;
/// The same where virtual machines are started inside: with two, Linux in them waits for ever in its first second (QEMU 7.2 with
/// one thread for all processors), with one it boots in some seconds.
const CPUS_FOR_MACHINES: u32 = 1;
/// Seconds after which a step is killed: many times what any of them takes, also on a host that has other things to do, and where a
/// measurement that others were in the way of is made again.
const STEP_TIMEOUT_S: u64 = 600;
/// The same for the step that boots Linux in software emulation inside software emulation.
const MACHINES_TIMEOUT_S: u64 = 5400;
/// Seconds after which a kernel has failed, unless somebody says otherwise.
const TIMEOUT_S: u64 = 3600;

impl Arguments {
    /// For `cargo xtask test`: the oldest and the newest kernel of those that run by default.
    pub fn of_tests() -> Self {
        let by_default = || KERNELS.iter().filter(|kernel| kernel.by_default);
        Self { kernels: by_default().next().into_iter().chain(by_default().next_back()).collect(), ..Self::default() }
    }

    /// For `cargo xtask test`: virtual machines, in one more kernel.
    ///
    /// # Errors
    /// When the kernel is not known.
    pub fn of_tests_of_machines() -> Result<Self> {
        let kernel = Kernel::find("6.12").map_err(anyhow::Error::msg)?;
        let tests = vec!["is_explained".to_owned()];
        Ok(Self { kernels: vec![kernel], machines: vec![kernel], tests, ..Self::default() })
    }
}

/// Boots the kernels and runs the tests.
///
/// # Errors
/// When something does not work in one of them, or skips what it should do there.
pub fn execute(arguments: &Arguments) -> Result<()> {
    let shell = Shell::new()?;
    let kernels: Vec<&Kernel> = if arguments.kernels.is_empty() {
        KERNELS.iter().filter(|kernel| kernel.by_default).collect()
    } else {
        arguments.kernels.clone()
    };
    workloads::rust(&shell)?;
    let programs = programs::build(&shell)?;
    let with_machines = |kernel: &Kernel| arguments.machines.iter().any(|chosen| chosen.name == kernel.name);
    let machines = match kernels.iter().any(|kernel| with_machines(kernel)) {
        true => Some(machines::gather(&shell, &target().join("lab/machines"))?),
        false => None,
    };
    let files =
        kernels.iter().map(|kernel| kernel.files(&shell, arguments.refresh, &MODULES)).collect::<Result<Vec<_>>>()?;
    let jobs = match arguments.jobs {
        Some(jobs) => jobs.get(),
        None => available_parallelism().map_or(1, NonZero::get),
    };
    let queue = Mutex::new(kernels.iter().copied().zip(&files));
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(kernels.len()) {
            scope.spawn(|| {
                // A lock that another thread has poisoned is as good as ever: its holder only takes or adds an element.
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((kernel, files)) = next() {
                    let machines = machines.as_ref().filter(|_| with_machines(kernel));
                    let verdict = run(kernel, files, &programs, machines, arguments);
                    let verdict = verdict.unwrap_or_else(|error| failure(kernel, &error, String::new()));
                    eprint!("{}", verdict.text);
                    verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut total = Count::default();
    for Verdict { count, wrong, .. } in &verdicts {
        total.add(count);
        for line in wrong {
            eprintln!("{line}");
        }
    }
    let Count { passed, failed, skipped } = total;
    eprintln!("lab: {passed} passed, {failed} failed, {skipped} skipped");
    ensure!(passed + failed > 0 || arguments.run.is_some(), "no test ran");
    ensure!(verdicts.iter().all(|verdict| verdict.wrong.is_empty()), "the lab found what is wrong: see above");
    Ok(())
}

/// The verdict on a kernel that has no results.
fn failure(kernel: &Kernel, error: &anyhow::Error, text: String) -> Verdict {
    Verdict { text, count: Count::default(), wrong: vec![format!("{}: {error:#}", kernel.name)] }
}

/// Runs everything on one kernel.
fn run(
    kernel: &Kernel,
    files: &Files,
    programs: &Programs,
    machines: Option<&Machines>,
    arguments: &Arguments,
) -> Result<Verdict> {
    // One for each thread: a shell is not to be shared.
    let shell = &Shell::new()?;
    let directory = kernel.directory();
    let results = directory.join("results");
    shell.remove_path(&results)?;
    shell.create_dir(&results)?;
    let (disks, mounts) = filesystems(machines)
        .iter()
        .map(|filesystem| filesystem.create(shell, &directory))
        .collect::<Result<(Vec<_>, Vec<_>)>>()?;
    let results_disk = Disk::empty(RESULTS_DISK, directory.join("results.img"), 256)?;
    let plan = Plan {
        modules: files.modules.iter().map(|(_, module)| module.clone()).collect(),
        mounts,
        environment: environment(),
        steps: steps(programs, machines.is_some(), arguments)?,
    };
    let initrd = directory.join("initrd");
    pack(shell, &initrd, files, programs, machines, &plan)?;
    let machine = Machine {
        kernel: files.image.clone(),
        initrd,
        disks: disks.iter().chain([&results_disk]).collect(),
        memory_mib: MEMORY_MIB,
        cpus: if machines.is_some() { CPUS_FOR_MACHINES } else { CPUS },
        console: directory.join("console.txt"),
    };
    let began = Instant::now();
    let outcome = machine
        .run(Duration::from_secs(arguments.timeout.unwrap_or(if machines.is_some() {
            TIMEOUT_S + MACHINES_TIMEOUT_S
        } else {
            TIMEOUT_S
        })))
        .and_then(|()| report::unpack(&results_disk.file, &results, &plan));
    match outcome {
        Ok(outcome) => {
            let verdict = report::judge(kernel.name, &results, &outcome, machines)?;
            let up = began.elapsed().as_secs_f64();
            let printed = match arguments.run {
                Some(_) => std::fs::read_to_string(results.join(RUN).with_added_extension("txt"))?,
                None => String::new(),
            };
            let text =
                format!("kernel {} ({}), up for {up:.0} s\n{}{printed}", kernel.name, outcome.release, verdict.text);
            Ok(Verdict { text, ..verdict })
        }
        Err(error) => {
            let error = error.context(format!("see {}", machine.console.display()));
            Ok(failure(kernel, &error, format!("kernel {}\n{}\n", kernel.name, machine.last_lines())))
        }
    }
}

/// The file systems of the lab VM besides its memory: where tests expect a disk, and what virtual machines need.
fn filesystems(machines: Option<&Machines>) -> Vec<Filesystem> {
    let unit_tests = root().join("agent");
    let at = |path: PathBuf| path.display().to_string();
    let scratch = [
        Filesystem { serial: "scratch", at: at(programs::tests_directory()), mib: 128, content: None },
        Filesystem { serial: "scratch-unit", at: at(unit_tests), mib: 64, content: None },
    ];
    let packed = machines.map(|machines| Filesystem {
        serial: machines::DISK,
        at: machines::AT.to_owned(),
        mib: machines.mib,
        content: Some(machines.content.clone()),
    });
    scratch.into_iter().chain(packed).collect()
}

fn environment() -> Vec<(String, String)> {
    [
        ("PATH", "/bin".to_owned()),
        ("HOME", "/root".to_owned()),
        ("RUST_BACKTRACE", "1".to_owned()),
        ("SANDSCOPE_SKIP_LOG", format!("{RESULTS}/{}", report::SKIPS)),
        ("SANDSCOPE_IMAGES", machines::IMAGES.to_owned()),
        // What takes how long says nothing here.
        ("SANDSCOPE_TEST_PACE", "emulated".to_owned()),
        ("SANDSCOPE_WORKLOADS", WORKLOADS.to_owned()),
        ("SANDSCOPE_WORKLOAD_RUST", format!("{WORKLOADS}/rust/app")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Name of the step that somebody has asked for.
const RUN: &str = "run";

/// Where the workloads are in the lab VM.
const WORKLOADS: &str = "/lab/workloads";

/// What runs: the tests, then the tool itself.
fn steps(programs: &Programs, machines: bool, asked: &Arguments) -> Result<Vec<Step>> {
    let step = |name: &str, program: &Path, arguments: Vec<String>| Step {
        name: name.to_owned(),
        program: program.display().to_string(),
        arguments,
        timeout_s: STEP_TIMEOUT_S,
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let sandscope = programs.get("sandscope")?;
    if let Some(run) = &asked.run {
        return Ok(vec![Step { timeout_s: MACHINES_TIMEOUT_S, ..step(RUN, sandscope, words(run)) }]);
    }
    // One test at a time: each knows the right answer for a host on which nothing else happens.
    let arguments = |names: Vec<String>| ["--test-threads=1".to_owned()].into_iter().chain(names).collect();
    let names_in = |name: &str| match name == programs::UNIT_TESTS && asked.tests.is_empty() {
        // The others do not depend on the kernel.
        true => ["host::", "measure::", "probe::"].map(str::to_owned).into(),
        false => asked.tests.clone(),
    };
    let tests = programs.tests.iter().filter(|(name, _)| machines || name != programs::MACHINES);
    let mut steps: Vec<_> = tests.map(|(name, program)| step(name, program, arguments(names_in(name)))).collect();
    for step in steps.iter_mut().filter(|step| step.name == programs::MACHINES) {
        step.timeout_s = MACHINES_TIMEOUT_S;
    }
    if asked.tests.is_empty() {
        let out = format!("{RESULTS}/dataset");
        steps.push(step("doctor", sandscope, words("doctor --json")));
        let cold_start = format!("run cold-start --sandbox kvm-floor,process -n 3 --seed 1 --out {out}");
        steps.push(step("cold-start", sandscope, words(&cold_start)));
    }
    Ok(steps)
}

/// Writes the initial RAM disk. The programs get the paths that they have on the host: tests look for each other there.
fn pack(
    shell: &Shell,
    path: &Path,
    files: &Files,
    programs: &Programs,
    machines: Option<&Machines>,
    plan: &Plan,
) -> Result<()> {
    let mut archive = Archive::create(path)?;
    archive.file("/init", &programs::stripped(programs.get("lab-guest")?))?;
    let busybox = busybox()?;
    archive.file("/bin/busybox", &busybox)?;
    for applet in applets(shell, &busybox)? {
        archive.link(&format!("/bin/{applet}"), "busybox")?;
    }
    for (file, Module { file: at, .. }) in &files.modules {
        archive.file(at, file)?;
    }
    let libraries = programs.libraries(shell)?;
    for program in programs.all() {
        archive.file(&program.display().to_string(), &programs::stripped(program))?;
    }
    for library in &libraries {
        archive.file(&library.display().to_string(), library)?;
    }
    archive.file(&format!("{WORKLOADS}/rust/app"), &target().join("workloads/rust/app"))?;
    archive.directory("/root")?;
    let at_root = machines.map(|machines| machines.at_root(shell)).transpose()?.unwrap_or_default();
    for (path, on_disk) in at_root.iter().filter(|(path, _)| !libraries.contains(Path::new(path))) {
        archive.link(path, on_disk)?;
    }
    // Unit tests compare them with what the schema says.
    for file in ["docs/schema.md", "analysis/sandscope_analysis/schema.json"].map(|file| root().join(file)) {
        archive.file(&file.display().to_string(), &file)?;
    }
    archive.content(PLAN, &serde_json::to_vec_pretty(plan)?)?;
    archive.finish()
}

/// The host's static busybox: shell, `sleep` and the like for the lab VM.
fn busybox() -> Result<PathBuf> {
    let candidates = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("there is no busybox (package busybox-static)")
}

fn applets(shell: &Shell, busybox: &Path) -> Result<Vec<String>> {
    let list = cmd!(shell, "{busybox} --list").quiet().read()?;
    let applets: Vec<_> = list.lines().filter(|name| *name != "busybox").map(str::to_owned).collect();
    if applets.is_empty() {
        bail!("{} has no applets", busybox.display());
    }
    Ok(applets)
}
