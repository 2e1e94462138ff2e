//! The network of an instance: a namespace of its own behind a veth pair, or the host's.
//!
//! Everything is made before the timed window, and silent: no IPv6 (whose multicast listener reports and router solicitations
//! would be the first frames on the device), explicit link-layer addresses (so that udev has nothing to change), and both ends
//! operational before the sandbox starts. So the first frame that a probe sees is the sandbox's own.

mod offload;
mod subnet;
mod tap;

use super::{
    Specification, blocking,
    journal::{Journal, Resource},
};
use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::AddressAttribute,
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, State},
    route::{RouteAddress, RouteAttribute},
};
pub use offload::Offload;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::{
    mount::mount_bind,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
pub use subnet::Addresses;
use subnet::{Prefix, Subnet, overlaps};
pub use tap::{Coupling, TAP, open_tap};

/// Every host end of a veth pair is named by this and the label of its instance.
pub const INTERFACE_PREFIX: &str = "ss";

/// Name of the device inside.
const INNER_INTERFACE: &str = "eth0";

/// File in an instance's directory on which its namespace is mounted, so that it has a name and its inode is not reused.
const NAMESPACE_FILE: &str = "netns";

/// How often another subnet is tried when another agent takes the same at the same time.
const ATTEMPTS: usize = 16;

/// How long the kernel may take to make the pair operational. It does so at once unless its link watch is rate limited, which
/// ends after a second.
const OPERATIONAL_LIMIT: Duration = Duration::from_secs(5);

/// Which network an instance gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One of its own.
    Private,
    /// The host's: needs no privileges, but the workload's port must be free.
    Host,
}

impl Mode {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Host => "host",
        }
    }
}

/// The network of one instance.
#[derive(Debug)]
pub enum Network {
    /// One of its own.
    Private(Private),
    /// The host's.
    Host,
}

/// A network namespace and the veth pair that leads to it.
#[derive(Debug)]
pub struct Private {
    /// Name of the host's end.
    pub host_interface: String,
    /// Interface index of the host's end.
    pub host_index: u32,
    /// Address of the host's end: the sandbox's default gateway.
    pub host_address: Ipv4Addr,
    /// Address of the sandbox.
    pub sandbox_address: Ipv4Addr,
    /// Length of the prefix that both addresses share.
    pub prefix_length: u8,
    /// What a virtual machine is connected to, if it is for one.
    pub guest: Option<Guest>,
    /// A file that names the namespace.
    pub namespace_path: PathBuf,
    /// The namespace.
    pub namespace: OwnedFd,
}

/// The end of a network for a virtual machine.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Link-layer address that the guest's device is to have.
    pub link_address: [u8; 6],
    /// How the tap device [`TAP`] is joined with the veth pair.
    pub coupling: Coupling,
}

impl Network {
    /// Makes the network that the specification asks for, having written down in the journal what will have to be undone.
    ///
    /// # Errors
    /// When the kernel refuses something, when no addresses are left, or when the workload's port of the host is taken.
    pub fn prepare(specification: &Specification, journal: &mut Journal) -> Result<Self> {
        match specification.network {
            Mode::Private => {
                let made =
                    blocking::wait("netlink", async || Private::create(specification, End::Namespace, journal).await);
                made.context("could not make the instance's network").map(Self::Private)
            }
            Mode::Host => ensure_free(specification.workload.port).map(|()| Self::Host),
        }
    }

    /// Makes the network of a virtual machine, as [`Network::prepare`], with a tap device in its namespace. A guest whose
    /// addresses are fixed in its image has them.
    ///
    /// # Errors
    /// As [`Network::prepare`]; when the host's network was asked for, in which a guest can't be; when fixed addresses are in
    /// use.
    pub fn prepare_for_guest(
        specification: &Specification,
        addresses: Option<Addresses>,
        journal: &mut Journal,
    ) -> Result<Self> {
        if specification.network == Mode::Host {
            bail!("a virtual machine can't be in the host's network: use --network private");
        }
        let made =
            blocking::wait("netlink", async || Private::create(specification, End::Guest(addresses), journal).await);
        made.context("could not make the instance's network").map(Self::Private)
    }

