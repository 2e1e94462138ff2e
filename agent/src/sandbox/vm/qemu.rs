//! QEMU: its machines `microvm`, `q35` and `pc`, by KVM or by its own software emulation (TCG). Which of the two is always said,
//! never left to what the host happens to have.

use super::{
    super::{RoleRule, Support, ThreadRule, runtime::Runtime},
    Access, Control, Drive, Machine, Nic, Shown, Start, Vmm,
    guest::Guest,
    kvm_runs,
    qmp::Qmp,
};
use crate::host::virtualization;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::{
        fd::AsRawFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

/// Name of the network device.
const NIC: &str = "nic0";

/// Name of the program. The boards are PCs.
const EXECUTABLE: &str = "qemu-system-x86_64";

const ROLES: &[RoleRule] = &[RoleRule { role: "vmm", contains: EXECUTABLE, forked: None }];

/// By the names that `debug-threads=on` gives.
const THREAD_ROLES: &[ThreadRule] = &[
    ThreadRule { role: "vcpu", begins: "CPU " },
    ThreadRule { role: "vmm-io", begins: "IO " },
    ThreadRule { role: "vmm-worker", begins: "worker" },
    ThreadRule { role: "kvm", begins: "kvm-" },
];

/// How QEMU is to make a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Qemu {
    /// The program; without it the one in the search path.
    pub executable: Option<PathBuf>,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// Model of the machine; without it the best for the guest.
    pub machine: Option<Model>,
    /// Model of the CPU, as `-cpu` takes it.
    pub cpu: Option<String>,
    /// Further arguments, as they are.
    pub arguments: Vec<String>,
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's KVM.
    #[default]
    Kvm,
    /// QEMU's software emulation.
    Tcg,
}

impl Accelerator {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A model of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// No PCI and next to no firmware.
    Microvm,
    /// A PC with PCI Express.
    Q35,
    /// A PC of 1996.
    Pc,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }
}

/// How a guest finds its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Virtio devices in memory.
    Mmio,
    /// Virtio devices on PCI.
    Pci,
}

impl Bus {
    fn suffix(self) -> &'static str {
        match self {
            Self::Mmio => "device",
            Self::Pci => "pci",
        }
    }

    /// Where QEMU has the virtio part of a device, among its objects.
    fn virtio(self, device: &str) -> String {
        match self {
            Self::Mmio => format!("/machine/peripheral/{device}"),
            Self::Pci => format!("/machine/peripheral/{device}/virtio-backend"),
        }
    }
}

/// A machine that a guest boots on.
#[derive(Debug)]
pub struct Board {
    /// Its model.
    pub model: Model,
    /// Options of the machine, separated by commas.
    pub options: &'static str,
    /// Further arguments.
    pub arguments: &'static [&'static str],
    /// Where its devices are.
    pub bus: Bus,
    /// What it boots from.
    pub boot: Boot,
}

/// What a machine boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The kernel that it is given.
    Kernel,
    /// The boot sector of its drive, also when the guest has a kernel for other machines beside it.
    Drive,
}

impl Qemu {
    /// With this accelerator, the rest by default.
    pub fn by(accelerator: Accelerator) -> Self {
        Self { accelerator, ..Self::default() }
    }

    fn runtime(&self) -> Result<Runtime> {
        match &self.executable {
            Some(path) => Ok(Runtime { path: path.clone() }),
            None => Runtime::find(EXECUTABLE),
        }
    }

    fn board(&self, guest: &'static Guest) -> Result<&'static Board> {
        let Some(model) = self.machine else {
            return guest
                .qemu
                .first()
                .with_context(|| format!("the guest `{}` boots on no machine of QEMU", guest.name));
        };
        guest.qemu.iter().find(|board| board.model == model).with_context(|| {
            let models: Vec<_> = guest.qemu.iter().map(|board| board.model.name()).collect();
            format!("the guest `{}` does not boot on `{}`; choose {}", guest.name, model.name(), models.join(" or "))
        })
    }

    fn cpu(&self) -> String {
        match (&self.cpu, self.accelerator) {
            (Some(cpu), _) => cpu.clone(),
            // Without one instruction: the flags after CMPXCHG16B are sometimes wrong in QEMU 7.2, and kernels use it for each
            // allocation.
            (None, Accelerator::Tcg) => "max,cx16=off".into(),
            (None, Accelerator::Kvm) if virtualization::hardware().is_ok() => "host".into(),
            // A KVM without hardware refuses to set the register that this feature brings.
            (None, Accelerator::Kvm) => "host,arch-capabilities=off".into(),
        }
    }
}

impl Vmm for Qemu {
    fn label(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "qemu",
            Accelerator::Tcg => "qemu-tcg",
        }
    }

