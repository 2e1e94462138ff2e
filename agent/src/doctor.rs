//! Examines a host: every feature of sandscope, what it needs, whether the host has it, how that is known, and what to do.
//!
//! Where it is cheap, a feature is tried rather than deduced: the probes are loaded, and a guest with a known number of exits
//! is run to see which of them the host's KVM traces.

use crate::{
    host::{btf::KernelTypes, pid_namespace, support::Support, tracefs::with_tracefs},
    measure::memory::{ksm, pages::pagemap},
    probe::{self, Aggregate, Limits, Options, Probes, Stacks},
    sandbox::{self, kvm_floor::KvmFloor},
    workload::{self, Workload},
};
use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use kvm_ioctls::Kvm;
use sandscope_ebpf::{event::Kind, map::Membership};
use serde::Serialize;
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

/// One thing that sandscope can do on some hosts.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub purpose: &'static str,
    /// Whether this host has it.
    #[serde(flatten)]
    pub support: Support,
}

/// All features of a host.
#[derive(Debug, Serialize)]
pub struct Examination {
    /// Whether the main job can be done: some sandbox starts, and the probes explain it.
    pub main_job: bool,
    /// Each feature.
    pub features: Vec<Feature>,
}

/// Examines this host. Takes a second or two.
pub fn examine() -> Examination {
    let mut features = Vec::new();
    let mut feature = |name: &str, purpose, support| features.push(Feature { name: name.to_owned(), purpose, support });
    feature("privilege", "loading probes, making network namespaces", privilege());
    feature("kernel", "ring buffer, raw tracepoints, BPF links", kernel());
    feature("pid-namespace", "matching the kernel's thread numbers with ours", pid_namespace());
    feature("btf", "finding the fields that the probes read", btf());
    feature("tracefs", "finding the tracepoints and their fields", tracefs());
    let probes = Probes::load(Options { stacks: Stacks::All, ..Options::default() });
    let timeline = probes.as_ref().map(Probes::by_probe);
    for (name, support) in each_probe("probe", timeline) {
        feature(&name, "the timeline, which explains where the time goes", support);
    }
    let aggregate = Aggregate::load(Limits::default());
    for (name, support) in each_probe("counting probe", aggregate.as_ref().map(Aggregate::by_probe)) {
        feature(&name, "`run idle` and `attach`, which count", support);
    }
    drop(aggregate);
    let kvm = kvm();
    let kvm_usable = kvm.is_usable();
    feature("kvm", "microVMs and the sandbox kvm-floor", kvm);
    let loaded = probes.is_ok();
    if let (Ok(probes), true) = (probes, kvm_usable) {
        let purpose = "telling guest time from exit handling";
        feature("kvm-exits", purpose, kvm_exits(probes).unwrap_or_else(|error| not_tried(&error)));
    }
    feature("page frames", "telling equal pages from shared ones", page_frames());
    feature("hugetlbfs", "guests whose memory is in reserved huge pages", huge_pages());
    feature("ksm", "having the kernel merge equal pages, and what that costs", merging());
    for name in workload::NAMES {
        feature(&format!("workload {name}"), "what runs inside the sandboxes", workload(name));
    }
    let sandboxes = sandbox::all();
    let mut runnable = false;
    for sandbox in &sandboxes {
        let support = sandbox.support();
        runnable |= support.is_usable();
        feature(&format!("sandbox {}", sandbox.name()), sandbox.about(), support);
    }
    Examination { main_job: loaded && runnable, features }
}

fn ok(evidence: impl Into<String>) -> Support {
    Support::Ok { evidence: evidence.into() }
}

fn unsupported(evidence: impl Into<String>, remedy: impl Into<String>) -> Support {
    Support::Unsupported { evidence: evidence.into(), remedy: remedy.into() }
}

fn not_tried(error: &anyhow::Error) -> Support {
    Support::Degraded {
        evidence: format!("could not be tried: {error:#}"),
        remedy: "see the other features first".to_owned(),
    }
}

fn privilege() -> Support {
    const NEEDED: [Capability; 4] =
        [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];
    match caps::read(None, CapSet::Effective) {
        Ok(had) => {
            let missing: Vec<_> = NEEDED.iter().filter(|cap| !had.contains(cap)).map(ToString::to_string).collect();
            if missing.is_empty() {
                ok(NEEDED.map(|cap| cap.to_string()).join(", "))
            } else {
                unsupported(format!("without {}", missing.join(", ")), "run as root, for example with sudo")
            }
        }
        Err(error) => unsupported(format!("capabilities can't be read: {error}"), "is /proc mounted?"),
    }
}

fn kernel() -> Support {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) {
        ok(format!("Linux {release}"))
    } else {
        unsupported(format!("Linux {release}"), "use Linux 5.15 or newer")
    }
}

fn huge_pages() -> Support {
    const FOLDER: &str = "/sys/kernel/mm/hugepages";
    let sizes = fs::read_dir(FOLDER).into_iter().flatten().flatten().filter_map(|entry| {
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse::<u64>().ok()?;
        Some((entry.file_name().to_string_lossy().trim_start_matches("hugepages-").to_owned(), count))
    });
    let (reserved, none): (Vec<_>, Vec<_>) = sizes.partition(|(_, count)| *count > 0);
    let list = |sizes: &[(String, u64)]| {
        let sizes = sizes.iter().map(|(size, count)| format!("{count} of {size}"));
        sizes.collect::<Vec<_>>().join(", ")
    };
    match (reserved.is_empty(), none.first()) {
        (false, _) => ok(format!("reserved: {}", list(&reserved))),
        (true, Some((size, _))) => Support::Degraded {
            evidence: format!("the kernel can, but none are reserved: {}", list(&none)),
            remedy: format!("reserve some: echo 64 > {FOLDER}/hugepages-{size}/nr_hugepages"),
        },
        (true, None) => unsupported(format!("no {FOLDER}"), "use a kernel with CONFIG_HUGETLBFS"),
    }
}

