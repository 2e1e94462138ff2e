//! What a long system call of a thread in scope was about: the file, socket or path.
//!
//! Looked up when the call returns, and only for calls that took long enough to matter: it costs some microseconds, and most calls
//! are over in less. The dentries of a file are followed upwards, inside of its file system.

use crate::{file, ring::send};
use aya_ebpf::{
    helpers::{bpf_probe_read_kernel_str_bytes, bpf_probe_read_user_str_bytes},
    macros::map,
    maps::{Array, PerCpuArray},
};
use sandscope_ebpf::{
    event::{Header, Kind, Object, ObjectKind, PART_BYTES, PARTS},
    kernel::{offsets, read_field},
    map::{Membership, Subject, Task},
};

/// What each system call is about, by its number: a [`Subject`].
#[map]
static CALL_SUBJECTS: Array<u32> = Array::with_max_entries(512, 0);

/// An [`Object`] is too large for much else to be on the stack with it.
#[map]
static OBJECT_SCRATCH: PerCpuArray<Object> = PerCpuArray::with_max_entries(1, 0);

// Offsets, and from how many nanoseconds on a call is long. Those of sockets are 0 where the kernel has no such sockets.
offsets! {
    OBJECT_LEAST_NS
    OBJECT_FILE_DENTRY OBJECT_FILE_INODE OBJECT_FILE_PRIVATE OBJECT_INODE_MODE OBJECT_INODE_SB OBJECT_SB_MAGIC
    OBJECT_DENTRY_NAME OBJECT_DENTRY_PARENT
    OBJECT_SOCKET_SOCK OBJECT_SOCK_FAMILY OBJECT_SOCK_PROTOCOL OBJECT_SOCK_NUM OBJECT_SOCK_DPORT
    OBJECT_UNIX_ADDRESS OBJECT_UNIX_PEER OBJECT_UNIX_NAME
}

/// Types of a file in the kernel's ABI.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Address families of the kernel's ABI.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Tells what the call was about that a thread returns from, if that was long.
#[inline(always)]
pub fn tell(task: &Task, at_ns: u64, tid: u32, membership: Membership) {
    if at_ns.saturating_sub(task.syscall_since_ns) >= u64::from(OBJECT_LEAST_NS.load()) {
        tell_of_long(task, at_ns, tid, membership);
    }
}

#[inline(never)]
fn tell_of_long(task: &Task, at_ns: u64, tid: u32, membership: Membership) -> Option<()> {
    let subject = *CALL_SUBJECTS.get(task.syscall as u32)?;
    if OBJECT_LEAST_NS.load() == 0 || subject == Subject::None as u32 {
        return None;
    }
    let scratch = OBJECT_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the map gives a valid pointer to this CPU's element, and this is its only user; it does not nest.
    let object = unsafe { &mut *scratch };
    object.header = Header { at_ns, tid, scope: membership.scope(), kind: Kind::Object as u8, flags: 0 };
    object.since_ns = task.syscall_since_ns;
    (object.magic, object.family, object.protocol, object.local_port, object.remote_port) = (0, 0, 0, 0, 0);
    object.name = [[0; PART_BYTES]; PARTS];
    let [first, second] = task.syscall_args;
    if subject == Subject::Descriptor as u32 {
        opened(object, first as u32)?;
    } else {
        object.header.flags = ObjectKind::Path as u8;
        let path = if subject == Subject::FirstPath as u32 { first } else { second };
        // SAFETY: the helper reads user memory at any address and fails where there is none.
        unsafe { bpf_probe_read_user_str_bytes(path as *const u8, object.name.as_flattened_mut()) }.ok()?;
    }
    send(Kind::Object, object.header.scope, *object);
    Some(())
}

/// What a descriptor stands for.
#[inline(always)]
fn opened(object: &mut Object, descriptor: u32) -> Option<()> {
    let file = file::of_descriptor(descriptor)?;
    let inode = read_field::<u64>(file, &OBJECT_FILE_INODE)? as *const u8;
    if read_field::<u16>(inode, &OBJECT_INODE_MODE)? & S_IFMT == S_IFSOCK {
        object.header.flags = ObjectKind::Socket as u8;
        return socket(object, read_field::<u64>(file, &OBJECT_FILE_PRIVATE)? as *const u8);
    }
    object.header.flags = ObjectKind::File as u8;
    let file_system = read_field::<u64>(inode, &OBJECT_INODE_SB)? as *const u8;
    object.magic = read_field(file_system, &OBJECT_SB_MAGIC)?;
    let mut dentry = read_field::<u64>(file, &OBJECT_FILE_DENTRY)?;
    for part in &mut object.name {
        let name = read_field::<u64>(dentry as *const u8, &OBJECT_DENTRY_NAME)?;
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, part) }.ok()?;
        let parent = read_field::<u64>(dentry as *const u8, &OBJECT_DENTRY_PARENT)?;
        if parent == dentry {
            break;
        }
        dentry = parent;
    }
    Some(())
}

#[inline(always)]
fn socket(object: &mut Object, socket: *const u8) -> Option<()> {
    let sock = read_field::<u64>(socket, &OBJECT_SOCKET_SOCK)? as *const u8;
    object.family = read_field(sock, &OBJECT_SOCK_FAMILY)?;
    object.protocol = read_field(sock, &OBJECT_SOCK_PROTOCOL)?;
    if object.family == AF_INET || object.family == AF_INET6 {
        object.local_port = read_field(sock, &OBJECT_SOCK_NUM)?;
        object.remote_port = read_field(sock, &OBJECT_SOCK_DPORT)?;
    } else if object.family == AF_UNIX && OBJECT_UNIX_ADDRESS.load() != 0 {
        let peer = read_field::<u64>(sock, &OBJECT_UNIX_PEER)? as *const u8;
        if unix_name(object, sock).is_none() {
            unix_name(object, peer);
        }
    }
    Some(())
}

/// Name of a Unix socket; nothing where it has none.
#[inline(always)]
fn unix_name(object: &mut Object, sock: *const u8) -> Option<()> {
    if sock.is_null() {
        return None;
    }
    let address = read_field::<u64>(sock, &OBJECT_UNIX_ADDRESS)? as *const u8;
    if address.is_null() {
        return None;
    }
    let name = address.wrapping_add(OBJECT_UNIX_NAME.load() as usize);
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    unsafe { bpf_probe_read_kernel_str_bytes(name, object.name.as_flattened_mut()) }.ok()?;
    Some(())
}
