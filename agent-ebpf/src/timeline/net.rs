//! Sockets that begin to listen, and the frames on the sandbox's own device.
//!
//! Frames are seen by TC programs on the host's end of the sandbox's device, never by a tracepoint that the whole host's
//! traffic would pay for.

use crate::{
    pickup,
    ring::{header, send},
};
use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, TC_ACT_UNSPEC},
    helpers::generated::bpf_get_current_task,
    macros::{classifier, map, tracepoint},
    maps::{LruHashMap, PerCpuHashMap},
    programs::{TcContext, TracePointContext},
};
use sandscope_ebpf::{
    event::{Direction, Frame, Header, Kind, Listen},
    kernel::{current_tid, now_ns, scope},
    map::{Flow, FlowKey, NetDevice},
};

/// Frames per direction and CPU that become records; the rest is only counted.
const RECORDED_FRAMES: u64 = 8;
/// `TCP_LISTEN` of the kernel's ABI.
const TCP_LISTEN: i32 = 10;

/// Elements are large, and user space alone adds and removes them: memory is taken for those that are there.
#[map]
static NET_DEVICES: PerCpuHashMap<u32, NetDevice> = PerCpuHashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Connections that are over age out.
#[map]
static NET_FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(16_384, 0);

/// Ethernet type, protocol and flag of the respective standards.
const ETHERNET_IPV4: u16 = 0x0800;
const IP_TCP: u8 = 6;
const TCP_SYN: u16 = 0x02;
/// Length of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

#[unsafe(no_mangle)]
static SOCK_NEW_STATE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_SPORT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_FAMILY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_PROTOCOL: Global<u32> = Global::new(0);

#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub fn inet_sock_set_state(context: TracePointContext) -> u32 {
    let read_u16 = |offset: &Global<u32>| {
        // SAFETY: the helper reads the record at any offset and fails outside of memory.
        unsafe { context.read_at::<u16>(offset.load() as usize) }.unwrap_or(0)
    };
    // SAFETY: as above.
    let state: i32 = unsafe { context.read_at(SOCK_NEW_STATE.load() as usize) }.unwrap_or(0);
    if state != TCP_LISTEN {
        return 1;
    }
    let tid = current_tid(&context);
    let membership = scope::of(tid);
    // Those that only work for a sandbox listen for themselves, as the client does for the callback.
    if membership.is_recorded() && !membership.is_bystander() {
        let record = Listen {
            header: header(Kind::Listen, tid, membership),
            port: read_u16(&SOCK_SPORT),
            family: read_u16(&SOCK_FAMILY),
            protocol: read_u16(&SOCK_PROTOCOL),
            padding: 0,
        };
        send(Kind::Listen, membership.scope(), record);
    }
    1
}

/// On the host's end, what comes in has left the sandbox.
#[classifier]
pub fn frame_from_sandbox(context: TcContext) -> i32 {
    frame(&context, Direction::FromSandbox);
    TC_ACT_UNSPEC
}

/// On the host's end, what goes out enters the sandbox.
#[classifier]
pub fn frame_to_sandbox(context: TcContext) -> i32 {
    frame(&context, Direction::ToSandbox);
    TC_ACT_UNSPEC
}

/// A TCP segment.
struct Segment {
    key: FlowKey,
    sequence: u32,
    /// Of its data.
    bytes: u32,
    opens: bool,
}

/// Field of a frame, in the byte order of the network.
#[inline(always)]
fn load<T>(context: &TcContext, offset: usize) -> Option<T> {
    context.load(offset).ok()
}

