//! Sockets that begin to listen, and the frames on the sandbox's own device.
//!
//! Frames are seen by TC programs on the host's end of the sandbox's device, never by a tracepoint that the whole host's
//! traffic would pay for.

use crate::{
    ring::{current_tid, header, now_ns, send},
    scope,
};
use aya_ebpf::{
    EbpfContext, Global,
    bindings::TC_ACT_UNSPEC,
    macros::{classifier, map, tracepoint},
    maps::PerCpuHashMap,
    programs::{TcContext, TracePointContext},
};
use sandscope_ebpf::{
    event::{Direction, Frame, Header, Kind, Listen},
    map::NetDevice,
};

/// Frames per direction and CPU that become records; the rest is only counted.
const RECORDED_FRAMES: u64 = 8;
/// `TCP_LISTEN` of the kernel's ABI.
const TCP_LISTEN: i32 = 10;

#[map]
static NET_DEVICES: PerCpuHashMap<u32, NetDevice> = PerCpuHashMap::with_max_entries(4096, 0);

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
    if membership.is_recorded() {
        let record = Listen {
            header: header(Kind::Listen, tid, membership),
            port: read_u16(&SOCK_SPORT),
            family: read_u16(&SOCK_FAMILY),
            protocol: read_u16(&SOCK_PROTOCOL),
            padding: 0,
        };
        send(Kind::Listen, record);
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
    if device.frames[way] > RECORDED_FRAMES {
        return;
    }
    let header = Header {
        at_ns: now_ns(),
        tid: context.pid(),
        scope: device.scope,
        kind: Kind::Frame as u8,
        flags: direction as u8,
    };
    send(
        Kind::Frame,
        Frame {
            header,
            ifindex: buffer.ifindex,
            bytes: buffer.len,
            ethertype: u16::from_be(buffer.protocol as u16),
            padding: [0; 3],
        },
    );
}
