//! Values of the BPF maps, and the rules for reading them.

use crate::{event::Faults, histogram::Histogram};
use bytemuck::{Pod, Zeroable};

/// Thread numbers that one element of the map `SCOPE_OF` covers.
pub const SCOPE_CHUNK: usize = 1 << 15;

/// One element of `SCOPE_OF`: the [`Entry`] of each thread number in its range.
///
/// An array, not a hash: the first question of every probe is "is this thread in a scope?", and for the whole host outside
/// the scopes it is the only one. The verifier inlines the look-up to a handful of instructions. User space maps the array
/// and stores single elements, so that it can't overwrite what a program stores next to them.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ScopeChunk(pub [Entry; SCOPE_CHUNK]);

/// What is known of a thread number.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Entry {
    /// What the thread is to sandscope.
    pub membership: Membership,
    /// Its element of the arrays that have one per thread in scope; 0 is none. User space only clears it.
    pub slot: u16,
}

impl Entry {
    /// Of no interest.
    pub const NONE: Self = Self { membership: Membership::NONE, slot: 0 };
}

/// What a thread is to sandscope: nothing, a part of a scope, or a bystander whose work for a scope is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Membership(pub u16);

impl Membership {
    /// In no scope.
    pub const NONE: Self = Self(0);
    const BYSTANDER: u16 = 1 << 15;
    const SCOPE: u16 = Self::BYSTANDER - 1;
    /// Largest scope number.
    pub const MAX_SCOPE: u16 = Self::SCOPE;

    /// A thread of the sandbox itself.
    pub const fn member(scope: u16) -> Self {
        Self(scope & Self::SCOPE)
    }

    /// A thread that is not the sandbox's but works for it: the launcher, the client, a daemon. It is recorded too. The
    /// processes that it starts become members; its own new threads stay bystanders.
    pub const fn bystander(scope: u16) -> Self {
        Self(scope & Self::SCOPE | Self::BYSTANDER)
    }

    /// The scope's number; 0 is none.
    pub const fn scope(self) -> u16 {
        self.0 & Self::SCOPE
    }

    /// Whether the thread only works for the scope.
    pub const fn is_bystander(self) -> bool {
        self.0 & Self::BYSTANDER != 0
    }

    /// Whether the thread is recorded at all.
    pub const fn is_recorded(self) -> bool {
        self.0 != 0
    }

    /// What a task made by this one is.
    pub const fn of_child(self, same_process: bool) -> Self {
        if same_process { self } else { Self(self.0 & Self::SCOPE) }
    }
}

/// Bytes of the longest name of a control group that is followed.
pub const GROUP_BYTES: usize = 512;
/// Control groups that can be followed at a time.
pub const GROUPS: usize = 256;

/// Key of a control group whose threads are in a scope, with those of the groups below it: by its name, with `scope` 0; and once more by
/// its scope, with `name` 0, which tells that the scope follows groups of that hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
pub struct GroupKey {
    /// [`GroupName`] of its path from the root of its hierarchy.
    pub name: u64,
    /// Number of its hierarchy.
    pub hierarchy: u32,
    /// Number of its scope.
    pub scope: u32,
}

/// The name of a control group as a number that is made byte by byte, so that a program compares the name of a group and of all
/// above it with any number of others in one walk. 64-bit FNV-1a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupName(pub u64);

impl GroupName {
    /// Of the root, whose name is empty here.
    pub const ROOT: Self = Self(0xcbf2_9ce4_8422_2325);

    /// With one more byte.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// Of a path such as `/a/b`, with or without a slash at its end.
    pub fn of(path: &str) -> Self {
        path.trim_end_matches('/').bytes().fold(Self::ROOT, Self::and)
    }
}

/// Whose records of which kind found no room.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
pub struct LostKey {
    /// Scope; 0 stands for all that found no room here.
    pub scope: u16,
    /// A [`Kind`](crate::event::Kind).
    pub kind: u16,
}