/// The TCP segment in an IPv4 frame, if there is one.
#[inline(always)]
fn segment(context: &TcContext, ifindex: u32, frame_bytes: u32, direction: Direction) -> Option<Segment> {
    let ip = ETHERNET_BYTES;
    let version: u8 = load(context, ip)?;
    let protocol: u8 = load(context, ip + 9)?;
    let fragment = u16::from_be(load(context, ip + 6)?) & 0x1fff;
    if protocol != IP_TCP || fragment != 0 {
        return None;
    }
    let ip_bytes = usize::from(version & 0xf) * 4;
    let tcp = ip + ip_bytes;
    let (from, to): (u16, u16) = (load(context, tcp)?, load(context, tcp + 2)?);
    let sequence = u32::from_be(load(context, tcp + 4)?);
    let control = u16::from_be(load(context, tcp + 12)?);
    let tcp_bytes = u32::from(control >> 12) * 4;
    // The packet's own length where it has one: a short frame may be padded, and one that is to be segmented can be too long
    // for the field.
    let packet_bytes = match u32::from(u16::from_be(load(context, ip + 2)?)) {
        0 => frame_bytes.saturating_sub(ip as u32),
        bytes => bytes,
    };
    let (host_port, sandbox_port) = if matches!(direction, Direction::ToSandbox) { (from, to) } else { (to, from) };
    Some(Segment {
        key: FlowKey { ifindex, host_port, sandbox_port },
        sequence,
        bytes: packet_bytes.saturating_sub(ip_bytes as u32 + tcp_bytes),
        opens: control & TCP_SYN != 0,
    })
}

/// Follows a connection: data that passes again, and the time from data into the sandbox to the next data out of it.
#[inline(always)]
fn follow(device: &mut NetDevice, segment: &Segment, direction: Direction) {
    if segment.opens {
        // The numbers of an earlier connection between the same ports mean nothing any more.
        let _ = NET_FLOWS.remove(segment.key);
        return;
    }
    if segment.bytes == 0 {
        return;
    }
    let flow = match NET_FLOWS.get_ptr_mut(segment.key) {
        Some(flow) => flow,
        None => {
            let fresh = Flow { asked_ns: 0, next: [0; 2], known: [0; 2] };
            let _ = NET_FLOWS.insert(segment.key, fresh, u64::from(BPF_ANY));
            let Some(flow) = NET_FLOWS.get_ptr_mut(segment.key) else { return };
            flow
        }
    };
    // SAFETY: the map gives a valid pointer. Each direction has fields of its own, and a request and its answer follow each
    // other.
    let flow = unsafe { &mut *flow };
    let way = direction as usize;
    let end = segment.sequence.wrapping_add(segment.bytes);
    let again = flow.known[way] != 0 && (segment.sequence.wrapping_sub(flow.next[way]) as i32) < 0;
    if again {
        device.retransmits[way] += 1;
    }
    if flow.known[way] == 0 || (end.wrapping_sub(flow.next[way]) as i32) > 0 {
        flow.next[way] = end;
        flow.known[way] = 1;
    }
    match direction {
        Direction::ToSandbox => {
            if flow.asked_ns == 0 && !again {
                flow.asked_ns = now_ns();
            }
        }
        Direction::FromSandbox => {
            if flow.asked_ns != 0 {
                let time_ns = now_ns().saturating_sub(flow.asked_ns);
                device.answers.record(time_ns);
                device.answers_ns += time_ns;
                flow.asked_ns = 0;
            }
        }
    }
}

#[inline(always)]
fn frame(context: &TcContext, direction: Direction) {
    // SAFETY: the kernel gives a valid `__sk_buff`.
    let buffer = unsafe { &*context.skb.skb };
    let Some(device) = NET_DEVICES.get_ptr_mut(buffer.ifindex) else {
        return;
    };
    // SAFETY: the map gives a valid pointer to this CPU's element; TC programs run with softirqs off, so they do not nest.
    let device = unsafe { &mut *device };
    let way = direction as usize;
    device.frames[way] += 1;
    device.bytes[way] += u64::from(buffer.len);
    device.sizes[way].record(u64::from(buffer.len));
    if matches!(direction, Direction::ToSandbox) {
        pickup::came(device.scope);
    }
    if u16::from_be(buffer.protocol as u16) == ETHERNET_IPV4
        && let Some(segment) = segment(context, buffer.ifindex, buffer.len, direction)
    {
        follow(device, &segment, direction);
    }
    if device.frames[way] > RECORDED_FRAMES {
        return;
    }
    // TC programs may not ask for the thread number on kernels before 6.10, but for the task on all.
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let header = Header {
        at_ns: now_ns(),
        tid: scope::tid_of(task),
        scope: device.scope,
        kind: Kind::Frame as u8,
        flags: direction as u8,
    };
    send(
        Kind::Frame,
        header.scope,
        Frame {
            header,
            ifindex: buffer.ifindex,
            bytes: buffer.len,
            ethertype: u16::from_be(buffer.protocol as u16),
            padding: [0; 3],
        },
    );
}
