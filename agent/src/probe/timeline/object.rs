//! What long system calls of threads in scope were about: files, sockets and paths, as text.

use super::file;
use crate::probe::{Definition, Global};
use anyhow::{Context, Result};
use aya::{Ebpf, maps::Array};
use sandscope_ebpf::{
    event::{Object, ObjectKind},
    map::Subject::{self, Descriptor, FirstPath, SecondPath},
};
use syscalls::Sysno;

/// A call is long from here on. Below, looking its object up would take a notable part of the time that it takes itself, and of most
/// starts such a call is less than a hundredth.
const LEAST_NS: u32 = 50_000;

/// System calls by what they are about. The name of each is looked up, since not every architecture has all of them.
const SUBJECTS: [(Subject, &[&str]); 3] = [
    (
        Descriptor,
        &[
            "read",
            "pread64",
            "readv",
            "preadv",
            "preadv2",
            "write",
            "pwrite64",
            "writev",
            "pwritev",
            "pwritev2",
            "ioctl",
            "fsync",
            "fdatasync",
            "ftruncate",
            "fallocate",
            "syncfs",
            "sync_file_range",
            "fadvise64",
            "readahead",
            "sendto",
            "recvfrom",
            "sendmsg",
            "recvmsg",
            "sendmmsg",
            "recvmmsg",
            "connect",
            "accept",
            "accept4",
            "bind",
            "listen",
            "shutdown",
            "fchdir",
            "getdents64",
            "fcntl",
            "flock",
            "fstat",
            "lseek",
            "setns",
            "sendfile",
            "splice",
            "tee",
            "vmsplice",
            "finit_module",
            "fsconfig",
            "fchmod",
            "fchown",
            "fsetxattr",
            "fgetxattr",
        ],
    ),
    (
        FirstPath,
        &[
            "open",
            "creat",
            "stat",
            "lstat",
            "access",
            "mkdir",
            "rmdir",
            "unlink",
            "rename",
            "chdir",
            "chroot",
            "umount2",
            "pivot_root",
            "readlink",
            "chmod",
            "chown",
            "lchown",
            "truncate",
            "statfs",
            "mknod",
            "setxattr",
            "getxattr",
            "lgetxattr",
            "swapon",
        ],
    ),
    (
        SecondPath,
        &[
            "openat",
            "openat2",
            "mkdirat",
            "unlinkat",
            "renameat",
            "renameat2",
            "newfstatat",
            "statx",
            "faccessat",
            "faccessat2",
            "readlinkat",
            "fchmodat",
            "fchownat",
            "mknodat",
            "mount",
            "open_tree",
            "move_mount",
            "utimensat",
            "name_to_handle_at",
            "symlink",
            "link",
            "inotify_add_watch",
        ],
    ),
];

pub(super) const PROBE: Definition = Definition {
    name: "object",
    required: false,
    hooks: |_| &[],
    globals: |kernel| {
        let types = kernel.types;
        let nested = |outer: (&str, &str), inner: (&str, &str)| -> Result<u32> {
            Ok(types.offset(outer.0, outer.1)? + types.offset(inner.0, inner.1)?)
        };
        let mut globals = file::descriptors(types)?;
        globals.extend([
            ("OBJECT_LEAST_NS", LEAST_NS),
            ("OBJECT_FILE_DENTRY", nested(("file", "f_path"), ("path", "dentry"))?),
            ("OBJECT_FILE_INODE", types.offset("file", "f_inode")?),
            ("OBJECT_FILE_PRIVATE", types.offset("file", "private_data")?),
            ("OBJECT_INODE_MODE", types.offset("inode", "i_mode")?),
            ("OBJECT_INODE_SB", types.offset("inode", "i_sb")?),
            ("OBJECT_SB_MAGIC", types.offset("super_block", "s_magic")?),
            ("OBJECT_DENTRY_NAME", nested(("dentry", "d_name"), ("qstr", "name"))?),
            ("OBJECT_DENTRY_PARENT", types.offset("dentry", "d_parent")?),
            ("OBJECT_SOCKET_SOCK", types.offset("socket", "sk")?),
            ("OBJECT_SOCK_FAMILY", nested(("sock", "__sk_common"), ("sock_common", "skc_family"))?),
            ("OBJECT_SOCK_PROTOCOL", types.offset("sock", "sk_protocol")?),
            ("OBJECT_SOCK_NUM", nested(("sock", "__sk_common"), ("sock_common", "skc_num"))?),
            ("OBJECT_SOCK_DPORT", nested(("sock", "__sk_common"), ("sock_common", "skc_dport"))?),
        ]);
        // Unix sockets may be a module, whose types are not among the kernel's own.
        let unix = || -> Result<[Global; 3]> {
            /// Where `struct sockaddr_un` has its path, after the family: the kernel's ABI.
            const PATH: u32 = 2;
            Ok([
                ("OBJECT_UNIX_ADDRESS", types.offset("unix_sock", "addr")?),
                ("OBJECT_UNIX_PEER", types.offset("unix_sock", "peer")?),
                ("OBJECT_UNIX_NAME", types.offset("unix_address", "name")? + PATH),
            ])
        };
        globals.extend(unix().into_iter().flatten());
        Ok(globals)
    },
};

/// Tells the programs what each system call is about.
pub(super) fn fill(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("CALL_SUBJECTS").context("the BPF object has no map CALL_SUBJECTS")?;
    let mut subjects: Array<_, u32> = Array::try_from(map)?;
    for (subject, calls) in SUBJECTS {
        for number in calls.iter().filter_map(|name| name.parse::<Sysno>().ok()).map(|call| call.id().cast_unsigned()) {
            if number < subjects.len() {
                subjects.set(number, subject as u32, 0)?;
            }
        }
    }
    Ok(())
}