/// What a program has to remember about a thread in scope.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Task {
    /// When the current system call was entered.
    pub syscall_since_ns: u64,
    /// Since when the thread waits in a way that can't be interrupted; 0 if it does not.
    pub waits_since_ns: u64,
    /// Its first two arguments.
    pub syscall_args: [u64; 2],
    /// Its number, or [`crate::event::NO_SYSCALL`].
    pub syscall: i32,
    /// What it does with the file: a [`FileUse`].
    pub file_use: u32,
    /// The file that it reads or writes, if `file_use` says so.
    pub inode: u64,
    /// Device of the file.
    pub device: u32,
    /// 1 while it waits for a lock of the kernel, and does not spin.
    pub contends: u32,
}

/// What a system call does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileUse {
    /// Nothing, or not a regular file.
    None = 0,
    /// It reads.
    Read = 1,
    /// It writes.
    Write = 2,
    /// It reads frames from a tap device.
    Tap = 3,
    /// It reads past the page cache. In records that is a [`FileUse::Read`].
    DirectRead = 4,
}

/// What a system call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Subject {
    /// Nothing that has a name.
    None = 0,
    /// What its first argument, a descriptor, stands for.
    Descriptor = 1,
    /// The path that its first argument points to.
    FirstPath = 2,
    /// The path that its second argument points to.
    SecondPath = 3,
}

/// Key of a file that a sandbox uses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
pub struct FileKey {
    /// Its inode; 0 stands for all that found no room.
    pub inode: u64,
    /// Device of its file system as the kernel encodes it.
    pub device: u32,
    /// Scope of the sandbox.
    pub scope: u16,
    /// Always 0.
    pub padding: u16,
}

/// What one CPU saw of a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable, PartialEq, Eq)]
pub struct FileCounts {
    /// System calls that read some of it.
    pub reads: u64,
    /// Bytes that they got.
    pub read_bytes: u64,
    /// System calls that wrote to it.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// Pages that came into the page cache while it was read, read-ahead included.
    pub missed_by_reads: u64,
    /// Pages that came into the page cache while it was written.
    pub made_by_writes: u64,
    /// Pages that came into the page cache otherwise: a page fault of a mapping, or an advice.
    pub missed_by_faults: u64,
    /// Page faults of mappings of the file that the page cache had to answer.
    pub faults: u64,
    /// Part of `read_bytes` that was read past the page cache.
    pub direct_bytes: u64,
}

/// What a CPU is doing on behalf of an interrupt, so that a wake-up can be charged to its cause. Zero means "not in one".
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct InterruptContext {
    /// Function of the high-resolution timer that is expiring.
    pub hrtimer: u64,
    /// Function of the timer-wheel timer that is expiring.
    pub timer: u64,
    /// Number of the hardware interrupt being handled, plus one.
    pub irq: u32,
    /// Softirq vector being run, plus one.
    pub softirq: u32,
    /// When each of the four began, in the order of [`crate::event::WakeCause`], from `Hrtimer` on; kept where the loader asks for it.
    pub since_ns: [u64; 4],
    /// When the outermost of them began; kept where the loader asks for it, as the next.
    pub outermost_since_ns: u64,
    /// Time in them since somebody last took this.
    pub spent_ns: u64,
}

/// Page faults of the own code of the task that has a CPU, since somebody last took them.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct FaultsOfCpu {
    /// When the last one began; 0: there was none since then.
    pub since_ns: u64,
    /// Time in those that were timed.
    pub timed_ns: u64,
    /// All of them.
    pub faults: Faults,
    /// Those that were timed.
    pub timed: u32,
    /// Always 0.
    pub padding: u32,
}

/// A device of a sandbox as one CPU saw it, keyed by the interface index of the host's end. The arrays are indexed by
/// [`crate::event::Direction`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NetDevice {
    /// Frames per direction, as the kernel passes them (before segmentation).
    pub frames: [u64; 2],
    /// Bytes per direction, with link-layer headers.
    pub bytes: [u64; 2],
    /// Those frames per direction whose TCP data had passed before.
    pub retransmits: [u64; 2],
    /// Sum of what is in `answers`.
    pub answers_ns: u64,
    /// Lengths of the frames per direction.
    pub sizes: [Histogram; 2],
    /// Time from the first frame with data into the sandbox to the next one with data out of it, in the same TCP connection.
    pub answers: Histogram,
    /// Scope of the sandbox.
    pub scope: u16,
    /// Always 0.
    pub padding: [u16; 3],
}

