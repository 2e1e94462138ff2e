//! The network of the guest: loopback, one device, one address, one way out. By the old ioctls: they are a few calls, and the
//! image stays small.

use super::Problem;
use std::{
    io,
    mem::zeroed,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    thread::sleep,
    time::{Duration, Instant},
};

/// The device.
const DEVICE: &str = "eth0";
/// How long its driver may take to make it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const INTERVAL: Duration = Duration::from_millis(1);

/// Gives the device its address, `A.B.C.D/PREFIX`, and the machine its gateway.
pub fn configure(address: &str, gateway: &str) -> Result<(), Problem> {
    let (address, mask) = parse(address).ok_or_else(|| format!("`{address}` is no address with a prefix length"))?;
    let gateway: Ipv4Addr = gateway.parse().map_err(|_| format!("`{gateway}` is no address"))?;
    let sockets = Sockets::new().map_err(|error| format!("can't make a socket: {error}"))?;
    sockets.up("lo").map_err(|error| format!("can't set lo up: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sockets.set(DEVICE, libc::SIOCSIFADDR, address) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) && Instant::now() < deadline => sleep(INTERVAL),
            result => break result.map_err(|error| format!("can't give {DEVICE} the address {address}: {error}"))?,
        }
    }
    sockets.set(DEVICE, libc::SIOCSIFNETMASK, mask).map_err(|error| format!("can't set the mask {mask}: {error}"))?;
    sockets.up(DEVICE).map_err(|error| format!("can't set {DEVICE} up: {error}"))?;
    sockets.route(gateway).map_err(|error| format!("can't route by {gateway}: {error}"))
}

/// An address and the mask of its prefix.
fn parse(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (address, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok().filter(|length| (1..=32).contains(length))?;
    Some((address.parse().ok()?, Ipv4Addr::from_bits(u32::MAX << (32 - length))))
}

/// A socket by which devices are configured.
struct Sockets(UdpSocket);

impl Sockets {
    fn new() -> io::Result<Self> {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map(Self)
    }

    fn set(&self, device: &str, request: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
        let mut interface = named(device);
        interface.ifr_ifru.ifru_addr = socket_address(address);
        self.call(request, &raw mut interface)
    }

    fn up(&self, device: &str) -> io::Result<()> {
        let mut interface = named(device);
        interface.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &raw mut interface)
    }

    fn route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: all zero is a valid value: numbers, addresses of no family, and null for no device's name.
        let mut route: libc::rtentry = unsafe { zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        self.call(libc::SIOCADDRT, &raw mut route)
    }

    fn call<T>(&self, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
        // SAFETY: needed because no safe interface has these requests; each is given a pointer to the struct that it takes, which
        // lives until the call returns.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn named(device: &str) -> libc::ifreq {
    // SAFETY: all zero is a valid value of this struct of numbers.
    let mut interface: libc::ifreq = unsafe { zeroed() };
    for (to, from) in interface.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    interface
}

/// `struct sockaddr_in` in its general form: the family, two bytes of port, the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_with_the_mask_of_its_prefix() {
        let parsed = parse("10.213.0.6/30");
        assert_eq!(parsed, Some((Ipv4Addr::new(10, 213, 0, 6), Ipv4Addr::new(255, 255, 255, 252))));
        for text in ["10.213.0.6", "10.213.0.6/0", "10.213.0.6/33", "10.213.0/30", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_socket_address_has_the_layout_of_the_c_library() {
        // SAFETY: both are plain numbers of the same size.
        let address: libc::sockaddr_in = unsafe { std::mem::transmute(socket_address(Ipv4Addr::new(10, 0, 0, 1))) };
        assert_eq!(address.sin_family, libc::AF_INET as libc::sa_family_t);
        assert_eq!(u32::from_be(address.sin_addr.s_addr), 0x0a00_0001);
    }
}