fn pid_namespace() -> Support {
    match pid_namespace::check() {
        Ok(()) => ok("the initial pid namespace"),
        Err(reason) => unsupported(reason, pid_namespace::REMEDY),
    }
}

fn btf() -> Support {
    match KernelTypes::of_running_kernel().and_then(|types| types.offset("task_struct", "pid")) {
        Ok(_) => ok("/sys/kernel/btf/vmlinux"),
        Err(error) => unsupported(error.to_string(), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"),
    }
}

fn tracefs() -> Support {
    match with_tracefs(|tracefs| tracefs.format("sched", "sched_switch")) {
        Ok(Ok(_)) => ok("tracepoints are readable"),
        Ok(Err(error)) => unsupported(error.to_string(), "use a kernel built with CONFIG_FTRACE=y"),
        Err(error) => unsupported(error.to_string(), "run as root"),
    }
}

/// A feature for each probe of an object, or one for all of them where it can't be loaded.
fn each_probe(
    what: &str,
    missing_by_probe: Result<Vec<(&'static str, Vec<String>)>, &probe::Error>,
) -> Vec<(String, Support)> {
    match missing_by_probe {
        Ok(probes) => probes.iter().map(|(name, missing)| (format!("{what} {name}"), of_probe(missing))).collect(),
        Err(error) => {
            let remedy = "run as root on a kernel from 5.15 on with BTF and tracefs; see the features above".to_owned();
            vec![(format!("{what}s"), Support::Unsupported { evidence: error.to_string(), remedy })]
        }
    }
}

fn of_probe(missing: &[String]) -> Support {
    if missing.is_empty() {
        ok("loads and attaches")
    } else {
        Support::Degraded {
            evidence: missing.join("; "),
            remedy: "what the kernel does not have stays out of the results".to_owned(),
        }
    }
}

fn kvm() -> Support {
    match Kvm::new() {
        Ok(kvm) => ok(format!("/dev/kvm, API version {}", kvm.get_api_version())),
        Err(error) => unsupported(
            format!("/dev/kvm: {error}"),
            "turn virtualisation on in the firmware, load kvm_intel or kvm_amd, and join the group that owns /dev/kvm",
        ),
    }
}

/// Runs a guest that writes to a port a known number of times, and sees what the host's KVM tells of it.
fn kvm_exits(mut probes: Probes) -> Result<Support> {
    const WRITES: u64 = 100;
    const SCOPE: u16 = 1;
    probes.attach()?;
    let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    probes.mark(tid, Membership::bystander(SCOPE));
    let program = KvmFloor::default().executable()?;
    let child = Command::new(&program)
        .args(["--pio", &WRITES.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't start {}", program.display()));
    probes.mark(tid, Membership::NONE);
    let mut child = child?;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill()?;
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Ok(unsupported(
            format!("the guest of kvm-floor did not end well: {status}"),
            "see `sandscope-kvm-floor`",
        ));
    }
    let recording = probes.take()?;
    let of_kind = |kind: Kind| recording.records.iter().filter(move |record| record.header().kind == kind as u8);
    let of = |kind: Kind| of_kind(kind).count() as u64 + recording.lost.of(SCOPE, kind);
    let evidence = format!(
        "a guest with {WRITES} port writes: {} kvm_exit, {} kvm_entry, {} kvm_pio",
        of(Kind::KvmExit),
        of(Kind::KvmEntry),
        of(Kind::KvmPio)
    );
    Ok(if of(Kind::KvmExit) >= WRITES && of(Kind::KvmEntry) >= WRITES {
        ok(evidence)
    } else {
        Support::Degraded {
            evidence,
            remedy: "this KVM does not trace entries and exits, so guest time and exit handling are one category \
                     (kvm_run); use a host with hardware virtualisation, or the lab VM (docs/lab.md)"
                .to_owned(),
        }
    })
}

fn page_frames() -> Support {
    match pagemap::zero_frame() {
        Some(frame) => ok(format!("/proc/self/pagemap tells frames: the page of zeros is in {frame:#x}")),
        None => unsupported("the kernel hides the frames of pages", "run as root (CAP_SYS_ADMIN)"),
    }
}

fn merging() -> Support {
    match ksm::Counters::read().and_then(|counters| Ok((counters, ksm::MergeAny::begin()?))) {
        Ok((counters, _only_tried)) => ok(format!(
            "{} is there, and programs can be merged unasked; {} frames are",
            ksm::FOLDER,
            counters.pages_shared
        )),
        Err(error) => unsupported(format!("{error:#}"), "use a kernel with CONFIG_KSM, 6.4 or newer, as root"),
    }
}

fn workload(name: &str) -> Support {
    match Workload::find(name) {
        Ok(workload) => ok(workload.content.path().display().to_string()),
        Err(error) => unsupported(format!("{error:#}"), "build it: `cargo xtask workloads`"),
    }
}
