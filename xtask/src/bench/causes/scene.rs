//! The scenes. To add one, add its element to [`SCENES`]; what runs inside is a file of `xtask/scenes/src/bin`.

use super::condition::Needs;

/// What is measured in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Experiment {
    ColdStart,
    Idle,
}

impl Experiment {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold-start",
            Self::Idle => "idle",
        }
    }
}

/// How it is known what the cause costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Right {
    /// By so much the median start is longer than without the cause.
    LongerBy,
    /// It was planned: so many times per second.
    PerSecond(f64),
    /// It is not, or the cause has no size.
    Unknown,
}

impl Right {
    /// An amount with its unit.
    pub(super) fn written(self, amount: f64) -> String {
        match self {
            Self::PerSecond(_) => format!("{amount:.0} /s"),
            _ => format!("{amount:.1} ms"),
        }
    }
}

/// A cause that is known, and where it is made.
#[derive(Debug)]
pub(super) struct Scene {
    /// Short name.
    pub(super) name: &'static str,
    /// The cause in words.
    pub(super) cause: &'static str,
    pub(super) experiment: Experiment,
    /// The sandbox with the cause, and without it.
    pub(super) sandbox: &'static str,
    pub(super) other_sandbox: Option<&'static str>,
    /// Further words of the command line.
    pub(super) options: &'static [&'static str],
    /// What runs inside with the cause, and without it.
    pub(super) workload: &'static str,
    pub(super) healthy: &'static str,
    /// What the host is like with the cause, and without it.
    pub(super) condition: Needs,
    pub(super) without: Needs,
    /// The rule that must find it.
    pub(super) rule: &'static str,
    /// What the finding must name.
    pub(super) names: &'static [&'static str],
    pub(super) right: Right,
}

impl Scene {
    /// Whether there is nothing at all to be found without the cause.
    pub(super) fn is_plain(&self) -> bool {
        self.sandbox == "process" && self.healthy == "healthy" && self.without == Needs::Nothing
    }

    /// Sandbox and what is measured.
    pub(super) fn where_to_look(&self) -> String {
        format!("`{}`, {}", self.sandbox, self.experiment.name())
    }
}

/// A process on the host, which starts with nothing to be found, and what most scenes share.
const PROCESS: Scene = Scene {
    name: "",
    cause: "",
    experiment: Experiment::ColdStart,
    sandbox: "process",
    other_sandbox: None,
    options: &[],
    workload: "healthy",
    healthy: "healthy",
    condition: Needs::Nothing,
    without: Needs::Nothing,
    rule: "",
    names: &[],
    right: Right::LongerBy,
};

/// One that serves and is asked nothing.
const IDLE: Scene = Scene {
    experiment: Experiment::Idle,
    options: &["--settle", "1", "--window", "3"],
    right: Right::Unknown,
    ..PROCESS
};

/// All scenes.
pub(super) const SCENES: [Scene; 13] = [
    Scene {
        name: "timer",
        cause: "A wait for a timer, beside a thread that computes and one that wakes up every millisecond",
        workload: "sleeps",
        rule: "timer_wait",
        names: &["nanosleep"],
        ..PROCESS
    },
    Scene {
        name: "page faults",
        cause: "First writes to 96 MiB of memory",
        workload: "touches",
        rule: "page_faults",
        names: &["workload"],
        ..PROCESS
    },
    Scene {
        name: "cold file",
        cause: "32 MiB of a file that are read from the disk",
        workload: "reads",
        condition: Needs::ColdFile,
        rule: "block_io",
        names: &["cold-file"],
        ..PROCESS
    },
    Scene {
        name: "somebody outside",
        cause: "Somebody outside who is asked over a socket and takes 60 ms",
        workload: "asks",
        condition: Needs::Somebody,
        rule: "outside_wait",
        names: &["xtask"],
        ..PROCESS
    },
    Scene {
        name: "restart",
        cause: "A program that executes itself and initialises twice",
        workload: "restarts",
        healthy: "initialises",
        rule: "self_exec",
        names: &["restarts"],
        ..PROCESS
    },
    Scene {
        name: "busy CPUs",
        cause: "Others on the host that want every CPU",
        workload: "initialises",
        healthy: "initialises",
        condition: Needs::BusyCpus,
        rule: "run_queue",
        names: &["sh had it"],
        ..PROCESS
    },
    Scene {
        name: "CPU limit",
        cause: "A CPU limit below what the start needs",
        sandbox: "runc",
        options: &["--vcpus", "1"],
        workload: "computes",
        rule: "cpu_limit",
        names: &["workload"],
        right: Right::Unknown,
        ..PROCESS
    },
    Scene {
        name: "cgroup.procs",
        cause: "Moving a process into a cgroup waits for a grace period of RCU",
        sandbox: "runc",
        workload: "rust",
        healthy: "rust",
        without: Needs::ShortGracePeriods,
        rule: "rcu_wait",
        names: &["cgroup.procs", "cgroup_procs_write_start"],
        ..PROCESS
    },
    Scene {
        name: "membarrier",
        cause: "Each process of gVisor registers for membarrier(), which waits for a grace period",
        sandbox: "gvisor",
        workload: "rust",
        healthy: "rust",
        without: Needs::ShortGracePeriods,
        rule: "rcu_wait",
        names: &["membarrier", "sync_runqueues_membarrier_state"],
        ..PROCESS
    },
    Scene {
        name: "runc again",
        cause: "runc executes itself: the Go runtime starts twice",
        sandbox: "runc",
        other_sandbox: Some("process"),
        workload: "rust",
        healthy: "rust",
        rule: "self_exec",
        names: &["runc"],
        right: Right::Unknown,
        ..PROCESS
    },
    Scene {
        name: "mount lock",
        cause: "Others copy a mount namespace of 3000 mounts again and again, and hold its lock",
        sandbox: "runc",
        workload: "rust",
        healthy: "rust",
        condition: Needs::MountStorm,
        rule: "lock_wait",
        names: &["sandscope-test"],
        ..PROCESS
    },
    Scene {
        name: "periodic timer",
        cause: "A thread that wakes up every millisecond for nothing",
        workload: "wakes",
        rule: "periodic_wakeups",
        names: &["nanosleep"],
        right: Right::PerSecond(1000.0),
        ..IDLE
    },
    Scene {
        name: "poll loop",
        cause: "A thread that polls a pipe whose other end is closed",
        workload: "polls",
        rule: "busy_thread",
        names: &["`poll`"],
        ..IDLE
    },
];
