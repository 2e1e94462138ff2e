//! Firecracker: booted from a file of configuration, which is its fastest start, or restored from a snapshot that was made of the
//! booted and ready guest before the launch.
//!
//! | start | what is executed | what else the launch does |
//! |---|---|---|
//! | `boot` | `firecracker --no-api --config-file …` | nothing |
//! | `restore` | `firecracker --api-sock …` | asks it to load the snapshot and to go on |
//!
//! What Firecracker itself logs goes to its standard error, apart from the guest's console. It has no command that ends it: it is
//! killed, as its own documentation does it.

mod api;

use super::{
    super::{RoleRule, Support, ThreadRule, runtime::Runtime},
    Access, Machine, Shown, Start, Vmm,
    guest::Guest,
    kvm_runs,
};
use anyhow::{Context as _, Result, bail};
use api::Api;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

const EXECUTABLE: &str = "firecracker";

const ROLES: &[RoleRule] = &[RoleRule { role: "vmm", contains: EXECUTABLE, forked: None }];

const THREAD_ROLES: &[ThreadRule] = &[
    ThreadRule { role: "vcpu", begins: "fc_vcpu" },
    ThreadRule { role: "vmm-api", begins: "fc_api" },
    ThreadRule { role: "kvm", begins: "kvm-" },
];

/// Files in the instance's directory.
const CONFIGURATION: &str = "firecracker.json";
const SOCKET: &str = "api.sock";
const STATE: &str = "snapshot.state";
const MEMORY: &str = "snapshot.memory";

/// Where the guest writes a byte to say that it has booted, since Firecracker 1.13. At another address nothing happens.
const BOOT_TIMER: u64 = 0xc000_0000;

/// Marker and text of Firecracker's message when it did.
const BOOTED: (&str, &str) = ("boot_timer", "Guest-boot-time");

/// What Firecracker needs to know of a guest that its machine fits.
#[derive(Debug)]
pub struct Board {
    /// Whether the images that are kept for the guest boot here too: those with a loader of their own are built for it apart.
    pub takes_kept: bool,
    /// Further words for the kernel.
    pub words: &'static str,
    /// Words that keep the kernel from the serial line, which every machine has: those that begin with `console=` go.
    pub silence: &'static str,
    /// Word that tells the guest the address of the boot timer, without the address; for a guest that knows what to do with it.
    pub boot_timer: Option<&'static str>,
}

/// How Firecracker is to make a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Firecracker {
    /// The program; without it the one in the search path.
    pub executable: Option<PathBuf>,
    /// How the guest comes to life.
    pub start: Mode,
    /// Further arguments, as they are.
    pub arguments: Vec<String>,
}

/// How the guest comes to life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It boots.
    #[default]
    Boot,
    /// It goes on where a snapshot was made, when its workload was ready.
    Restore,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Restore => "restore",
        }
    }
}

impl Firecracker {
    /// With this start, the rest by default.
    pub fn by(start: Mode) -> Self {
        Self { start, ..Self::default() }
    }

    /// Whether the guest can be had without a definition.
    pub fn is_ready_made(&self, guest: &Guest) -> bool {
        // What was restored has to be asked something.
        guest.firecracker.takes_kept && (self.start == Mode::Boot || guest.network)
    }

    fn runtime(&self) -> Result<Runtime> {
        match &self.executable {
            Some(path) => Ok(Runtime { path: path.clone() }),
            None => Runtime::find(EXECUTABLE),
        }
    }

    /// What both starts have in common, with what one of them has besides; which files they read is for them to say.
    fn execute(&self, machine: &Machine, arguments: Vec<OsString>, control: Option<Api>) -> Result<Start> {
        let common = ["--id", &machine.label, "--log-path", "/proc/self/fd/2", "--level", "Info", "--show-level"];
        let further = common.into_iter().map(OsString::from).chain(self.arguments.iter().map(OsString::from));
        let conditions = [
            ("accelerator", "kvm".to_owned()),
            ("start", self.start.name().to_owned()),
            ("vmm-arguments", self.arguments.join(" ")),
        ];
        let conditions = conditions.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(Start {
            executable: self.runtime()?.path,
            arguments: arguments.into_iter().chain(further).collect(),
            inherited: None,
            control: control.map(|api| Box::new(api) as _),
            conditions: conditions.map(|(name, value)| (name.to_owned(), value)).collect(),
            messages: vec![BOOTED],
            shown: Shown::Last(":ERROR]"),
            files: Vec::new(),
        })
    }
}

