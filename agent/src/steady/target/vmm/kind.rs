//! The kinds of VMM that are known: how their programs are told from others, and by which names their users know what they run.

use super::{
    super::process::Process,
    command_line::{has, property, value},
};

/// A kind of VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// QEMU, with KVM or without.
    Qemu,
    /// Firecracker, by itself or started by its jailer.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// Whatever has mapped libkrun: krunvm, muvm, crun's handler for containers.
    Libkrun,
}

/// How sure it is that a process is of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sure {
    /// Its program is.
    Program,
    /// It is told what such a program is told, whatever it is called.
    CommandLine,
}

/// Why a VM has a name. What comes first counts more: who looks for `a` means the VM that was called so, not the one with the socket `a.sock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It was given to it, or is the number of a process of it.
    Given,
    /// It is of its socket.
    Socket,
    /// It is of the folder of its socket, which is where Kata has the id.
    Folder,
    /// It is that of the program.
    Program,
}

/// The name of a Firecracker that was given none; its own words.
const ANONYMOUS: &str = "anonymous-instance";
/// Where Firecracker listens unless it is told otherwise.
const FIRECRACKER_SOCKET: &str = "/run/firecracker.socket";
/// What the name of libkrun's file begins with.
const LIBKRUN: &str = "libkrun";

/// Options of Firecracker that are followed by a value, and those that are not.
const FIRECRACKER_VALUES: [&str; 18] = [
    "--api-sock",
    "--id",
    "--config-file",
    "--metadata",
    "--seccomp-filter",
    "--seccomp-level",
    "--start-time-us",
    "--start-time-cpu-us",
    "--parent-cpu-time-us",
    "--log-path",
    "--level",
    "--module",
    "--metrics-path",
    "--http-api-max-payload-size",
    "--mmds-size-limit",
    "--describe-snapshot",
    "--snapshot-version",
    "--boot-timer-path",
];
const FIRECRACKER_FLAGS: [&str; 7] =
    ["--no-api", "--no-seccomp", "--boot-timer", "--enable-pci", "--show-level", "--show-log-origin", "--version"];

/// Options that QEMU has and hardly any other program; two of them make a QEMU.
const QEMU_OPTIONS: [&str; 21] = [
    "-M",
    "-machine",
    "-accel",
    "-enable-kvm",
    "-cpu",
    "-smp",
    "-m",
    "-nodefaults",
    "-no-user-config",
    "-nographic",
    "-display",
    "-monitor",
    "-serial",
    "-qmp",
    "-chardev",
    "-drive",
    "-blockdev",
    "-device",
    "-netdev",
    "-kernel",
    "-S",
];