/// Magic numbers of file systems (`include/uapi/linux/magic.h`) whose files are told apart from those on disks.
const CGROUP: u64 = 0x0027_e0eb;
const CGROUP2: u64 = 0x6367_7270;
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const PIPES: u64 = 0x5049_5045;
const ANONYMOUS: u64 = 0x0904_1934;
const NAMESPACES: u64 = 0x6e73_6673;

/// What a call was about, in words: `/etc/passwd`, `cgroup:/a/cgroup.procs`, `pipe`, `socket unix /run/x.sock`. A path of which only
/// the end is known begins with `…`. Made harmless for a terminal, since a sandbox chooses its names.
pub fn text(object: &Object) -> Option<String> {
    match object.header.flags {
        flags if flags == ObjectKind::Socket as u8 => Some(socket(object)),
        flags if flags == ObjectKind::Path as u8 => {
            Some(crate::printable::name(object.name.as_flattened())).filter(|text| !text.is_empty())
        }
        _ => file_text(object),
    }
}

fn file_text(object: &Object) -> Option<String> {
    let parts: Vec<String> =
        object.name.iter().map(|part| crate::printable::name(part)).take_while(|part| !part.is_empty()).collect();
    match object.magic {
        PIPES => return Some("pipe".to_owned()),
        // Their names are of the form `[eventfd]`.
        ANONYMOUS => return parts.first().map(|name| name.trim_matches(['[', ']']).to_owned()),
        NAMESPACES => return Some("namespace".to_owned()),
        _ if parts.is_empty() => return None,
        _ => {}
    }
    let file_system = match object.magic {
        CGROUP | CGROUP2 => "cgroup:",
        PROC => "proc:",
        SYSFS => "sysfs:",
        _ => "",
    };
    // The root of a file system is called `/`.
    let is_whole = parts.last().is_some_and(|part| part == "/");
    let inside: Vec<&str> = parts.iter().rev().map(String::as_str).filter(|part| *part != "/").collect();
    Some(format!("{file_system}{}/{}", if is_whole { "" } else { "…" }, inside.join("/")))
}

fn socket(object: &Object) -> String {
    const AF_UNIX: u16 = 1;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    const AF_NETLINK: u16 = 16;
    const AF_PACKET: u16 = 17;
    const AF_VSOCK: u16 = 40;
    const TCP: u16 = 6;
    const UDP: u16 = 17;
    match object.family {
        AF_UNIX => {
            let name = object.name.as_flattened();
            // A name that begins with a NUL is of the abstract namespace.
            let path = crate::printable::name(name);
            if path.is_empty() { "socket unix".to_owned() } else { format!("socket unix {path}") }
        }
        AF_INET | AF_INET6 => {
            let protocol = match object.protocol {
                TCP => "tcp".to_owned(),
                UDP => "udp".to_owned(),
                other => format!("protocol {other}"),
            };
            let (local, remote) = (object.local_port, u16::from_be(object.remote_port));
            format!("socket {protocol} :{local} to :{remote}")
        }
        AF_NETLINK => {
            // `include/uapi/linux/netlink.h`.
            let protocol = match object.protocol {
                0 => "route".to_owned(),
                9 => "audit".to_owned(),
                12 => "netfilter".to_owned(),
                15 => "kobject_uevent".to_owned(),
                16 => "generic".to_owned(),
                other => other.to_string(),
            };
            format!("socket netlink {protocol}")
        }
        AF_PACKET => "socket packet".to_owned(),
        AF_VSOCK => "socket vsock".to_owned(),
        family => format!("socket of family {family}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn named(magic: u64, parts: &[&str]) -> Object {
        let mut object = Object { magic, ..Object::zeroed() };
        for (place, part) in object.name.iter_mut().zip(parts) {
            place[..part.len()].copy_from_slice(part.as_bytes());
        }
        object
    }

    #[test]
    fn files_have_the_path_inside_of_their_file_system() {
        let text = |magic, parts: &[&str]| text(&named(magic, parts)).unwrap();
        assert_eq!(text(CGROUP2, &["cgroup.procs", "one", "sandscope", "/"]), "cgroup:/sandscope/one/cgroup.procs");
        assert_eq!(text(0xef53, &["e", "d", "c", "b", "a"]), "…/a/b/c/d/e");
        assert_eq!(text(PIPES, &[""]), "pipe");
        assert_eq!(text(ANONYMOUS, &["[eventfd]", "/"]), "eventfd");
    }

    #[test]
    fn sockets_have_their_family_and_what_names_them() {
        let socket = |family, protocol, name: &str| {
            let header = sandscope_ebpf::event::Header { flags: ObjectKind::Socket as u8, ..Zeroable::zeroed() };
            let object =
                Object { header, family, protocol, local_port: 80, remote_port: 443_u16.to_be(), ..named(0, &[name]) };
            text(&object).unwrap()
        };
        assert_eq!(socket(1, 0, "/run/docker.sock"), "socket unix /run/docker.sock");
        assert_eq!(socket(2, 6, ""), "socket tcp :80 to :443");
        assert_eq!(socket(16, 0, ""), "socket netlink route");
    }

    #[test]
    fn every_call_is_known_on_some_architecture_and_has_one_subject() {
        let names: Vec<&str> = SUBJECTS.iter().flat_map(|(_, calls)| calls.iter().copied()).collect();
        let known = names.iter().filter(|name| name.parse::<Sysno>().is_ok()).count();
        assert!(known * 10 >= names.len() * 7, "{known} of {}", names.len());
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    }
}