    /// Where the host is, seen from the sandbox.
    pub fn host_address(&self) -> Ipv4Addr {
        match self {
            Self::Private(private) => private.host_address,
            Self::Host => Ipv4Addr::LOCALHOST,
        }
    }

    /// Where the sandbox is, seen from the host.
    pub fn sandbox_address(&self) -> Ipv4Addr {
        match self {
            Self::Private(private) => private.sandbox_address,
            Self::Host => Ipv4Addr::LOCALHOST,
        }
    }

    /// The network of its own, if it has one.
    pub fn private(&self) -> Option<&Private> {
        match self {
            Self::Private(private) => Some(private),
            Self::Host => None,
        }
    }
}

/// What is at the inner end of a network.
enum End {
    /// The sandbox uses the namespace's devices.
    Namespace,
    /// A guest uses a tap device, with these addresses if its image decides.
    Guest(Option<Addresses>),
}

impl Private {
    /// Addresses of both ends.
    pub fn addresses(&self) -> Addresses {
        Addresses { host: self.host_address, sandbox: self.sandbox_address, prefix_length: self.prefix_length }
    }

    /// What the devices of both ends leave to others, and the tap device of a guest.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn offloads(&self) -> Result<Vec<Offload>> {
        let host = Offload::read("host_end", &self.host_interface)?;
        let inside = blocking::on_a_thread("netns", || {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("could not enter the instance's network namespace")?;
            let veth = Offload::read("sandbox_end", INNER_INTERFACE)?;
            let tap = self.guest.map(|_| Offload::read("tap", TAP)).transpose()?;
            Ok([Some(veth), tap])
        })?;
        Ok(std::iter::once(host).chain(inside.into_iter().flatten()).collect())
    }

    /// Must be called on a thread that ends afterwards: its network namespace may change.
    async fn create(specification: &Specification, end: End, journal: &mut Journal) -> Result<Self> {
        let host = connect()?;
        let host_namespace = own_namespace()?;
        let (namespace, namespace_path) = new_namespace(&specification.directory)?;
        disable_ipv6("all")?;
        disable_ipv6("default")?;
        let inside = connect()?;
        if matches!(end, End::Guest(_)) {
            tap::make_tap()?;
        }
        move_into_link_name_space(host_namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("could not go back to the host's network namespace")?;

        let host_interface = format!("{INTERFACE_PREFIX}{}", specification.label);
        let address = random_link_address();
        journal.record(&Resource::Veth { name: host_interface.clone(), address })?;
        let inner = LinkUnspec::new_with_name(INNER_INTERFACE)
            .address(random_link_address().to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkVeth::new(&host_interface, INNER_INTERFACE)
            .address(address.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .build();
        let added = host.link().add(pair).execute().await;
        added.with_context(|| format!("could not make the veth pair {host_interface}"))?;
        disable_ipv6(&host_interface)?;

        let host_index = find_link(&host, &host_interface).await?.context("a new veth device is gone")?.header.index;
        let addresses = match end {
            End::Guest(Some(fixed)) => take_fixed(&host, host_index, fixed).await?,
            End::Namespace | End::Guest(None) => take_subnet(&host, host_index).await?,
        };
        up(&host, host_index).await?;

        let inner = find_link(&inside, INNER_INTERFACE).await?.context("the other end of a veth pair is gone")?;
        let inner_index = inner.header.index;
        let guest = match end {
            End::Namespace => {
                configure_inside(&inside, inner_index, addresses).await?;
                None
            }
            End::Guest(_) => {
                let tap = find_link(&inside, TAP).await?.context("a new tap device is gone")?.header.index;
                let coupling = tap::couple(&inside, tap, inner_index).await?;
                up(&inside, inner_index).await?;
                up(&inside, tap).await?;
                Some(Guest { link_address: random_link_address(), coupling })
            }
        };

        await_operational(&host, &host_interface).await?;
        await_operational(&inside, INNER_INTERFACE).await?;
        Ok(Self {
            host_interface,
            host_index,
            host_address: addresses.host,
            sandbox_address: addresses.sandbox,
            prefix_length: addresses.prefix_length,
            guest,
            namespace_path,
            namespace,
        })
    }
}

/// Gives the sandbox's end its address and its way to the host.
async fn configure_inside(inside: &Handle, device: u32, addresses: Addresses) -> Result<()> {
    let loopback = find_link(inside, "lo").await?.context("a new network namespace has no loopback device")?;
    up(inside, loopback.header.index).await?;
    let Addresses { host, sandbox, prefix_length } = addresses;
    let added = inside.address().add(device, IpAddr::V4(sandbox), prefix_length).execute().await;
    added.with_context(|| format!("could not add the address {sandbox}"))?;
    up(inside, device).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(host).build();
    inside.route().add(default).execute().await.context("could not add the sandbox's default route")
}

/// Removes a veth pair, if the device of this name has this link-layer address; another is not ours, and left alone.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_veth(name: &str, address: [u8; 6]) -> Result<()> {
    blocking::wait("netlink", async || {
        let handle = connect()?;
        let Some(link) = find_link(&handle, name).await? else {
            return Ok(());
        };
        let ours = LinkAttribute::Address(address.to_vec());
        if !name.starts_with(INTERFACE_PREFIX) || !link.attributes.contains(&ours) {
            tracing::info!("{name} is not the device that sandscope made: left alone");
            return Ok(());
        }
        let removed = handle.link().del(link.header.index).execute().await;
        removed.with_context(|| format!("could not remove the device {name}"))
    })
}

/// A netlink socket in the network namespace of the calling thread.
fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("could not open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

fn own_namespace() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    Ok(File::open(path).with_context(|| format!("could not open {path}"))?.into())
}

/// Moves the calling thread into a new network namespace and mounts that on a file in the directory.
fn new_namespace(directory: &Path) -> Result<(OwnedFd, PathBuf)> {
    // SAFETY: `unshare` is unsafe because of file descriptors and memory that may stop to be shared; a network namespace
    // concerns neither. It is needed because there is no other way to make one.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context(
        "could not make a network namespace: that needs CAP_SYS_ADMIN; run as root, or use the host's network",
    )?;
    let path = directory.join(NAMESPACE_FILE);
    File::create(&path).with_context(|| format!("could not make {}", path.display()))?;
    mount_bind("/proc/thread-self/ns/net", &path)
        .with_context(|| format!("could not mount a network namespace on {}", path.display()))?;
    Ok((own_namespace()?, path))
}

