//! The host's part of the manifest, as far as `uname`, `/proc` and `/sys` tell it.

use procfs::{CpuInfo, FromRead, Meminfo};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What the host is. `None` means that it does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Release of the kernel, such as `6.12.9-amd64`.
    pub kernel_release: String,
    /// Version of the kernel: its build.
    pub kernel_version: String,
    /// Architecture as the kernel calls it.
    pub architecture: String,
    /// Model of the first CPU. Where it has no name (arm64), the codes of implementer, part and variant.
    pub cpu_model: Option<String>,
    /// Revision of the first CPU's microcode.
    pub microcode: Option<String>,
    /// CPUs that are online.
    pub cpus_count: Option<u32>,
    /// Memory that the kernel can use.
    pub memory_bytes: Option<u64>,
    /// Whether the host is itself a guest; only x86 tells.
    pub hypervisor: Option<bool>,
    /// State of each vulnerability of the CPU that the kernel knows: its mitigations.
    pub vulnerabilities: Option<BTreeMap<String, String>>,
    /// Frequency governors in use.
    pub governors: Option<BTreeSet<String>>,
    /// Source of the kernel's clocks.
    pub clocksource: Option<String>,
    /// Whether the kernel is told to expedite all grace periods of RCU, which starts of containers wait for.
    pub rcu_expedited: Option<bool>,
}

impl Host {
    /// Gathers what is known about the host whose `/proc` and `/sys` are below `root`.
    pub fn gather(root: &Path) -> Self {
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let name = rustix::system::uname();
        let cpus = Cpus::read(&root.join("proc/cpuinfo"));
        let devices = root.join("sys/devices/system");
        Self {
            name: text(name.nodename()),
            kernel_release: text(name.release()),
            kernel_version: text(name.version()),
            architecture: text(name.machine()),
            cpu_model: cpus.as_ref().and_then(Cpus::model),
            microcode: cpus.as_ref().and_then(|cpus| cpus.field("microcode")),
            cpus_count: cpus.as_ref().and_then(Cpus::count),
            memory_bytes: Meminfo::from_file(root.join("proc/meminfo")).ok().map(|memory| memory.mem_total),
            hypervisor: cpus.as_ref().and_then(Cpus::hypervisor),
            vulnerabilities: vulnerabilities(&devices.join("cpu/vulnerabilities")),
            governors: governors(&devices.join("cpu")),
            clocksource: line(&devices.join("clocksource/clocksource0/current_clocksource")),
            rcu_expedited: line(&root.join("sys/kernel/rcu_expedited")).map(|setting| setting != "0"),
        }
    }
}

/// What `/proc/cpuinfo` tells; it differs between architectures.
struct Cpus(CpuInfo);

impl Cpus {
    fn read(path: &Path) -> Option<Self> {
        let info = CpuInfo::from_file(path).ok()?;
        // An empty file counts as one CPU without any field.
        info.get_field(0, "processor").is_some().then_some(Self(info))
    }

    fn count(&self) -> Option<u32> {
        u32::try_from(self.0.num_cores()).ok()
    }

    fn field(&self, name: &str) -> Option<String> {
        self.0.get_field(0, name).map(str::to_owned)
    }

    fn model(&self) -> Option<String> {
        let codes = || {
            let names = ["CPU implementer", "CPU part", "CPU variant"];
            let codes: Option<Vec<_>> =
                names.iter().map(|name| Some(format!("{name} {}", self.field(name)?))).collect();
            Some(codes?.join(", "))
        };
        self.field("model name").or_else(codes)
    }

    fn hypervisor(&self) -> Option<bool> {
        Some(self.0.flags(0)?.contains(&"hypervisor"))
    }
}

fn vulnerabilities(directory: &Path) -> Option<BTreeMap<String, String>> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let state = |entry: fs::DirEntry| Some((entry.file_name().to_string_lossy().into_owned(), line(&entry.path())?));
    Some(entries.filter_map(state).collect())
}

fn governors(cpus: &Path) -> Option<BTreeSet<String>> {
    let entries = fs::read_dir(cpus).ok()?.flatten();
    let governors: BTreeSet<_> = entries.filter_map(|cpu| line(&cpu.path().join("cpufreq/scaling_governor"))).collect();
    (!governors.is_empty()).then_some(governors)
}

/// Content of a file of one line.
fn line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn what_a_host_does_not_tell_is_not_invented() {
        for root in [tree(&[]), tree(&[("proc/cpuinfo", ""), ("proc/meminfo", "")])] {
            let host = Host::gather(root.path());
            assert_eq!((host.cpu_model, host.microcode, host.cpus_count), (None, None, None));
            assert_eq!((host.memory_bytes, host.hypervisor, host.vulnerabilities), (None, None, None));
            assert_eq!((host.governors, host.clocksource, host.rcu_expedited), (None, None, None));
        }
    }

    #[test]
    fn an_arm64_host() {
        let cpu = |number| {
            format!(
                "processor\t: {number}\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm\nCPU implementer\t: 0x41\n\
                 CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n"
            )
        };
        let root = tree(&[("proc/cpuinfo", &[cpu(0), cpu(1), cpu(2)].concat())]);
        let host = Host::gather(root.path());
        assert_eq!(host.cpu_model.as_deref(), Some("CPU implementer 0x41, CPU part 0xd0c, CPU variant 0x3"));
        assert_eq!((host.cpus_count, host.hypervisor), (Some(3), None));
    }

    #[test]
    fn an_x86_host() {
        let cpu = "sys/devices/system/cpu";
        let root = tree(&[
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Example 9000\nmicrocode\t: 0x2b\nflags\t\t: fpu vme\n\n"),
            (&format!("{cpu}/vulnerabilities/meltdown"), "Mitigation: PTI\n"),
            (&format!("{cpu}/cpu0/cpufreq/scaling_governor"), "performance\n"),
            (&format!("{cpu}/cpu1/cpufreq/scaling_governor"), "powersave\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/kernel/rcu_expedited", "1\n"),
        ]);
        let host = Host::gather(root.path());
        assert_eq!((host.cpu_model.as_deref(), host.cpus_count), (Some("Example 9000"), Some(1)));
        assert_eq!((host.microcode.as_deref(), host.hypervisor), (Some("0x2b"), Some(false)));
        let mitigations = BTreeMap::from([("meltdown".to_owned(), "Mitigation: PTI".to_owned())]);
        assert_eq!(host.vulnerabilities, Some(mitigations));
        assert_eq!(host.governors, Some(["performance", "powersave"].map(str::to_owned).into()));
        assert_eq!(host.clocksource.as_deref(), Some("tsc"));
        assert_eq!(host.rcu_expedited, Some(true));
    }

    #[test]
    fn this_host() {
        let host = Host::gather(Path::new("/"));
        let memory = rustix::system::sysinfo();
        assert_eq!(host.memory_bytes, Some(memory.totalram as u64 * u64::from(memory.mem_unit)));
        // SAFETY: reads a number; there is no safe wrapper for it.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        assert_eq!(host.cpus_count.map(i64::from), Some(online));
        assert_eq!(host.kernel_release, line(Path::new("/proc/sys/kernel/osrelease")).unwrap());
    }
}
