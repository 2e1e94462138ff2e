//! Virtual machines: every VMM with every guest, by one launcher.
//!
//! ```text
//! definition (which guest, its images, what differs) ─┐
//! guest/NAME.rs (data: images, command line, console) ├─► Machine ─► vmm.start() ─► program, control ─► VmInstance
//! specification (network, resources, workload) ───────┘
//! ```
//!
//! A new guest is a file in `guest/` and its line in [`guest::ALL`]; a new VMM is an implementation of [`Vmm`] in a file of its
//! own, and its line in the list of kinds.

mod command_line;
mod equipment;
pub mod firecracker;
pub mod guest;
mod image;
mod instance;
pub mod qemu;
mod qmp;
mod snapshot;

use super::{
    Abilities, Instance, Readiness, RoleRule, Sandbox, Specification, Support, ThreadRule,
    instance::{HostInstance, Plan},
    network::{Addresses, Network},
    resources::{Bytes, FileSharing},
    runtime::{missing_capabilities, sha256},
};
use crate::host::virtualization;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use equipment::Equipment;
use guest::{Guest, Ready};
use image::Images;
use instance::VmInstance;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Milestone of the console for the first byte on it.
const FIRST_BYTE: &str = "console_first_byte";
/// Milestone of the console for a line that says that the guest will not go on.
const DIED: &str = "guest_died";
/// Milestone of the console for a line that says that the guest's program listens.
const LISTENS: &str = "guest_listens";

/// Memory of a VM is a whole number of these: no VMM takes less.
const MEMORY_UNIT: u64 = 1 << 20;

/// A program that makes virtual machines.
pub trait Vmm: fmt::Debug + Send + Sync {
    /// The beginning of the names of its sandboxes, such as `qemu` or `qemu-tcg`.
    fn label(&self) -> &'static str;

    /// Whether this host can run it with this guest.
    fn support(&self, guest: &Guest) -> Support;

    /// What the manifest records of it, by name.
    ///
    /// # Errors
    /// When its program can't be read or does not answer.
    fn provenance(&self) -> Result<BTreeMap<String, String>>;

    /// Roles of its processes.
    fn roles(&self) -> &'static [RoleRule];

    /// Roles of its threads.
    fn thread_roles(&self) -> &'static [ThreadRule];

    /// Turns the description of a machine into what has to be executed, having made what may be made before the launch.
    ///
    /// # Errors
    /// When there can't be such a machine.
    fn start(&self, machine: &Machine) -> Result<Start>;

    /// Whether its guests do not boot inside the timed window, but go on from a snapshot. Such a VMM has a [`Control`] when it
    /// has been started, which saves the snapshot.
    fn restores(&self) -> bool {
        false
    }

    /// What has to be executed for a machine whose snapshot was saved in its directory.
    ///
    /// # Errors
    /// When it has no snapshots.
    fn restore(&self, machine: &Machine) -> Result<Start> {
        bail!("{} has no snapshot of {}", self.label(), machine.label)
    }
}

/// Whether this host's KVM runs the guest, with the evidence; else what is missing, and what a person can do.
fn kvm_runs(guest: &Guest) -> Result<String, (String, &'static str)> {
    virtualization::kvm().map_err(|missing| (missing, virtualization::REMEDY))?;
    match virtualization::hardware() {
        Err(missing) if guest.is_kernel => Err((
            format!(
                "{missing}: KVM interprets the guest's kernel, which is too slow and incomplete for `{}`",
                guest.name
            ),
            "use software emulation (`qemu-tcg-…`), a host with hardware virtualisation, or the lab: `cargo xtask lab`",
        )),
        _ => Ok("/dev/kvm opens".to_owned()),
    }
}

/// Description of a machine.
#[derive(Debug)]
pub struct Machine {
    /// Label of the instance.
    pub label: String,
    /// Directory of the instance.
    pub directory: PathBuf,
    /// What runs in it.
    pub guest: &'static Guest,
    /// Its kernel, if the guest does not boot from a drive.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its drive.
    pub drive: Option<Drive>,
    /// The disk with the file that its workload serves.
    pub data: Option<Drive>,
    /// Words for its kernel; `None`: the guest takes none.
    pub command_line: Option<String>,
    /// Size of its memory.
    pub memory_bytes: u64,
    /// Its vCPUs.
    pub vcpus: u32,
    /// Its network device.
    pub nic: Option<Nic>,
    /// Whether it has a serial line, which is the VMM's standard output.
    pub console: bool,
}