impl Vmm for Firecracker {
    fn label(&self) -> &'static str {
        match self.start {
            Mode::Boot => "firecracker",
            Mode::Restore => "firecracker-restore",
        }
    }

    fn support(&self, guest: &Guest) -> Support {
        let unsupported = |evidence: String, remedy: &str| Support::Unsupported { evidence, remedy: remedy.into() };
        let version = match self.runtime().and_then(|runtime| runtime.version()) {
            Ok(version) => version,
            Err(error) => {
                return unsupported(
                    format!("{error:#}"),
                    "install a release of Firecracker to /usr/local/bin/firecracker (docs/sandboxes.md)",
                );
            }
        };
        if self.start == Mode::Restore && !guest.network {
            let evidence = format!("the guest `{}` has nothing to say after it was restored", guest.name);
            return unsupported(evidence, "use a guest with a workload");
        }
        match kvm_runs(guest) {
            Ok(evidence) => Support::Ok { evidence: format!("{version}, {evidence}") },
            Err((missing, remedy)) => unsupported(missing, remedy),
        }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        self.runtime()?.provenance("vmm")
    }

    fn roles(&self) -> &'static [RoleRule] {
        ROLES
    }

    fn thread_roles(&self) -> &'static [ThreadRule] {
        THREAD_ROLES
    }

    fn restores(&self) -> bool {
        self.start == Mode::Restore
    }

    fn start(&self, machine: &Machine) -> Result<Start> {
        let directory = &machine.directory;
        let file = directory.join(CONFIGURATION);
        fs::write(&file, serde_json::to_vec(&configuration(machine)?)?)
            .with_context(|| format!("could not write {}", file.display()))?;
        let mut arguments: Vec<OsString> = vec!["--config-file".into(), file.into()];
        if machine.guest.firecracker.boot_timer.is_some() {
            arguments.push("--boot-timer".into());
        }
        let control = match self.start {
            Mode::Boot => {
                arguments.push("--no-api".into());
                None
            }
            Mode::Restore => {
                arguments.extend(["--api-sock".into(), directory.join(SOCKET).into()]);
                Some(Api::of(directory.join(SOCKET))?)
            }
        };
        let drives = machine.drives().map(|(_, drive)| &drive.file);
        let files = machine.kernel.iter().chain(&machine.initrd).chain(drives).cloned().collect();
        Ok(Start { files, ..self.execute(machine, arguments, control)? })
    }

    fn restore(&self, machine: &Machine) -> Result<Start> {
        let directory = &machine.directory;
        let socket = directory.join(SOCKET);
        // That of the Firecracker that made the snapshot.
        let _ = fs::remove_file(&socket);
        let arguments = vec!["--api-sock".into(), socket.clone().into()];
        let (state, memory) = (directory.join(STATE), directory.join(MEMORY));
        let control = Api::of(socket)?.loading(json!({
            "snapshot_path": state,
            "mem_backend": { "backend_type": "File", "backend_path": memory },
            "resume_vm": true,
        }));
        Ok(Start { files: vec![state, memory], ..self.execute(machine, arguments, Some(control))? })
    }
}

