//! How long frames wait until the VMM takes them from its tap device.
//!
//! The programs are those of `net` and `syscall`; here is what they leave behind.

use super::Probes;
use crate::probe::{Distribution, loader::insert_patiently};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use bytemuck::Zeroable as _;
use sandscope_ebpf::map::NetQueue;

/// How long frames waited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pickups {
    /// Nanoseconds from the host's end of the device to the return of the system call by which the VMM reads the frame.
    pub waits: Distribution,
    /// Their sum.
    pub waits_ns: u64,
    /// Frames that came and that nobody was seen to read: dropped on the way, or not read yet when others had overtaken them.
    pub unseen: u64,
}

impl Pickups {
    /// What has come since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            waits: self.waits.since(&before.waits),
            waits_ns: self.waits_ns.saturating_sub(before.waits_ns),
            unseen: self.unseen.saturating_sub(before.unseen),
        }
    }
}

fn queues(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, u32, NetQueue>> {
    let map = ebpf.map_mut("NET_QUEUES").context("the BPF object has no map NET_QUEUES")?;
    Ok(HashMap::try_from(map)?)
}

impl Probes {
    /// Makes room for the frames of a scope.
    pub(super) fn watch_pickups(&mut self, scope: u16) -> Result<()> {
        let (mut queues, fresh) = (queues(&mut self.programs.ebpf)?, NetQueue::zeroed());
        insert_patiently(|| queues.insert(u32::from(scope), fresh, 0)).context("no room to watch a tap device")
    }

    pub(super) fn unwatch_pickups(&mut self, scope: u16) -> Result<()> {
        Ok(queues(&mut self.programs.ebpf)?.remove(&u32::from(scope))?)
    }

    /// How long the frames of a scope waited so far.
    pub(super) fn pickups(&mut self, scope: u16) -> Result<Pickups> {
        let queue = queues(&mut self.programs.ebpf)?.get(&u32::from(scope), 0)?;
        let mut pickups = Pickups { waits_ns: queue.waits_ns, unseen: queue.unseen, ..Pickups::default() };
        pickups.waits.add(&queue.waits);
        Ok(pickups)
    }
}
