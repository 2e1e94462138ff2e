//! Files of threads in scope: what system calls read and write, and which pages had to come into the page cache for that.
//!
//! A page that a thread brings into the page cache while it reads is a miss (read-ahead included, which is the kernel's guess
//! that it will be read); one that it brings in while it writes is none. A read of a file that was opened with `O_DIRECT` goes past the
//! page cache: it neither hits nor misses; where a file system brings in pages for it nevertheless, these count as others'. Sums by file, per CPU; nothing is sent.

use crate::pickup;
use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    macros::{map, tracepoint},
    maps::PerCpuHashMap,
    programs::TracePointContext,
};
use sandscope_ebpf::{
    kernel::{current_tid, offsets, read_field, record_field, scope},
    map::{FileCounts, FileKey, FileUse, Membership, Task},
};

/// User space adds one element per sandbox for what finds no room.
#[map]
static FILES: PerCpuHashMap<FileKey, FileCounts> = PerCpuHashMap::with_max_entries(4096, 0);

// Offsets, and numbers of system calls plus one: 0 is one that this architecture does not have. `FILE_DIRECT` is `O_DIRECT`, whose bit
// depends on the architecture.
offsets! {
    FILE_TASK_FILES FILE_FILES_FDT FILE_FDT_FD FILE_FDT_MAX FILE_FILE_INODE FILE_INODE_MODE FILE_INODE_RDEV FILE_INODE_INO FILE_INODE_SB FILE_SB_DEV
    FILE_FILE_FLAGS FILE_DIRECT
    FILE_READ FILE_PREAD64 FILE_READV FILE_PREADV FILE_PREADV2
    FILE_WRITE FILE_PWRITE64 FILE_WRITEV FILE_PWRITEV FILE_PWRITEV2
    ADDED_INODE ADDED_DEV ADDED_ORDER
    FAULT_INODE FAULT_DEV
}

/// Type of a file and of a regular one, in the kernel's ABI.
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const S_IFCHR: u16 = 0o020_000;
/// `/dev/net/tun` as the kernel encodes device numbers: major 10 and minor 200 (`Documentation/admin-guide/devices.txt`).
const TUN: u32 = 10 << 20 | 200;

/// A thread enters a system call.
#[inline(always)]
pub fn begins(task: &mut Task, number: u32) {
    task.file_use = FileUse::None as u32;
    let is = |call: &Global<u32>| number.wrapping_add(1) == call.load();
    let reads = is(&FILE_READ) || is(&FILE_PREAD64) || is(&FILE_READV) || is(&FILE_PREADV) || is(&FILE_PREADV2);
    let writes = is(&FILE_WRITE) || is(&FILE_PWRITE64) || is(&FILE_WRITEV) || is(&FILE_PWRITEV) || is(&FILE_PWRITEV2);
    if !reads && !writes {
        return;
    }
    match opened(task.syscall_args[0] as u32) {
        Some(Opened::Regular { inode, device, is_direct }) => {
            task.inode = inode;
            task.device = device;
            task.file_use = match (reads, is_direct) {
                (true, true) => FileUse::DirectRead,
                (true, false) => FileUse::Read,
                (false, _) => FileUse::Write,
            } as u32;
        }
        Some(Opened::Tap) if reads => task.file_use = FileUse::Tap as u32,
        _ => {}
    }
}

/// The `struct file` of a descriptor of the running task.
#[inline(always)]
pub fn of_descriptor(descriptor: u32) -> Option<*const u8> {
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() } as *const u8;
    let files = read_field::<u64>(task, &FILE_TASK_FILES)? as *const u8;
    let table = read_field::<u64>(files, &FILE_FILES_FDT)? as *const u8;
    if descriptor >= read_field::<u32>(table, &FILE_FDT_MAX)? {
        return None;
    }
    let pointers = read_field::<u64>(table, &FILE_FDT_FD)?;
    let place = (pointers + u64::from(descriptor) * 8) as *const u64;
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    let file = unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(place) }.ok()?;
    (file != 0).then_some(file as *const u8)
}

/// What a descriptor stands for.
enum Opened {
    Regular { inode: u64, device: u32, is_direct: bool },
    Tap,
}