/// Switches IPv6 off on a device of the calling thread's network namespace, or on `all`, or by `default`.
fn disable_ipv6(device: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    match fs::write(&path, "1") {
        // A kernel without IPv6, or booted without.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("could not write {path}")),
    }
}

/// An address that is locally administered and of one device, else random.
fn random_link_address() -> [u8; 6] {
    let mut address: [u8; 6] = rand::random();
    address[0] = address[0] & 0xfc | 0x02;
    address
}

async fn find_link(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not look for the device {name}")),
    }
}

async fn up(handle: &Handle, index: u32) -> Result<()> {
    let set = handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await;
    set.with_context(|| format!("could not set the device {index} up"))
}

/// Waits until the device transmits: a frame sent earlier would be dropped, and its repetition is a second later.
async fn await_operational(handle: &Handle, name: &str) -> Result<()> {
    let deadline = Instant::now() + OPERATIONAL_LIMIT;
    loop {
        let link = find_link(handle, name).await?.with_context(|| format!("the device {name} is gone"))?;
        if link.attributes.contains(&LinkAttribute::OperState(State::Up)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the device {name} is not operational after {} s", OPERATIONAL_LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Gives the device an address in a subnet that nothing else on the host uses.
async fn take_subnet(handle: &Handle, index: u32) -> Result<Addresses> {
    for _ in 0..ATTEMPTS {
        let addresses = Subnet::choose(&occupied(handle, None).await?, rand::random())?.addresses();
        if try_take(handle, index, addresses).await? {
            return Ok(addresses);
        }
    }
    bail!(
        "other programs took {ATTEMPTS} subnets just as they were chosen: how many agents start sandboxes on this host?"
    )
}

/// Gives the device the address that a guest's image takes for its gateway's.
async fn take_fixed(handle: &Handle, index: u32, addresses: Addresses) -> Result<Addresses> {
    let Addresses { host, sandbox, prefix_length } = addresses;
    // Looked at before as well: an address that something else has must not be added, not even for a moment.
    let is_free = !overlaps(&occupied(handle, None).await?, Prefix::new(host, prefix_length));
    if !(is_free && try_take(handle, index, addresses).await?) {
        bail!(
            "the guest's image has the address {sandbox} and the gateway {host}, but something on this host uses addresses in \
             {host}/{prefix_length}: `ip route show table all` shows what; build the image with others"
        );
    }
    Ok(addresses)
}

/// Gives the device an address, unless something else on the host uses the subnet; tells whether it has it.
async fn try_take(handle: &Handle, index: u32, addresses: Addresses) -> Result<bool> {
    let Addresses { host, prefix_length, .. } = addresses;
    let address = handle.address();
    let added = address.add(index, IpAddr::V4(host), prefix_length).execute().await;
    added.with_context(|| format!("could not add the address {host}"))?;
    // Another agent may have chosen the same at the same time. Of two who add first and look then, at least one sees the
    // other; who sees the other makes way.
    if !overlaps(&occupied(handle, Some(index)).await?, Prefix::new(host, prefix_length)) {
        return Ok(true);
    }
    let mut ours = address.get().set_link_index_filter(index).execute();
    while let Some(message) = ours.try_next().await.context("could not list the host's addresses")? {
        handle.address().del(message).execute().await.context("could not give an address back")?;
    }
    Ok(false)
}

/// All that the host's addresses and routes cover, except those of one device.
async fn occupied(handle: &Handle, except: Option<u32>) -> Result<Vec<Prefix>> {
    let mut prefixes = Vec::new();
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.context("could not list the host's addresses")? {
        if Some(message.header.index) == except {
            continue;
        }
        // With a peer, the address is the peer's and the local one is the host's.
        prefixes.extend(message.attributes.iter().filter_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) | AddressAttribute::Address(IpAddr::V4(address)) => {
                Some(Prefix::new(*address, message.header.prefix_len))
            }
            _ => None,
        }));
    }
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(message) = routes.try_next().await.context("could not list the host's routes")? {
        if except.is_some_and(|index| message.attributes.contains(&RouteAttribute::Oif(index))) {
            continue;
        }
        prefixes.extend(message.attributes.iter().filter_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                Some(Prefix::new(*address, message.header.destination_prefix_length))
            }
            _ => None,
        }));
    }
    Ok(prefixes)
}

/// Fails when somebody listens on the port, with who it is where that can be found out.
fn ensure_free(port: u16) -> Result<()> {
    match TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "TCP port {port} of the host, which the workload needs, is in use by {}: stop that, choose another port, or give \
             the sandbox a network of its own",
            listener(port).unwrap_or_else(|| "a process that can't be seen from here".into())
        ),
        Err(error) => {
            Err(error).with_context(|| format!("the workload could not listen on TCP port {port} of the host"))
        }
    }
}

/// Name and number of the process that listens on the port.
fn listener(port: u16) -> Option<String> {
    use procfs::net::{TcpState, tcp, tcp6};
    use procfs::process::{FDTarget, all_processes};
    let sockets = tcp().ok()?.into_iter().chain(tcp6().unwrap_or_default());
    let inodes: Vec<u64> = sockets
        .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port)
        .map(|socket| socket.inode)
        .collect();
    let process = all_processes().ok()?.flatten().find(|process| {
        process.fd().is_ok_and(|descriptors| {
            descriptors.flatten().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
        })
    })?;
    Some(format!("`{}` (process {})", process.stat().ok()?.comm, process.pid))
}