impl Machine {
    /// Its disks in the order in which the guest meets them, each with a name.
    fn drives(&self) -> impl Iterator<Item = (&'static str, &Drive)> {
        let all = [("drive0", &self.drive), ("data0", &self.data)];
        all.into_iter().filter_map(|(name, drive)| Some((name, drive.as_ref()?)))
    }
}

/// A raw disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// File that holds it.
    pub file: PathBuf,
    /// What happens to what the guest writes.
    pub access: Access,
}

/// What happens to what a guest writes to its drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It can't write.
    ReadOnly,
    /// It goes to the file, which is the instance's own.
    Own,
    /// It goes to a layer that is thrown away.
    Overlay,
}

/// A network device on a tap device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Name of the tap device in the network namespace of the VMM.
    pub tap: &'static str,
    /// Address of the guest's device.
    pub link_address: [u8; 6],
}

/// What has to be executed for a machine.
pub struct Start {
    /// The program.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<std::ffi::OsString>,
    /// File descriptor that it inherits. Its number is part of the arguments, and stays the same.
    pub inherited: Option<OwnedFd>,
    /// What it tells of its guest, if it can.
    pub control: Option<Box<dyn Control>>,
    /// What it decided and matters to who compares figures, by name.
    pub conditions: BTreeMap<String, String>,
    /// Markers by the VMM's own messages: name, and text that the line contains.
    pub messages: Vec<(&'static str, &'static str)>,
    /// Which of the VMM's own messages say why it ended.
    pub shown: Shown,
    /// Files that its start reads besides the program.
    pub files: Vec<PathBuf>,
}

/// Which of a VMM's own messages say why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The first: what comes later are the guest's registers and the like.
    First,
    /// The last that hold this text, or without any the last of all: it logs all that it does.
    Last(&'static str),
}

/// A line to a running VMM.
pub trait Control: Send {
    /// What is left to be done when its process runs, inside the timed window; gives the marker that this was, if there was
    /// anything. `ended` tells whether the process has ended.
    ///
    /// # Errors
    /// When the VMM refuses, or ended.
    fn started(&mut self, _ended: &mut dyn FnMut() -> Option<String>) -> Result<Option<&'static str>> {
        Ok(None)
    }

    /// Stops the guest and saves all that [`Vmm::restore`] needs to this directory.
    ///
    /// # Errors
    /// When the VMM can't.
    fn save(&mut self, _directory: &Path, _ended: &mut dyn FnMut() -> Option<String>) -> Result<()> {
        bail!("this VMM makes no snapshots")
    }

    /// Evidence that the guest is dead although the VMM lives, or why the VMM ended, if it has; must not block.
    fn evidence(&mut self, ended: bool) -> Option<String>;

    /// Whether the guest merges the receive buffers of its network device; `None`: the VMM does not tell.
    fn mergeable_buffers(&mut self) -> Option<bool> {
        None
    }

    /// Asks the VMM to end.
    fn quit(&mut self);
}

/// A VMM with a guest: what a sandbox of such a kind is.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vm<V> {
    /// Which guest.
    #[serde(deserialize_with = "guest::by_name")]
    pub guest: &'static Guest,
    /// How the VMM is to make the machine.
    #[serde(default)]
    pub vmm: V,
    /// Kernel image; without it the one that is kept for this guest.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; without it the one that is kept for this guest.
    pub initrd: Option<PathBuf>,
    /// Raw disk; without it the one that is kept for this guest.
    pub drive: Option<PathBuf>,
    /// Raw disk with the file that the workload serves; without it the one that is kept for this guest.
    pub data: Option<PathBuf>,
    /// Whether the drive has that file, for a guest that takes no disk for it.
    #[serde(default)]
    pub holds_file: bool,
    /// Names of the functions of the guest's kernel (an ELF file with symbols, or a table such as `System.map`); without it those
    /// that are kept for this guest.
    pub symbols: Option<PathBuf>,
    /// Words for the guest's kernel, in place of the guest's own; with `%ip`, `%gateway` and so on (see the guests).
    pub command_line: Option<String>,
    /// Memory, unless the run decides.
    pub memory: Option<Bytes>,
    /// Addresses that are built into the image.
    pub network: Option<Addresses>,
    /// Text of a line of the console that says that the guest's program listens, for one that does not call back; without it the
    /// guest's own.
    pub ready_line: Option<String>,
    /// Program of the floor; `None`: the one beside the running program.
    #[serde(skip)]
    pub floor: Option<PathBuf>,
}

