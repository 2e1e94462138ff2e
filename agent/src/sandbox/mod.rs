//! Sandboxes: what each kind needs, how one instance is prepared, launched, watched and removed.
//!
//! One kind, one file, one implementation of [`Sandbox`]. The experiment calls, for every instance, in this order:
//! [`Sandbox::prepare`] (everything that may take time: bundle, network, files), then, on the launcher thread and inside the
//! timed window, [`Instance::launch`] (the one call that starts it), then [`Instance::failure`] as long as it waits, and
//! [`Instance::stop`] in the end, whatever happened before.

mod blocking;
mod bundle;
mod child;
pub mod console;
pub mod crun;
pub mod docker;
mod files;
pub mod gvisor;
mod instance;
mod journal;
pub mod kvm_floor;
pub mod launcher;
mod lock;
mod mounts;
pub mod network;
mod oci;
pub mod process;
mod processes;
pub mod resources;
pub mod run_dir;
pub mod runc;
mod runtime;
pub mod setting;
mod spawn;
mod undo;
pub mod vm;

pub use crate::host::support::Support;
use crate::{
    nearest::suggestion,
    role::{RoleRule, ThreadRule},
    workload::{Workload, callback},
};
use anyhow::{Result, bail, ensure};
pub use resources::Resources;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::{Path, PathBuf},
};
use toml::de::ValueDeserializer;

/// A kind of sandbox, for who defines one with options of their own.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Makes one of its options.
    pub define: fn(ValueDeserializer<'_>) -> Result<Box<dyn Sandbox>, toml::de::Error>,
}

/// All kinds.
pub const KINDS: [Kind; 8] = [
    Kind { name: "process", define: define::<process::Process> },
    Kind { name: "runc", define: define::<runc::Runc> },
    Kind { name: "crun", define: define::<crun::Crun> },
    Kind { name: "gvisor", define: define::<gvisor::Gvisor> },
    Kind { name: "docker", define: define::<docker::Docker> },
    Kind { name: "kvm-floor", define: define::<kvm_floor::KvmFloor> },
    Kind { name: "qemu", define: define::<vm::Vm<vm::qemu::Qemu>> },
    Kind { name: "firecracker", define: define::<vm::Vm<vm::firecracker::Firecracker>> },
];

fn define<S: Sandbox + DeserializeOwned + 'static>(
    options: ValueDeserializer<'_>,
) -> Result<Box<dyn Sandbox>, toml::de::Error> {
    Ok(Box::new(S::deserialize(options)?))
}

/// The sandboxes that need no definition, in the order in which they are shown.
pub fn all() -> Vec<Box<dyn Sandbox>> {
    let mut all: Vec<Box<dyn Sandbox>> = vec![
        Box::new(process::Process::default()),
        Box::new(runc::Runc::default()),
        Box::new(crun::Crun::default()),
        Box::new(gvisor::Gvisor { platform: gvisor::Platform::Systrap }),
        Box::new(gvisor::Gvisor { platform: gvisor::Platform::Ptrace }),
        Box::new(kvm_floor::KvmFloor::default()),
    ];
    all.extend(docker::Docker::all().into_iter().map(|docker| Box::new(docker) as _));
    let mut add = |name, inner| all.push(Box::new(Named { name, inner }));
    for accelerator in [vm::qemu::Accelerator::Kvm, vm::qemu::Accelerator::Tcg] {
        for guest in vm::guest::ALL {
            let machine = vm::Vm::of(vm::qemu::Qemu::by(accelerator), guest);
            add(machine.full_name(), Box::new(machine));
        }
    }
    for start in [vm::firecracker::Mode::Boot, vm::firecracker::Mode::Restore] {
        let firecracker = vm::firecracker::Firecracker::by(start);
        for guest in vm::guest::ALL.into_iter().filter(|guest| firecracker.is_ready_made(guest)) {
            let machine = vm::Vm::of(firecracker.clone(), guest);
            add(machine.full_name(), Box::new(machine));
        }
    }
    all
}

/// The sandbox of this name that needs no definition.
///
/// # Errors
/// When there is none; names the nearest.
pub fn find(name: &str) -> Result<Box<dyn Sandbox>> {
    find_among(all(), name)
}

