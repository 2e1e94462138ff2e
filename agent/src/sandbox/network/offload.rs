//! What a network device leaves to others: checksums and segmentation, asked of the kernel as `ethtool -k` does.
//!
//! Without offload each packet of a large answer goes its way alone. For a virtual machine the tap device tells what guest and
//! VMM have agreed on. Whether the guest merges its receive buffers is between the two, and only the VMM can tell.

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, socket};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

/// `SIOCETHTOOL` of the kernel's ABI.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands of `linux/ethtool.h`, each of which gets one feature.
const GET_RX_CHECKSUM: u32 = 0x14;
const GET_TX_CHECKSUM: u32 = 0x16;
const GET_SCATTER_GATHER: u32 = 0x18;
const GET_TSO: u32 = 0x1e;
const GET_GSO: u32 = 0x23;
const GET_GRO: u32 = 0x2b;

/// What one device leaves to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offload {
    /// Which of the devices: `host_end`, `sandbox_end` or `tap`.
    pub place: &'static str,
    /// Its name.
    pub device: String,
    /// Checksums of what it sends.
    pub tx_checksum: bool,
    /// Checksums of what it receives.
    pub rx_checksum: bool,
    /// Putting frames together from pieces of memory.
    pub scatter_gather: bool,
    /// Segmentation of TCP by the device.
    pub tso: bool,
    /// Segmentation right before the device.
    pub gso: bool,
    /// Putting received segments together.
    pub gro: bool,
    /// Whether the guest merges its receive buffers; `None`: it is no guest's device, or its VMM does not tell.
    pub mergeable_buffers: Option<bool>,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl Offload {
    /// Reads it of a device in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no such device, or its driver does not tell.
    pub fn read(place: &'static str, device: &str) -> Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).context("can't make a socket")?;
        let get = |command| {
            feature(&socket, device, command, 0).with_context(|| format!("{device} does not tell its offloads"))
        };
        Ok(Self {
            place,
            device: device.to_owned(),
            tx_checksum: get(GET_TX_CHECKSUM)?,
            rx_checksum: get(GET_RX_CHECKSUM)?,
            scatter_gather: get(GET_SCATTER_GATHER)?,
            tso: get(GET_TSO)?,
            gso: get(GET_GSO)?,
            gro: get(GET_GRO)?,
            mergeable_buffers: None,
        })
    }
}

/// Gets or sets a feature.
fn feature(socket: &OwnedFd, device: &str, command: u32, data: u32) -> io::Result<bool> {
    let mut value = Value { command, data };
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: this request takes a pointer to a `struct ifreq`, whose data is a `struct ethtool_value` here; both live until
    // it returns. No safe interface offers it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sandbox::blocking::on_a_thread, testing::skip};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    /// Sets what [`GET_GSO`] and [`GET_TSO`] get.
    const SET_GSO: u32 = 0x24;
    const SET_TSO: u32 = 0x1f;

    #[test]
    fn what_is_turned_off_is_read_as_off() {
        let outcome = on_a_thread("netns", || {
            // SAFETY: a namespace of its own for a thread that ends with this test; no descriptors are unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let before = Offload::read("host_end", "lo")?;
            assert!(before.gso && before.tso, "{before:?}");
            feature(&socket, "lo", SET_GSO, 0)?;
            let without = Offload::read("host_end", "lo")?;
            assert_eq!(without, Offload { gso: false, ..before.clone() });
            feature(&socket, "lo", SET_TSO, 0)?;
            let without = Offload::read("host_end", "lo")?;
            assert_eq!(without, Offload { gso: false, tso: false, ..before });
            Ok(())
        });
        if let Err(error) = outcome {
            skip("what_is_turned_off_is_read_as_off", "netns", format!("{error:#}"));
        }
    }

    #[test]
    fn the_loopback_device_segments_and_an_unknown_one_is_an_error() {
        let loopback = Offload::read("host_end", "lo").unwrap();
        assert!(loopback.gso && loopback.tso && loopback.scatter_gather, "{loopback:?}");
        let error = Offload::read("host_end", "none-such").unwrap_err();
        assert!(format!("{error:#}").contains("none-such"), "{error:#}");
    }
}