/// Frames that can be on their way at a time; a tap device drops what is more than its queue of 1000, or what nobody reads.
pub const QUEUE_FRAMES: usize = 1024;

/// Frames on their way from the host's end of a sandbox's device to the VMM that reads them from the tap device, in order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NetQueue {
    /// When they came, each at its number modulo the length.
    pub came_ns: [u64; QUEUE_FRAMES],
    /// Frames that came.
    pub came: u64,
    /// Frames of these that are on their way no more.
    pub gone: u64,
    /// Frames of these that nobody was seen to read.
    pub unseen: u64,
    /// Sum of what is in `waits`.
    pub waits_ns: u64,
    /// Time from the host's end to the return of the VMM's system call with the frame.
    pub waits: Histogram,
}

/// A TCP connection of a sandbox over IPv4: a sandbox has one address, and the host one on its device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FlowKey {
    /// Interface index of the host's end.
    pub ifindex: u32,
    /// Port of the host, in network byte order.
    pub host_port: u16,
    /// Port of the sandbox, in network byte order.
    pub sandbox_port: u16,
}

/// How far a TCP connection has come. The arrays are indexed by [`crate::event::Direction`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Flow {
    /// When data came in that was not answered yet; 0: there is none.
    pub asked_ns: u64,
    /// Sequence number that follows what has passed.
    pub next: [u32; 2],
    /// 1 once `next` means something.
    pub known: [u32; 2],
}

/// Key of a block request: where it starts on which device.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct BlockKey {
    /// First sector.
    pub sector: u64,
    /// Address of the disk's `struct gendisk`.
    pub disk: u64,
}

/// A block request on its way.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct BlockPending {
    /// When its submitter queued it.
    pub queued_ns: u64,
    /// When the driver got it; 0 before.
    pub issued_ns: u64,
    /// Submitting thread.
    pub tid: u32,
    /// Its scope.
    pub scope: u16,
    /// 1 for writes.
    pub write: u16,
}

#[cfg(feature = "user")]
mod user {
    use super::{FileCounts, FileKey, GroupKey, InterruptContext, LostKey, NetDevice, NetQueue};

    // SAFETY: `repr(C)`, made of integers without implicit padding (`bytemuck::Pod` is derived), valid for any bytes.
    unsafe impl aya::Pod for LostKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for GroupKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterruptContext {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NetDevice {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NetQueue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FileKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FileCounts {}
}

#[cfg(test)]
mod tests {
    use super::{GroupName, Membership};

    #[test]
    fn the_names_of_groups_are_told_apart_and_slashes_at_their_end_are_none() {
        assert_eq!(GroupName::of("/"), GroupName::ROOT);
        assert_eq!(GroupName::of("/a/b/"), GroupName::of("/a/b"));
        assert_ne!(GroupName::of("/a/b"), GroupName::of("/a/c"));
        assert_eq!(GroupName::of("/a").and(b'/').and(b'b'), GroupName::of("/a/b"));
    }

    #[test]
    fn children_of_a_member_are_members() {
        let member = Membership::member(7);
        assert_eq!(member.of_child(true), member);
        assert_eq!(member.of_child(false), member);
        assert_eq!(member.scope(), 7);
    }

    #[test]
    fn processes_of_a_bystander_are_members_but_its_threads_are_not() {
        let bystander = Membership::bystander(7);
        assert_eq!(bystander.of_child(true), bystander);
        assert_eq!(bystander.of_child(false), Membership::member(7));
        assert_eq!(bystander.scope(), 7);
    }

    #[test]
    fn nothing_comes_of_a_stranger() {
        assert!(!Membership::NONE.is_recorded());
        assert_eq!(Membership::NONE.of_child(false), Membership::NONE);
    }
}