    fn support(&self, guest: &Guest) -> Support {
        let unsupported = |evidence: String, remedy: &str| Support::Unsupported { evidence, remedy: remedy.into() };
        if !cfg!(target_arch = "x86_64") {
            return unsupported("the machines that are known here are PCs".into(), "use an x86-64 host");
        }
        let version = match self.runtime().and_then(|runtime| runtime.version()) {
            Ok(version) => version,
            Err(error) => {
                return unsupported(format!("{error:#}"), "install QEMU: `apt-get install qemu-system-x86`");
            }
        };
        if self.accelerator == Accelerator::Tcg {
            return Support::Ok { evidence: version };
        }
        match kvm_runs(guest) {
            Ok(evidence) => Support::Ok { evidence: format!("{version}, {evidence}") },
            Err((missing, remedy)) => unsupported(missing, remedy),
        }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let mut provenance = self.runtime()?.provenance("vmm")?;
        provenance.insert("accelerator".into(), self.accelerator.name().into());
        Ok(provenance)
    }

    fn roles(&self) -> &'static [RoleRule] {
        ROLES
    }

    fn thread_roles(&self) -> &'static [ThreadRule] {
        THREAD_ROLES
    }

    fn start(&self, machine: &Machine) -> Result<Start> {
        let board = self.board(machine.guest)?;
        let (qmp, theirs) = Qmp::pair(board.bus.virtio(NIC))?;
        let mut arguments = Arguments::default();
        let options = if board.options.is_empty() { "" } else { "," };
        arguments.pair("-name", format!("{},debug-threads=on", machine.label));
        arguments.pair("-machine", format!("{}{options}{}", board.model.name(), board.options));
        match self.accelerator {
            Accelerator::Kvm => arguments.pair("-accel", "kvm"),
            Accelerator::Tcg => arguments.pair("-accel", "tcg,thread=multi"),
        }
        let cpu = self.cpu();
        arguments.pair("-cpu", &cpu);
        arguments.pair("-m", format!("{}M", machine.memory_bytes >> 20));
        arguments.pair("-smp", machine.vcpus.to_string());
        // A reset is the end: whoever asks for the guest afterwards must not meet its second life.
        arguments.all(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        arguments.pair("-serial", if machine.console { "stdio" } else { "none" });
        arguments.pair("-chardev", format!("socket,id=qmp,fd={}", theirs.as_raw_fd()));
        arguments.pair("-mon", "chardev=qmp,mode=control");
        let mut files: Vec<_> = machine.drives().map(|(_, drive)| drive.file.clone()).collect();
        if board.boot == Boot::Kernel {
            for (option, image) in [("-kernel", &machine.kernel), ("-initrd", &machine.initrd)] {
                if let Some(image) = image {
                    arguments.pair(option, image);
                    files.push(image.clone());
                }
            }
            if let Some(line) = machine.command_line.as_ref().filter(|_| machine.kernel.is_some()) {
                arguments.pair("-append", line);
            }
        }
        if let Some(nic) = &machine.nic {
            arguments.nic(nic, board.bus);
        }
        for (name, drive) in machine.drives() {
            arguments.drive(name, drive, board.bus)?;
        }
        arguments.all(board.arguments);
        arguments.all(&self.arguments);
        let conditions = [
            ("accelerator", self.accelerator.name().to_owned()),
            ("machine", board.model.name().to_owned()),
            ("cpu-model", cpu),
            ("vmm-arguments", self.arguments.join(" ")),
        ];
        let conditions = conditions.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(Start {
            executable: self.runtime()?.path,
            arguments: arguments.0,
            inherited: Some(theirs),
            control: Some(Box::new(qmp) as Box<dyn Control>),
            conditions: conditions.map(|(name, value)| (name.to_owned(), value)).collect(),
            messages: Vec::new(),
            shown: Shown::First,
            files,
        })
    }
}

