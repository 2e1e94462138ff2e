//! The end of an instance's network for a virtual machine: a tap device, joined on layer 2 with the inner end of the veth pair.
//!
//! The host's end, its addresses and the probe on it are so the same for containers and for VMs. Joined by redirecting what
//! comes in on one device to the way out of the other, which costs no look-up and learns no addresses; by a bridge where the
//! kernel has no such action.

use anyhow::{Context as _, Result};
use netlink_packet_route::link::BridgeStpState;
use rtnetlink::{Error, Handle, LinkBridge, LinkUnspec};
use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl, opcode};
use std::{ffi::c_int, fs::File, os::fd::AsFd};

/// Name of the device that a VMM opens, inside.
pub const TAP: &str = "tap0";

/// Name of the bridge, inside.
const BRIDGE: &str = "br0";

/// `ETH_P_ALL` in network byte order, as filters take it.
const EVERY_PROTOCOL: u16 = 3_u16.to_be();

/// Where filters of an ingress queueing discipline belong.
const INGRESS_PARENT: u32 = 0xffff_0000;

/// How the tap device and the veth pair are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// Each redirects what it receives to the other.
    Redirect,
    /// Both are ports of a bridge.
    Bridge,
}

impl Coupling {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "tap, redirect",
            Self::Bridge => "tap, bridge",
        }
    }
}

/// Opens the tap device of the network namespace of the calling thread, and makes it if there is none.
///
/// # Errors
/// When the kernel has no such devices or allows none to this process.
pub fn open_tap() -> Result<File> {
    const SET_INTERFACE: Opcode = opcode::write::<c_int>(b'T', 202);
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    let device = device.context("could not open /dev/net/tun: `modprobe tun` loads its driver")?;
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    // SAFETY: this request of tun devices takes a pointer to a `struct ifreq`; no safe interface offers it.
    let set_interface = unsafe { Setter::<SET_INTERFACE, libc::ifreq>::new(request) };
    // SAFETY: the device is one that knows the request.
    unsafe { ioctl(device.as_fd(), set_interface) }.context("could not make a tap device: that needs CAP_NET_ADMIN")?;
    Ok(device)
}

/// Makes the tap device in the network namespace of the calling thread. It goes with that namespace.
pub fn make_tap() -> Result<()> {
    const SET_PERSISTENT: Opcode = opcode::write::<c_int>(b'T', 203);
    let device = open_tap()?;
    // SAFETY: this request of tun devices takes an integer; no safe interface offers it.
    let set_persistent = unsafe { IntegerSetter::<SET_PERSISTENT>::new_usize(1) };
    // SAFETY: the device is one that knows the request.
    unsafe { ioctl(device.as_fd(), set_persistent) }.context("could not make a tap device persistent")
}

/// Joins the two devices, by their indices in the namespace of the handle.
pub async fn couple(handle: &Handle, tap: u32, veth: u32) -> Result<Coupling> {
    match redirect(handle, tap, veth).await {
        Ok(()) => {
            redirect(handle, veth, tap).await.context("could not redirect frames to a tap device")?;
            Ok(Coupling::Redirect)
        }
        Err(error) => {
            tracing::info!("no redirection between devices ({error}): a bridge joins them");
            bridge(handle, tap, veth).await.with_context(|| {
                format!("could not join the tap device by a bridge, nor by the action `mirred` ({error})")
            })?;
            Ok(Coupling::Bridge)
        }
    }
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), Error> {
    let index = from.cast_signed();
    handle.qdisc().add(index).ingress().execute().await?;
    let filter = handle.traffic_filter(index).add().parent(INGRESS_PARENT).protocol(EVERY_PROTOCOL);
    filter.redirect(to)?.execute().await
}

async fn bridge(handle: &Handle, tap: u32, veth: u32) -> Result<()> {
    // It forwards from the first frame on (no spanning tree) and never sends one of its own.
    let bridge = LinkBridge::new(BRIDGE).stp_state(BridgeStpState::Disabled).forward_delay(0).mcast_snooping(false);
    handle.link().add(bridge.up().build()).execute().await.context("could not make a bridge")?;
    let bridge = super::find_link(handle, BRIDGE).await?.context("a new bridge is gone")?.header.index;
    for port in [tap, veth] {
        let set = handle.link().set(LinkUnspec::new_with_index(port).controller(bridge).build()).execute().await;
        set.context("could not add a device to a bridge")?;
    }
    Ok(())
}