/// Options that Cloud Hypervisor has; two of them beside its socket.
const CLOUD_HYPERVISOR_OPTIONS: [&str; 8] =
    ["--kernel", "--firmware", "--cpus", "--memory", "--disk", "--cmdline", "--api-socket", "--event-monitor"];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Qemu, Self::Firecracker, Self::CloudHypervisor, Self::Crosvm, Self::Libkrun];

    /// What stands before the colon of a target.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Crosvm => "crosvm",
            Self::Libkrun => "libkrun",
        }
    }

    /// What its program is called, for people.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system",
            other => other.prefix(),
        }
    }

    /// Whether a program of this name is of this kind.
    fn is_named(self, name: &str) -> bool {
        match self {
            // RHEL and its relatives have `qemu-kvm`, Proxmox `kvm`.
            Self::Qemu => name.starts_with("qemu-system-") || ["qemu-kvm", "qemu-system", "kvm"].contains(&name),
            Self::Libkrun => ["krun", "krunvm", "krunkit", "muvm"].contains(&name),
            _ => is_release_of(name, self.prefix()),
        }
    }

    /// Whether a process is of this kind by what it executes, or is called.
    pub fn is_program(self, process: &Process) -> bool {
        let names = process.program().into_iter().chain(process.called());
        // Those that ask a crosvm to do something, and its helpers, are called as it is.
        let runs = self != Self::Crosvm || process.arguments.get(1).is_some_and(|word| word == "run");
        runs && names.into_iter().any(|name| self.is_named(name))
    }

    /// Whether a process is of this kind, and how sure that is. `has_vm` says whether it has a virtual machine of KVM open.
    pub fn of(self, process: &Process, has_vm: bool) -> Option<Sure> {
        if self.is_program(process) || self == Self::Libkrun && process.has_mapped(LIBKRUN) {
            return Some(Sure::Program);
        }
        let told = self.is_told(&process.arguments, has_vm);
        told.then_some(if has_vm { Sure::Program } else { Sure::CommandLine })
    }

    /// Whether this is what a program of this kind is told, and not one that starts it.
    fn is_told(self, arguments: &[String], has_vm: bool) -> bool {
        let options = arguments.get(1..).unwrap_or_default();
        if options.first().is_none_or(|first| !first.starts_with('-')) && self != Self::Crosvm {
            return false;
        }
        let known = |all: &[&str]| all.iter().filter(|option| has(arguments, &[option])).count();
        match self {
            Self::Qemu => known(&QEMU_OPTIONS) >= 2,
            Self::Firecracker => is_told_as_firecracker(options),
            Self::CloudHypervisor => has(arguments, &["--api-socket"]) && known(&CLOUD_HYPERVISOR_OPTIONS) >= 2,
            // So is many a program.
            Self::Crosvm => has_vm && options.first().is_some_and(|word| word == "run"),
            Self::Libkrun => false,
        }
    }

    /// The names that a process of this kind has by what it was told.
    pub fn names(self, process: &Process) -> Vec<(Why, String)> {
        let arguments = &process.arguments;
        let given = |names: &[&str]| value(arguments, names).map(str::to_owned);
        let mut names = Vec::new();
        match self {
            Self::Qemu => {
                let name = given(&["-name", "--name"]).and_then(|text| property(&text, "guest", "guest"));
                names.extend([name, given(&["-uuid", "--uuid"])]);
            }
            Self::Firecracker => names.push(Some(given(&["--id"]).unwrap_or_else(|| ANONYMOUS.to_owned()))),
            Self::CloudHypervisor => {}
            Self::Crosvm => names.push(given(&["--name"])),
            Self::Libkrun => {
                // `krunvm start NAME`
                let start = arguments.iter().skip_while(|word| *word != "start").nth(1);
                names.push(start.filter(|_| process.program() == Some("krunvm")).cloned());
                names.push(process.called().map(str::to_owned));
                names.extend(ids_of_groups(process).into_iter().map(Some));
            }
        }
        names.into_iter().flatten().map(|name| (Why::Given, name)).collect()
    }

    /// The socket at which a process of this kind takes requests, by what it was told.
    pub fn socket(self, process: &Process) -> Option<String> {
        let arguments = &process.arguments;
        match self {
            // Has many; see where it listens.
            Self::Qemu | Self::Libkrun => None,
            Self::Firecracker => match value(arguments, &["--api-sock"]) {
                Some(path) => Some(path.to_owned()),
                None => (!has(arguments, &["--no-api"])).then(|| FIRECRACKER_SOCKET.to_owned()),
            },
            Self::CloudHypervisor => property(value(arguments, &["--api-socket"])?, "path", "path"),
            Self::Crosvm => value(arguments, &["--socket", "-s"]).map(str::to_owned),
        }
    }
}

/// Whether a name is that of a program, or of one of its releases: `firecracker-v1.12.0-x86_64` and `firecracker_1.7`, not
/// `firecracker-containerd`.
fn is_release_of(name: &str, program: &str) -> bool {
    let Some(rest) = name.strip_prefix(program) else { return false };
    let Some(release) = rest.strip_prefix(['-', '_', '.']) else { return rest.is_empty() };
    let number = release.strip_prefix('v').unwrap_or(release);
    let is_number = number.starts_with(|letter: char| letter.is_ascii_digit());
    is_number || ["x86_64", "aarch64", "static", "debug", "release", "bin"].iter().any(|word| release.starts_with(word))
}

/// Firecracker takes few options, so that a line of these alone is told from others.
fn is_told_as_firecracker(options: &[String]) -> bool {
    let mut words = options.iter().take_while(|word| *word != "--");
    let mut is_some = false;
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        if FIRECRACKER_VALUES.contains(&name) {
            if value.or_else(|| words.next().map(String::as_str)).is_none() {
                return false;
            }
        } else if !FIRECRACKER_FLAGS.contains(&name) {
            return false;
        }
        is_some |= ["--id", "--api-sock", "--config-file", "--no-api"].contains(&name);
    }
    is_some
}

