//! Sockets that begin to listen, and the frames on the sandbox's own device.

use super::{Pickups, Probes};
use crate::probe::{Definition, Distribution, Event::Classic, Hook, loader::insert_patiently};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuHashMap, PerCpuValues},
    programs::{
        SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, qdisc_add_clsact},
    },
    util::{KernelVersion, nr_cpus},
};
use bytemuck::Zeroable as _;
use sandscope_ebpf::{event::Direction, map::NetDevice};

pub(super) const PROBE: Definition = Definition {
    name: "net",
    required: false,
    hooks: |_| &[Hook { program: "inet_sock_set_state", event: Classic("sock", "inet_sock_set_state") }],
    globals: |kernel| {
        kernel.fields(
            "sock",
            "inet_sock_set_state",
            &[
                ("SOCK_NEW_STATE", "newstate"),
                ("SOCK_SPORT", "sport"),
                ("SOCK_FAMILY", "family"),
                ("SOCK_PROTOCOL", "protocol"),
            ],
        )
    },
};

/// Which program sees which way. On the host's end of the device, what comes in has left the sandbox.
const WAYS: [(&str, TcAttachType, Direction); 2] = [
    ("frame_from_sandbox", TcAttachType::Ingress, Direction::FromSandbox),
    ("frame_to_sandbox", TcAttachType::Egress, Direction::ToSandbox),
];

/// Loads the programs for frames; they are attached per device.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<()> {
    for (program, ..) in WAYS {
        classifier(ebpf, program)?.load()?;
    }
    Ok(())
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn devices(ebpf: &mut Ebpf) -> Result<PerCpuHashMap<&mut MapData, u32, NetDevice>> {
    let map = ebpf.map_mut("NET_DEVICES").context("the BPF object has no map NET_DEVICES")?;
    Ok(PerCpuHashMap::try_from(map)?)
}

/// The frame programs on one device. They leave it when this is dropped.
pub struct DeviceProbe {
    ifindex: u32,
    scope: u16,
    _links: Vec<SchedClassifierLink>,
}

/// What passed a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Frames per [`Direction`].
    pub frames: [u64; 2],
    /// Bytes per [`Direction`].
    pub bytes: [u64; 2],
    /// Frames per [`Direction`] whose TCP data had passed before.
    pub retransmits: [u64; 2],
    /// Lengths of the frames per [`Direction`].
    pub sizes: [Distribution; 2],
    /// Nanoseconds from data into the sandbox to the next data out of it, per request.
    pub answers: Distribution,
    /// Their sum.
    pub answers_ns: u64,
    /// How long frames waited for the VMM; nothing where none reads a tap device by system calls.
    pub pickups: Pickups,
}

impl DeviceCounts {
    /// What has passed since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let minus = |now: [u64; 2], before: [u64; 2]| [0, 1].map(|way| now[way].saturating_sub(before[way]));
        Self {
            frames: minus(self.frames, before.frames),
            bytes: minus(self.bytes, before.bytes),
            retransmits: minus(self.retransmits, before.retransmits),
            sizes: [0, 1].map(|way| self.sizes[way].since(&before.sizes[way])),
            answers: self.answers.since(&before.answers),
            answers_ns: self.answers_ns.saturating_sub(before.answers_ns),
            pickups: self.pickups.since(&before.pickups),
        }
    }
}

impl Probes {
    /// Watches the frames on the host's end of a sandbox's device; nothing where the kernel did not take the programs, which
    /// [`Probes::missing`] tells.
    ///
    /// # Errors
    /// When the device does not exist or the kernel can't attach programs to it.
    pub fn watch_device(&mut self, name: &str, ifindex: u32, scope: u16) -> Result<Option<DeviceProbe>> {
        let ebpf = &mut self.programs.ebpf;
        for (program, ..) in WAYS {
            if classifier(ebpf, program)?.fd().is_err() {
                return Ok(None);
            }
        }
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("can't count the CPUs: {what}: {error}"))?;
        let fresh = NetDevice { scope, ..NetDevice::zeroed() };
        let mut devices = devices(ebpf)?;
        insert_patiently(|| {
            let values = PerCpuValues::try_from(vec![fresh; cpus])?;
            devices.insert(ifindex, values, 0)
        })
        .with_context(|| format!("no room to watch the device {name}"))?;
        self.watch_pickups(scope)?;
        if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(6, 6, 0)) {
            // Since 6.6 programs attach to the device itself; before, they need this queueing discipline.
            qdisc_add_clsact(name).with_context(|| format!("can't add the clsact qdisc to {name}"))?;
        }
        let mut links = Vec::new();
        for (program, way, _) in WAYS {
            let program = classifier(&mut self.programs.ebpf, program)?;
            let link = program.attach(name, way).with_context(|| format!("can't watch the frames on {name}"))?;
            links.push(program.take_link(link)?);
        }
        Ok(Some(DeviceProbe { ifindex, scope, _links: links }))
    }

    /// Stops watching a device and tells what passed it.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn unwatch_device(&mut self, device: DeviceProbe) -> Result<DeviceCounts> {
        let total = self.device_counts(&device)?;
        let (ifindex, scope) = (device.ifindex, device.scope);
        drop(device);
        devices(&mut self.programs.ebpf)?.remove(&ifindex)?;
        self.unwatch_pickups(scope)?;
        Ok(total)
    }

    /// What has passed a device so far.
    ///
    /// # Errors
    /// When the kernel refuses to give the counts.
    pub fn device_counts(&mut self, device: &DeviceProbe) -> Result<DeviceCounts> {
        let mut total = DeviceCounts { pickups: self.pickups(device.scope)?, ..DeviceCounts::default() };
        for cpu in devices(&mut self.programs.ebpf)?.get(&device.ifindex, 0)?.iter() {
            for way in [Direction::FromSandbox, Direction::ToSandbox] {
                total.frames[way as usize] += cpu.frames[way as usize];
                total.bytes[way as usize] += cpu.bytes[way as usize];
                total.retransmits[way as usize] += cpu.retransmits[way as usize];
                total.sizes[way as usize].add(&cpu.sizes[way as usize]);
            }
            total.answers.add(&cpu.answers);
            total.answers_ns += cpu.answers_ns;
        }
        Ok(total)
    }
}