/// The sandbox of this name among some, or that of a Docker runtime, whether or not a daemon has it.
///
/// # Errors
/// When there is none; names the nearest.
pub fn find_among<S>(mut all: Vec<S>, name: &str) -> Result<S>
where
    S: Deref<Target = dyn Sandbox> + From<Box<dyn Sandbox>>,
{
    if let Some(position) = all.iter().position(|sandbox| sandbox.name() == name) {
        return Ok(all.swap_remove(position));
    }
    if let Some(docker) = docker::Docker::named(name) {
        return Ok(S::from(Box::new(docker)));
    }
    let names: Vec<_> = all.iter().map(|sandbox| sandbox.name()).collect();
    bail!(
        "there is no sandbox `{name}`{} The sandboxes are: {}",
        suggestion(name, names.iter().copied()),
        names.join(", ")
    )
}

/// A kind of sandbox.
pub trait Sandbox: Send + Sync {
    /// The name people type, such as `runc`.
    fn name(&self) -> &str;

    /// One line on what it is.
    fn about(&self) -> &'static str;

    /// Whether this host can run it, with the evidence.
    fn support(&self) -> Support;

    /// What can be done with its instances.
    fn abilities(&self) -> Abilities {
        Abilities { server: true, host_file: true, apart: true }
    }

    /// What the manifest records of it: versions, platforms, hashes of binaries, by name. Called once per run.
    ///
    /// # Errors
    /// When a binary that [`Sandbox::support`] found can't be read or does not answer.
    fn provenance(&self) -> Result<BTreeMap<String, String>>;

    /// File that names the functions of what runs in its guests, if one is kept beside their images.
    fn guest_symbols(&self) -> Option<PathBuf> {
        None
    }

    /// Makes an instance ready to be launched: nothing that can be done before the timed window may be left to it.
    ///
    /// # Errors
    /// When the host refuses a resource; whatever was made until then is removed again.
    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>>;
}

/// What can be done with the instances of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The workload in them answers requests.
    pub server: bool,
    /// The workload's static file is on the host's disk: a file of its own there, or one of a disk that is.
    pub host_file: bool,
    /// The probes can tell those that are started at the same time apart. They can't where a daemon starts all of them, on one device.
    pub apart: bool,
}

/// A sandbox under a name that a person has given it.
pub struct Named {
    /// The name.
    pub name: String,
    /// What it is.
    pub inner: Box<dyn Sandbox>,
}

impl Sandbox for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> &'static str {
        self.inner.about()
    }

    fn support(&self) -> Support {
        self.inner.support()
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn provenance(&self) -> Result<BTreeMap<String, String>> {
        self.inner.provenance()
    }

    fn guest_symbols(&self) -> Option<PathBuf> {
        self.inner.guest_symbols()
    }

    fn prepare(&self, specification: &Specification) -> Result<Box<dyn Instance>> {
        self.inner.prepare(specification)
    }
}

/// What is asked of one instance.
#[derive(Clone, Debug)]
pub struct Specification {
    /// Names the instance's resources on the host; unique on it, at most 10 characters of `[a-z0-9]`.
    pub label: String,
    /// A directory of the instance's own inside the run's directory (see [`run_dir`]); removed with the run.
    pub directory: PathBuf,
    /// What runs inside.
    pub workload: Workload,
    /// Its network.
    pub network: network::Mode,
    /// What it may use, and how it gets its files.
    pub resources: Resources,
    /// Port of the host on which the agent awaits the ready callback (on the host's address of the instance's network).
    pub callback_port: u16,
}

impl Specification {
    /// Fails unless the label can name what an instance makes on the host.
    fn check(&self) -> Result<()> {
        let letters = self.label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        ensure!(
            letters && (1..=LABEL_LENGTH).contains(&self.label.len()),
            "`{}` can't label an instance: use 1 to {LABEL_LENGTH} lower-case letters and digits",
            self.label
        );
        Ok(())
    }

    /// Arguments of the workload, which sees these paths.
    fn arguments(&self, network: &network::Network, static_file: Option<&Path>, scratch: &Path) -> Vec<String> {
        self.arguments_from(network.host_address(), static_file, scratch)
    }

    /// The same, for a workload that finds the host at this address.
    fn arguments_from(&self, host: Ipv4Addr, static_file: Option<&Path>, scratch: &Path) -> Vec<String> {
        let mut arguments = vec![callback::url(host.into(), self.callback_port, &self.label)];
        if let Some(path) = static_file {
            arguments.extend(["--static-file".into(), path.display().to_string()]);
        }
        arguments.extend(["--scratch".into(), scratch.display().to_string()]);
        arguments.extend(["--port".into(), self.workload.port.to_string()]);
        arguments
    }

    /// How a workload in this network tells that it is ready.
    fn readiness(&self, network: &network::Network) -> Readiness {
        Readiness::Callback { address: SocketAddr::from((network.sandbox_address(), self.workload.port)) }
    }
}