/// Ids of containers in the names of the control groups of a process: who runs a container in a VM knows it by that.
fn ids_of_groups(process: &Process) -> Vec<String> {
    let groups = process.groups();
    let parts = groups.iter().flat_map(|(_, path)| path.split(|letter: char| !letter.is_ascii_alphanumeric()));
    let mut ids: Vec<String> = parts.filter(|part| super::super::container::is_id(part)).map(str::to_owned).collect();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Process {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let executable = arguments.first().map(Into::into);
        Process { pid: 7, arguments, executable, ..Process::default() }
    }

    fn sure(kind: Kind, line: &str) -> Option<Sure> {
        kind.of(&told(line), false)
    }

    #[test]
    fn programs_are_told_by_what_they_execute_or_are_called() {
        for (kind, line) in [
            (Kind::Qemu, "qemu-system-x86_64 -name a"),
            (Kind::Qemu, "/usr/libexec/qemu-kvm -name a"),
            (Kind::Qemu, "/usr/bin/kvm -id 100"),
            (Kind::Qemu, "/usr/bin/qemu-system-aarch64 -M virt"),
            (Kind::Firecracker, "/firecracker-v1.12.0-x86_64 --id=vm-2"),
            (Kind::Firecracker, "./firecracker_1.7.0 --no-api"),
            (Kind::Firecracker, "firecracker-x86_64"),
            (Kind::CloudHypervisor, "/usr/bin/cloud-hypervisor-static --kernel k"),
            (Kind::CloudHypervisor, "cloud-hypervisor-v41.0 --kernel k"),
            (Kind::Crosvm, "crosvm run --mem 512 bzImage"),
            (Kind::Libkrun, "krunvm start web"),
        ] {
            assert_eq!(sure(kind, line), Some(Sure::Program), "{line}");
            let others = Kind::ALL.into_iter().filter(|other| *other != kind);
            assert!(others.into_iter().all(|other| sure(other, line) != Some(Sure::Program)), "{line}");
        }
        let mut renamed = told("vmm-7 -name a");
        assert_eq!(Kind::Qemu.of(&renamed, false), None);
        renamed.executable = Some("/usr/bin/qemu-system-x86_64 (deleted)".into());
        assert_eq!(Kind::Qemu.of(&renamed, false), Some(Sure::Program));
    }

    #[test]
    fn what_only_sounds_like_a_vmm_is_none() {
        for line in [
            "firecracker-containerd --config c.toml",
            "firecracker-ctr images ls",
            "jailer --id vm1 --exec-file /usr/bin/firecracker --uid 1 --gid 1",
            "sudo firecracker --id vm1",
            "timeout 60 firecracker --id vm1",
            "crosvm stop /run/crosvm.sock",
            "crosvm device block --fd 3",
            "vim qemu.c",
            "qemu-img create -f raw d 1G",
            "virt-install --name dev --memory 64",
            "docker run --name dev -m 64",
            "kvmtool --name dev",
        ] {
            for kind in Kind::ALL {
                assert_eq!(sure(kind, line), None, "{line} is no {}", kind.prefix());
            }
        }
    }

    #[test]
    fn renamed_programs_are_told_by_what_they_are_told() {
        for (kind, line) in [
            (Kind::Firecracker, "fc-v1.10 --id vm-5"),
            (Kind::Firecracker, "vmm --api-sock=/run/a.sock --no-seccomp"),
            (Kind::Firecracker, "/opt/fc --config-file c.json --no-api -- --id x"),
            (Kind::Qemu, "vmm -name a -M q35 -accel tcg"),
            (Kind::Qemu, "/opt/emulator -nodefaults -m 64 disk.img"),
            (Kind::CloudHypervisor, "clh --api-socket /run/clh.sock --kernel k"),
        ] {
            assert_eq!(sure(kind, line), Some(Sure::CommandLine), "{line}");
        }
        assert_eq!(sure(Kind::Crosvm, "vmm run --mem 64 bzImage"), None);
        assert_eq!(Kind::Crosvm.of(&told("vmm run --mem 64 bzImage"), true), Some(Sure::Program));
        assert_eq!(Kind::Firecracker.of(&told("fc --id vm-5"), true), Some(Sure::Program), "with a VM of KVM");
        assert_eq!(sure(Kind::Firecracker, "shim --id vm-5 --namespace x"), None);
        assert_eq!(sure(Kind::Firecracker, "x --id"), None);
    }

    #[test]
    fn names_and_sockets_are_those_of_the_command_line() {
        let given = |kind: Kind, line: &str| -> Vec<String> {
            kind.names(&told(line)).into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(given(Kind::Qemu, "qemu-system-x86_64 -name debug-threads=on,guest=h,,4 -uuid 0-1"), ["h,4", "0-1"]);
        assert_eq!(given(Kind::Qemu, "qemu-system-x86_64 --name x -m 1"), ["x"]);
        assert_eq!(given(Kind::Qemu, "qemu-system-x86_64 -name=x"), ["x"]);
        assert_eq!(given(Kind::Firecracker, "firecracker --no-api --config-file c"), [ANONYMOUS]);
        assert_eq!(given(Kind::Libkrun, "krunvm start web /bin/sh")[0], "web");
        let socket = |kind: Kind, line: &str| kind.socket(&told(line));
        assert_eq!(socket(Kind::Firecracker, "fc --api-sock /a.sock").as_deref(), Some("/a.sock"));
        assert_eq!(socket(Kind::Firecracker, "fc --id x").as_deref(), Some(FIRECRACKER_SOCKET));
        assert_eq!(socket(Kind::Firecracker, "fc --no-api"), None);
        assert_eq!(socket(Kind::CloudHypervisor, "c --api-socket path=/c.sock").as_deref(), Some("/c.sock"));
        assert_eq!(socket(Kind::CloudHypervisor, "c --api-socket /c.sock").as_deref(), Some("/c.sock"));
        assert_eq!(socket(Kind::CloudHypervisor, "c --api-socket fd=3"), None);
        assert_eq!(socket(Kind::Crosvm, "crosvm run -s /x.sock k").as_deref(), Some("/x.sock"));
    }
}