/// A command line in the making.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn all(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) {
        self.0.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    }

    fn pair(&mut self, option: &str, value: impl AsRef<OsStr>) {
        self.all([OsStr::new(option), value.as_ref()]);
    }

    fn nic(&mut self, nic: &Nic, bus: Bus) {
        let address = nic.link_address.map(|byte| format!("{byte:02x}")).join(":");
        self.pair("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", nic.tap));
        let no_firmware = if bus == Bus::Pci { ",romfile=" } else { "" };
        self.pair("-device", format!("virtio-net-{},id={NIC},netdev=net0,mac={address}{no_firmware}", bus.suffix()));
    }

    fn drive(&mut self, name: &str, drive: &Drive, bus: Bus) -> Result<()> {
        let access = match drive.access {
            Access::ReadOnly => "read-only=on",
            Access::Own => "read-only=off",
            // The layer is a file without a name, which goes with QEMU.
            Access::Overlay => "snapshot=on",
        };
        let mut value = OsString::from(format!("if=none,id={name},format=raw,{access},file="));
        value.push(escaped(&drive.file)?);
        self.pair("-drive", value);
        self.pair("-device", format!("virtio-blk-{},drive={name}", bus.suffix()));
        Ok(())
    }
}

/// A path as the value of one of several options in an argument: commas are doubled.
fn escaped(path: &Path) -> Result<OsString> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&b'\n') {
        bail!("{} has a line break in its name: QEMU can't be told", path.display());
    }
    let doubled = bytes.iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    Ok(OsString::from_vec(doubled.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::vm::guest;

    fn arguments(qemu: &Qemu, guest: &'static Guest, drive: Option<Drive>) -> Result<String> {
        let machine = Machine {
            label: "a1".into(),
            directory: "/run/x/a1".into(),
            guest,
            kernel: Some("/images/kernel".into()),
            initrd: None,
            drive,
            data: None,
            command_line: Some("a b".into()),
            memory_bytes: 64 << 20,
            vcpus: 2,
            nic: Some(Nic { tap: "tap0", link_address: [2, 0, 0, 0, 0, 0xff] }),
            console: true,
        };
        let qemu = Qemu { executable: Some("/usr/bin/qemu".into()), ..qemu.clone() };
        let words: Vec<_> =
            qemu.start(&machine)?.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Ok(words.join(" "))
    }

    fn guest(name: &str) -> &'static Guest {
        guest::ALL.into_iter().find(|guest| guest.name == name).unwrap()
    }

    #[test]
    fn the_machine_is_spelled_out() {
        let line = arguments(&Qemu::by(Accelerator::Tcg), guest("linux"), None).unwrap();
        for part in [
            "-name a1,debug-threads=on",
            "-machine microvm,",
            "-accel tcg,thread=multi",
            "-m 64M -smp 2",
            "-serial stdio",
            "-kernel /images/kernel -append a b",
            "-netdev tap,id=net0,ifname=tap0,script=no,downscript=no",
            "-device virtio-net-device,id=nic0,netdev=net0,mac=02:00:00:00:00:ff",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let q35 = Qemu { machine: Some(Model::Q35), ..Qemu::by(Accelerator::Kvm) };
        let line = arguments(&q35, guest("linux"), None).unwrap();
        assert!(line.contains("-machine q35 -accel kvm") && line.contains("virtio-net-pci"), "{line}");
    }

    #[test]
    fn a_machine_that_the_guest_does_not_boot_on_is_refused_with_those_it_does() {
        let q35 = Qemu { machine: Some(Model::Q35), ..Qemu::default() };
        let error = arguments(&q35, guest("floor"), None).unwrap_err().to_string();
        assert!(error.contains("`floor` does not boot on `q35`; choose microvm"), "{error}");
    }

    #[test]
    fn a_drive_with_a_comma_in_its_name_is_one_drive() {
        let drive = Drive { file: "/images/a,b.raw".into(), access: Access::ReadOnly };
        let line = arguments(&Qemu::default(), guest("nanos"), Some(drive)).unwrap();
        assert!(line.contains("read-only=on,file=/images/a,,b.raw -device virtio-blk-pci,drive=drive0"), "{line}");
    }
}