/// What a descriptor of the running task stands for, if it is a regular file or a tap device.
#[inline(always)]
fn opened(descriptor: u32) -> Option<Opened> {
    let file = of_descriptor(descriptor)?;
    let inode = read_field::<u64>(file, &FILE_FILE_INODE)? as *const u8;
    let kind = read_field::<u16>(inode, &FILE_INODE_MODE)? & S_IFMT;
    if kind == S_IFCHR && read_field::<u32>(inode, &FILE_INODE_RDEV)? == TUN {
        return Some(Opened::Tap);
    }
    if kind != S_IFREG {
        return None;
    }
    let file_system = read_field::<u64>(inode, &FILE_INODE_SB)? as *const u8;
    // Not from the call of `open`: `fcntl` sets and clears it later, and descriptors are inherited.
    let is_direct = read_field::<u32>(file, &FILE_FILE_FLAGS)? & FILE_DIRECT.load() != 0;
    let (inode, device) = (read_field(inode, &FILE_INODE_INO)?, read_field(file_system, &FILE_SB_DEV)?);
    Some(Opened::Regular { inode, device, is_direct })
}

/// A thread comes back from a system call; says what that did with a file, a [`FileUse`].
#[inline(always)]
pub fn ends(task: &mut Task, membership: Membership, result: i64) -> u8 {
    let used = task.file_use;
    task.file_use = FileUse::None as u32;
    // Those that only work for a sandbox have files of their own.
    if used == FileUse::None as u32 || membership.is_bystander() {
        return FileUse::None as u8;
    }
    if used == FileUse::Tap as u32 {
        pickup::read(membership, result);
    } else if result >= 0 {
        count(task, membership, used, result as u64);
    }
    if used == FileUse::DirectRead as u32 { FileUse::Read as u8 } else { used as u8 }
}

#[inline(always)]
fn count(task: &Task, membership: Membership, used: u32, bytes: u64) {
    let Some(counts) = counts(membership, task.inode, task.device) else { return };
    if used == FileUse::Write as u32 {
        counts.writes += 1;
        counts.written_bytes += bytes;
        return;
    }
    counts.reads += 1;
    counts.read_bytes += bytes;
    if used == FileUse::DirectRead as u32 {
        counts.direct_bytes += bytes;
    }
}

/// What this CPU saw of a file; made on first use.
#[inline(always)]
fn counts(membership: Membership, inode: u64, device: u32) -> Option<&'static mut FileCounts> {
    let key = FileKey { inode, device, scope: membership.scope(), padding: 0 };
    let place = match FILES.get_ptr_mut(key) {
        Some(place) => place,
        None => {
            let fresh = FileCounts {
                reads: 0,
                read_bytes: 0,
                writes: 0,
                written_bytes: 0,
                missed_by_reads: 0,
                made_by_writes: 0,
                missed_by_faults: 0,
                faults: 0,
                direct_bytes: 0,
            };
            let _ = FILES.insert(key, fresh, u64::from(BPF_NOEXIST));
            match FILES.get_ptr_mut(key) {
                Some(place) => place,
                None => FILES.get_ptr_mut(FileKey { inode: 0, device: 0, ..key })?,
            }
        }
    };
    // SAFETY: the map gives a valid pointer to this CPU's element; these programs run for tasks only and do not nest.
    Some(unsafe { &mut *place })
}

/// A page, or several in one piece, comes into the page cache.
#[tracepoint(category = "filemap", name = "mm_filemap_add_to_page_cache")]
pub fn mm_filemap_add_to_page_cache(context: TracePointContext) -> u32 {
    let tid = current_tid(&context);
    let Some(entry) = scope::entry(tid) else { return 1 };
    let membership = entry.membership;
    if !membership.is_recorded() || membership.is_bystander() {
        return 1;
    }
    let (inode, device): (u64, u32) = (record_field(&context, &ADDED_INODE), record_field(&context, &ADDED_DEV));
    let order: u8 = if ADDED_ORDER.load() == 0 { 0 } else { record_field(&context, &ADDED_ORDER) };
    let pages = 1_u64 << (order & 31);
    let used = crate::scope::known_task(entry)
        .map_or(FileUse::None as u32, |task| if task.inode == inode { task.file_use } else { FileUse::None as u32 });
    if let Some(counts) = counts(membership, inode, device) {
        if used == FileUse::Read as u32 {
            counts.missed_by_reads += pages;
        } else if used == FileUse::Write as u32 {
            counts.made_by_writes += pages;
        } else {
            counts.missed_by_faults += pages;
        }
    }
    1
}

/// A page fault of a mapping that the pages around it did not answer.
#[tracepoint(category = "filemap", name = "mm_filemap_fault")]
pub fn mm_filemap_fault(context: TracePointContext) -> u32 {
    let membership = scope::of(current_tid(&context));
    if membership.is_recorded() && !membership.is_bystander() {
        let (inode, device): (u64, u32) = (record_field(&context, &FAULT_INODE), record_field(&context, &FAULT_DEV));
        if let Some(counts) = counts(membership, inode, device) {
            counts.faults += 1;
        }
    }
    1
}