impl<V: Vmm> Vm<V> {
    /// The name of a sandbox of this VMM with this guest that has nothing but defaults.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.vmm.label(), self.guest.name)
    }

    /// A guest with nothing but defaults.
    pub fn of(vmm: V, guest: &'static Guest) -> Self {
        Self {
            guest,
            vmm,
            kernel: None,
            initrd: None,
            drive: None,
            data: None,
            holds_file: false,
            symbols: None,
            command_line: None,
            memory: None,
            network: None,
            ready_line: None,
            floor: None,
        }
    }

    fn images(&self, workload: Option<&str>) -> Result<Images> {
        let given = Images {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            drive: self.drive.clone(),
            data: self.data.clone(),
            symbols: self.symbols.clone(),
            floor: None,
        };
        given.or_kept(self.guest, workload, self.floor.as_deref())
    }

    /// The disk that holds the file that the workload serves, and where that is for the guest; `None`: the guest has none.
    fn static_disk(&self, images: &Images) -> Option<(PathBuf, &'static Path)> {
        let on_drive =
            || images.drive.clone().filter(|_| self.holds_file).map(|drive| (drive, Path::new("/static_file")));
        // Where the init of ours mounts it.
        images.data.clone().map(|data| (data, Path::new("/data/static_file"))).or_else(on_drive)
    }

    fn memory_bytes(&self, specification: &Specification, images: &Images) -> Result<u64> {
        let guest = self.guest;
        let asked = specification.resources.memory_bytes.or(self.memory.map(|Bytes(bytes)| bytes));
        let bytes = asked.unwrap_or(guest.memory_bytes);
        let initrd_bytes = images.initrd.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        let least = guest.least_memory_bytes + (guest.initrd_copies * initrd_bytes).next_multiple_of(MEMORY_UNIT);
        ensure!(
            bytes >= least,
            "{} of memory are too little for the guest `{}` with these images: it needs {}",
            Bytes(bytes),
            guest.name,
            Bytes(least)
        );
        ensure!(
            bytes.is_multiple_of(MEMORY_UNIT),
            "{} are no memory of a virtual machine: it must be whole MiB",
            Bytes(bytes)
        );
        Ok(bytes)
    }

    fn ready_line(&self) -> Option<&str> {
        match self.guest.ready {
            Ready::Says(text) => Some(self.ready_line.as_deref().unwrap_or(text)),
            _ => self.ready_line.as_deref(),
        }
    }

    /// How the guest tells that it is ready, and the milestones of its console that matter for that.
    fn readiness(&self, specification: &Specification, network: Option<&Network>) -> Result<Readiness> {
        let address = |network: &Network| SocketAddr::from((network.sandbox_address(), specification.workload.port));
        match (self.guest.ready, network, self.ready_line()) {
            (Ready::Done(done), ..) => Ok(Readiness::Console { done }),
            (_, Some(network), None) => Ok(specification.readiness(network)),
            (_, Some(network), Some(_)) => {
                ensure!(
                    specification.resources.console,
                    "the guest `{}` is ready when a line of its console says so: it can't be without a console",
                    self.guest.name
                );
                Ok(Readiness::Line { line: LISTENS, address: address(network) })
            }
            (_, None, _) => bail!("the guest `{}` has no network to be asked by", self.guest.name),
        }
    }

    fn plan(&self, specification: &Specification, network: Option<Network>) -> Result<(Plan, Watched)> {
        let guest = self.guest;
        let readiness = self.readiness(specification, network.as_ref())?;
        let images = self.images(Some(&specification.workload.name));
        let images = images.map_err(|error| anyhow!("{error:#}: {}", guest.remedy))?;
        images.check(guest, &specification.workload)?;
        let (images, sharing) = images.provide(specification)?;
        let nic = network
            .as_ref()
            .and_then(Network::private)
            .and_then(|private| Some(Nic { tap: super::network::TAP, link_address: private.guest?.link_address }));
        let pattern = self.command_line.as_deref().or(guest.command_line);
        let (static_disk, static_file) = self.static_disk(&images).unzip();
        let command_line =
            pattern.map(|pattern| command_line::expand(pattern, specification, network.as_ref(), static_file));
        let machine = Machine {
            label: specification.label.clone(),
            directory: specification.directory.clone(),
            guest,
            kernel: images.kernel.clone(),
            initrd: images.initrd.clone(),
            drive: images.drive.clone().map(|file| Drive { file, access: sharing }),
            data: images.data.clone().map(|file| Drive { file, access: sharing }),
            command_line: command_line.transpose()?,
            memory_bytes: self.memory_bytes(specification, &images)?,
            vcpus: specification.resources.vcpus.unwrap_or(1),
            nic,
            console: specification.resources.console,
        };
        let equip = |start| self.equip(start, &machine, network.as_ref());
        let (equipment, readiness) = if self.vmm.restores() {
            let network = network.as_ref().context("a snapshot is made of a guest with a network")?;
            let address = SocketAddr::from((network.sandbox_address(), specification.workload.port));
            snapshot::make(equip(self.vmm.start(&machine)?)?, readiness, specification, network)?;
            (equip(self.vmm.restore(&machine)?)?, Readiness::Launched { address })
        } else {
            (equip(self.vmm.start(&machine)?)?, readiness)
        };
        let Equipment { executable, program, console, watched, files, mut conditions } = equipment;
        conditions.insert("memory".into(), Bytes(machine.memory_bytes).to_string());
        conditions.insert("vcpus".into(), machine.vcpus.to_string());
        conditions.insert("files".into(), files_condition(&machine, specification.resources.files).into());
        conditions.extend(machine.command_line.map(|line| ("command-line".to_owned(), line)));
        let files = [vec![executable], files].concat();
        let plan = Plan { program: (program, console), files, readiness, roles: self.vmm.roles(), network, conditions };
        Ok((plan, Watched { static_disk, ..watched }))
    }
}