/// The machine in Firecracker's words.
fn configuration(machine: &Machine) -> Result<Value> {
    let Some(kernel) = &machine.kernel else {
        bail!(
            "Firecracker has no firmware that boots from a drive: give the kernel of the guest `{}`",
            machine.guest.name
        )
    };
    let mut source = json!({ "kernel_image_path": kernel, "boot_args": command_line(machine) });
    if let Some(initrd) = &machine.initrd {
        source["initrd_path"] = json!(initrd);
    }
    let drives = machine.drives().map(|(name, drive)| {
        let is_read_only = match drive.access {
            Access::ReadOnly => true,
            Access::Own => false,
            Access::Overlay => bail!("Firecracker keeps what a guest writes to a drive: use --files shared or copy"),
        };
        // Firecracker would tell the kernel to mount a root device.
        Ok(json!({
            "drive_id": name,
            "path_on_host": drive.file,
            "is_root_device": false,
            "is_read_only": is_read_only,
        }))
    });
    let nics = machine.nic.iter().map(|nic| {
        let address = nic.link_address.map(|byte| format!("{byte:02x}")).join(":");
        json!({ "iface_id": "net0", "host_dev_name": nic.tap, "guest_mac": address })
    });
    Ok(json!({
        "boot-source": source,
        "machine-config": { "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_bytes >> 20 },
        "drives": drives.collect::<Result<Vec<_>>>()?,
        "network-interfaces": nics.collect::<Vec<_>>(),
    }))
}

/// The guest's command line with what this machine adds: before what is for the first process, behind `--`.
fn command_line(machine: &Machine) -> String {
    let Board { words, silence, boot_timer, .. } = machine.guest.firecracker;
    let line = machine.command_line.as_deref().unwrap_or_default();
    let (kernel, process) = match line.split_once("-- ") {
        Some((kernel, process)) => (kernel, Some(process)),
        None => (line, None),
    };
    let is_kept = |word: &&str| machine.console || !word.starts_with("console=");
    let mut all: Vec<String> = kernel.split_whitespace().filter(is_kept).map(str::to_owned).collect();
    all.extend(words.split_whitespace().map(str::to_owned));
    if !machine.console {
        all.extend(silence.split_whitespace().map(str::to_owned));
    }
    all.extend(boot_timer.map(|word| format!("{word}{BOOT_TIMER:#x}")));
    all.extend(process.map(|process| format!("-- {process}")));
    all.join(" ")
}

/// Where Firecracker writes a snapshot: state of the devices, and memory.
fn snapshot_files(directory: &Path) -> Value {
    json!({
        "snapshot_type": "Full",
        "snapshot_path": directory.join(STATE),
        "mem_file_path": directory.join(MEMORY),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Drive, Nic, guest},
        *,
    };

    fn machine(guest: &'static str) -> Machine {
        Machine {
            label: "a1".into(),
            directory: "/run/x/a1".into(),
            guest: guest::ALL.into_iter().find(|known| known.name == guest).unwrap(),
            kernel: Some("/images/kernel".into()),
            initrd: Some("/images/initrd".into()),
            drive: None,
            data: None,
            command_line: Some("console=ttyS0 quiet -- 10.0.0.2/30 console=x".into()),
            memory_bytes: 64 << 20,
            vcpus: 2,
            nic: Some(Nic { tap: "tap0", link_address: [2, 0, 0, 0, 0, 0xff] }),
            console: true,
        }
    }

    #[test]
    fn the_machine_is_spelled_out() {
        let configuration = configuration(&machine("linux")).unwrap();
        let expected = json!({
            "boot-source": {
                "kernel_image_path": "/images/kernel",
                "initrd_path": "/images/initrd",
                "boot_args": "console=ttyS0 quiet reboot=k boot_timer=0xc0000000 -- 10.0.0.2/30 console=x",
            },
            "machine-config": { "vcpu_count": 2, "mem_size_mib": 64 },
            "drives": [],
            "network-interfaces": [{ "iface_id": "net0", "host_dev_name": "tap0", "guest_mac": "02:00:00:00:00:ff" }],
        });
        assert_eq!(configuration, expected);
    }

    #[test]
    fn without_a_console_the_kernel_leaves_the_serial_line_alone() {
        let silent = Machine { console: false, ..machine("linux") };
        assert_eq!(
            command_line(&silent),
            "quiet reboot=k 8250.nr_uarts=0 boot_timer=0xc0000000 -- 10.0.0.2/30 console=x"
        );
        let floor = Machine { command_line: Some("stay=1".into()), ..machine("floor") };
        assert_eq!(command_line(&floor), "stay=1");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let error = |machine: &Machine| configuration(machine).unwrap_err().to_string();
        assert!(error(&Machine { kernel: None, ..machine("nanos") }).contains("no firmware"));
        let drive = Drive { file: "/images/a.raw".into(), access: Access::Overlay };
        assert!(error(&Machine { drive: Some(drive), ..machine("osv") }).contains("--files shared or copy"));
    }
}
