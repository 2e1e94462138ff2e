//! The network of an instance: a namespace of its own behind a veth pair, or the host's.
//!
//! Everything is made before the timed window, and silent: no IPv6 (whose multicast listener reports and router solicitations
//! would be the first frames on the device), explicit link-layer addresses (so that udev has nothing to change), and both ends
//! operational before the sandbox starts. So the first frame that a probe sees is the sandbox's own.

mod subnet;

use super::{
    Specification,
    journal::{Journal, Resource},
};
use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::AddressAttribute,
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, State},
    route::{RouteAddress, RouteAttribute},
};
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
use subnet::{PREFIX_LENGTH, Prefix, Subnet};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
    /// A file that names the namespace.
    pub namespace_path: PathBuf,
    /// The namespace.
    pub namespace: OwnedFd,
}

impl Network {
    /// Makes the network that the specification asks for, having written down in the journal what will have to be undone.
    ///
    /// # Errors
    /// When the kernel refuses something, when no addresses are left, or when the workload's port of the host is taken.
    pub fn prepare(specification: &Specification, journal: &mut Journal) -> Result<Self> {
        match specification.network {
            Mode::Private => {
                let (label, directory) = (&specification.label, &specification.directory);
                let made = on_a_thread(async || Private::create(label, directory, journal).await);
                made.context("could not make the instance's network").map(Self::Private)
            }
            Mode::Host => ensure_free(specification.workload.port).map(|()| Self::Host),
        }
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

impl Private {
    /// Must be called on a thread that ends afterwards: its network namespace may change.
    async fn create(label: &str, directory: &Path, journal: &mut Journal) -> Result<Self> {
        let host = connect()?;
        let host_namespace = own_namespace()?;
        let (namespace, namespace_path) = new_namespace(directory)?;
        disable_ipv6("all")?;
        disable_ipv6("default")?;
        let inside = connect()?;
        move_into_link_name_space(host_namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("could not go back to the host's network namespace")?;

        let host_interface = format!("{INTERFACE_PREFIX}{label}");
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
        let subnet = take_subnet(&host, host_index).await?;
        up(&host, host_index).await?;

        let loopback = find_link(&inside, "lo").await?.context("a new network namespace has no loopback device")?;
        up(&inside, loopback.header.index).await?;
        let inner = find_link(&inside, INNER_INTERFACE).await?.context("the other end of a veth pair is gone")?;
        let inner_index = inner.header.index;
        let added = inside.address().add(inner_index, IpAddr::V4(subnet.sandbox()), PREFIX_LENGTH).execute().await;
        added.with_context(|| format!("could not add the address {}", subnet.sandbox()))?;
        up(&inside, inner_index).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(subnet.host()).build();
        inside.route().add(default).execute().await.context("could not add the sandbox's default route")?;

        await_operational(&host, &host_interface).await?;
        await_operational(&inside, INNER_INTERFACE).await?;
        Ok(Self {
            host_interface,
            host_index,
            host_address: subnet.host(),
            sandbox_address: subnet.sandbox(),
            namespace_path,
            namespace,
        })
    }
}

/// Removes a veth pair, if the device of this name has this link-layer address; another is not ours, and left alone.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_veth(name: &str, address: [u8; 6]) -> Result<()> {
    on_a_thread(async || {
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

/// Runs the future on a thread and a runtime of their own: callers may be inside a runtime, which can't wait for another, and
/// the future may change the namespaces of its thread.
fn on_a_thread<T: Send>(work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("could not start a runtime for netlink")?.block_on(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netlink".into()).spawn_scoped(scope, run);
        let result = thread.context("could not start a thread for netlink")?.join();
        result.unwrap_or_else(|_| Err(anyhow!("the thread that configures the network panicked")))
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
async fn take_subnet(handle: &Handle, index: u32) -> Result<Subnet> {
    for _ in 0..ATTEMPTS {
        let subnet = Subnet::choose(&occupied(handle, None).await?, rand::random())?;
        let address = handle.address();
        let added = address.add(index, IpAddr::V4(subnet.host()), PREFIX_LENGTH).execute().await;
        added.with_context(|| format!("could not add the address {}", subnet.host()))?;
        // Another agent may have chosen the same at the same time. Of two who add first and look then, at least one sees the
        // other; who sees the other makes way.
        if !occupied(handle, Some(index)).await?.iter().any(|prefix| prefix.overlaps(subnet.prefix())) {
            return Ok(subnet);
        }
        let mut ours = address.get().set_link_index_filter(index).execute();
        while let Some(message) = ours.try_next().await.context("could not list the host's addresses")? {
            handle.address().del(message).execute().await.context("could not give an address back")?;
        }
    }
    bail!(
        "other programs took {ATTEMPTS} subnets just as they were chosen: how many agents start sandboxes on this host?"
    )
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