/// What [`VmInstance`] looks at besides the process.
struct Watched {
    control: Option<Box<dyn Control>>,
    messages: super::console::Console,
    shown: Shown,
    thread_roles: &'static [ThreadRule],
    static_disk: Option<PathBuf>,
}

/// How the guest came to its files, in the words of the tables.
fn files_condition(machine: &Machine, asked: FileSharing) -> &'static str {
    match (machine.drives().next().map(|(_, drive)| drive.access), asked) {
        (Some(Access::ReadOnly), _) => "one drive for all, read-only",
        (Some(Access::Own), _) => "a copy of the images",
        (Some(Access::Overlay), _) => "one drive for all, below a layer that is thrown away",
        (None, FileSharing::Copy) => "a copy of the images",
        (None, _) => "in memory, read from the same images by all",
    }
}

impl<V: Vmm> Sandbox for Vm<V> {
    fn name(&self) -> &str {
        self.vmm.label()
    }

    fn about(&self) -> &'static str {
        self.guest.about
    }

    fn support(&self) -> Support {
        let images = match self.images(None).and_then(|images| images.shown(self.guest)) {
            Ok(shown) => shown,
            Err(error) => {
                return Support::Unsupported { evidence: format!("{error:#}"), remedy: self.guest.remedy.into() };
            }
        };
        let verdict = self.vmm.support(self.guest);
        match (missing_capabilities(), verdict) {
            (_, unsupported @ Support::Unsupported { .. }) => unsupported,
            (Some(missing), _) if self.guest.network => Support::Unsupported {
                evidence: missing,
                remedy: "run as root: virtual machines need a network of their own".into(),
            },
            (_, Support::Ok { evidence }) => Support::Ok { evidence: format!("{evidence}; {images}") },
            (_, degraded) => degraded,
        }
    }

    fn abilities(&self) -> Abilities {
        let host_file = self.images(None).is_ok_and(|images| self.static_disk(&images).is_some());
        Abilities { server: !matches!(self.guest.ready, Ready::Done(_)), host_file, apart: true }
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        let name = self.name();
        let mut provenance = BTreeMap::new();
        for (key, value) in self.vmm.provenance()? {
            provenance.insert(format!("{name}.{key}"), value);
        }
        let images = self.images(None)?;
        let files = [
            ("kernel", images.kernel.or(images.floor)),
            ("initrd", images.initrd),
            ("drive", images.drive),
            ("data", images.data),
        ];
        for (what, file) in files {
            if let Some(file) = file {
                provenance.insert(format!("{name}.{what}.path"), file.display().to_string());
                provenance.insert(format!("{name}.{what}.sha256"), sha256(&file)?);
            }
        }
        let pattern = self.command_line.as_deref().or(self.guest.command_line);
        provenance.extend(pattern.map(|pattern| (format!("{name}.command-line"), pattern.to_owned())));
        Ok(provenance)
    }

    fn guest_symbols(&self) -> Option<PathBuf> {
        // What is wrong with the images is said before a run begins.
        self.images(None).ok()?.symbols
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        specification.check()?;
        let mut watched = None;
        let inner = HostInstance::prepare(&specification.directory, |journal| {
            let addresses = self.network.or(self.guest.addresses);
            let network = match self.guest.network {
                true => Some(Network::prepare_for_guest(specification, addresses, journal)?),
                false => None,
            };
            let (plan, rest) = self.plan(specification, network)?;
            watched = Some(rest);
            Ok(plan)
        })?;
        let watched = watched.context("a prepared instance has nothing that watches it")?;
        Ok(Box::new(VmInstance::new(inner, watched)))
    }
}