/// Most characters of a label: with a prefix of two it has to fit into an interface's name, which has 15.
const LABEL_LENGTH: usize = 10;

/// How an instance tells that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The workload calls back when its socket listens (see [`callback::url`]); then it is asked at this
    /// address.
    Callback {
        /// Where the client sends its request.
        address: SocketAddr,
    },
    /// The same, but its address is not known before it starts: it is asked at the one from which it calls back.
    CallbackFrom {
        /// Port at which it is asked.
        port: u16,
    },
    /// A line on its console says that its program listens; then it is asked at this address. For one that can't call back.
    Line {
        /// Milestone of the console.
        line: &'static str,
        /// Where the client sends its request.
        address: SocketAddr,
    },
    /// It was ready before and goes on: it is asked at this address as soon as it is launched.
    Launched {
        /// Where the client sends its request.
        address: SocketAddr,
    },
    /// The first byte on its console is the response.
    Console {
        /// Milestone of the console at which it has done all that it was told; the recording goes on until then.
        done: &'static str,
    },
}

/// A network device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
}

/// A process of the host that works for an instance, but is not a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its number.
    pub pid: i32,
    /// What it is, such as `dockerd`.
    pub role: &'static str,
}

/// One instance, from prepared to removed. Dropping it stops it.
pub trait Instance: Send {
    /// Files that its start reads (runtime, workload, images): their state in the page cache is a condition.
    fn files(&self) -> Vec<PathBuf>;

    /// The disk of a guest that holds its workload's static file; `None`: it is a file of the host.
    fn static_disk(&self) -> Option<PathBuf> {
        None
    }

    /// How it tells that it is ready.
    fn readiness(&self) -> Readiness;

    /// Roles of its processes, most specific first.
    fn roles(&self) -> &'static [RoleRule];

    /// Roles of its threads by their names, most specific first.
    fn thread_roles(&self) -> &'static [ThreadRule] {
        &[]
    }

    /// What is particular about how it was prepared and matters to who compares figures, by name.
    fn conditions(&self) -> &BTreeMap<String, String>;

    /// Starts it and returns as soon as the host's part of starting is done; it need not be ready.
    /// Called once, on the launcher thread, inside the timed window.
    ///
    /// # Errors
    /// When the runtime can't be started.
    fn launch(&mut self) -> Result<()>;

    /// Evidence that it will never be ready, such as the end of its process with the last lines of its console. Cheap; called
    /// repeatedly.
    fn failure(&mut self) -> Option<String>;

    /// What it wrote to its console or standard output and error so far.
    fn console(&self) -> &console::Console;

    /// Milestones that it came to so far, each with who told.
    fn reached(&self) -> Vec<(&'static str, console::Reached)> {
        self.console().reached().into_iter().map(|reached| ("console", reached)).collect()
    }

    /// Whether its guest merges the receive buffers of its network device; `None`: it has none, or its VMM does not tell.
    fn mergeable_buffers(&mut self) -> Option<bool> {
        None
    }

    /// Host side of its network, when it has one of its own.
    fn network(&self) -> Option<&network::Private>;

    /// The host's address, seen from inside.
    fn host_address(&self) -> Ipv4Addr {
        self.network().map_or(Ipv4Addr::LOCALHOST, |own| own.host_address)
    }

    /// The device of the host through which all of its frames go, and no others.
    fn device(&self) -> Option<Device> {
        self.network().map(|own| Device { name: own.host_interface.clone(), index: own.host_index })
    }

    /// Processes that existed before and work for it while it starts. What they start belongs to it.
    fn daemons(&self) -> Vec<Daemon> {
        Vec::new()
    }

    /// Numbers of the processes of the host that belong to it at this moment.
    ///
    /// # Errors
    /// When they can't be found out.
    fn members(&self) -> Result<Vec<i32>>;

    /// Ends it and removes all it left on the host. Harmless to call again.
    ///
    /// # Errors
    /// When something could not be removed; names it.
    fn stop(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_the_nearest_suggested() {
        for sandbox in all() {
            assert_eq!(find(sandbox.name()).unwrap().name(), sandbox.name());
        }
        let error = find("rnuc").err().unwrap().to_string();
        assert!(error.contains("did you mean `runc`?") && error.contains("kvm-floor"), "{error}");
        let error = find("something-else").err().unwrap().to_string();
        assert!(!error.contains("did you mean") && error.contains("kvm-floor"), "{error}");
    }
}
