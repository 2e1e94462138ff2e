//! Values of the BPF maps, and the rules for reading them.

use crate::event::Kind;
use bytemuck::{Pod, Zeroable};

/// Thread numbers that one element of the map `SCOPE_OF` covers.
pub const SCOPE_CHUNK: usize = 1 << 15;

/// One element of `SCOPE_OF`: the [`Membership`] of each thread number in its range.
///
/// An array, not a hash: the first question of every probe is "is this thread in a scope?", and for the whole host outside
/// the scopes it is the only one. The verifier inlines the look-up to a handful of instructions. User space maps the array
/// and stores single elements, so that it can't overwrite what a program stores next to them.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ScopeChunk(pub [u16; SCOPE_CHUNK]);

/// What a thread is to sandscope: nothing, a part of a scope, or a bystander whose work for a scope is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Whether the thread is recorded at all.
    pub const fn is_recorded(self) -> bool {
        self.0 != 0
    }

    /// What a task made by this one is.
    pub const fn of_child(self, same_process: bool) -> Self {
        if same_process { self } else { Self(self.0 & Self::SCOPE) }
    }
}

/// Per-CPU counters, indexed by [`Kind`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Counters {
    /// Records that a program had to write.
    pub seen: [u64; Kind::COUNT],
    /// Those of them for which the ring buffer had no room.
    pub lost: [u64; Kind::COUNT],
}

/// What a program has to remember about a thread in scope.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Task {
    /// When the current system call was entered.
    pub syscall_since_ns: u64,
    /// Its argument of interest; see [`crate::event::Syscall::arg`].
    pub syscall_arg: u64,
    /// Its number, or [`crate::event::NO_SYSCALL`].
    pub syscall: i32,
    /// Always 0.
    pub padding: u32,
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
}

/// A device of a sandbox as one CPU saw it, keyed by the interface index of the host's end. The arrays are indexed by
/// [`crate::event::Direction`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct NetDevice {
    /// Frames per direction, as the kernel passes them (before segmentation).
    pub frames: [u64; 2],
    /// Bytes per direction, with link-layer headers.
    pub bytes: [u64; 2],
    /// Scope of the sandbox.
    pub scope: u16,
    /// Always 0.
    pub padding: [u16; 3],
}

/// Key of a block request: where it starts on which device.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct BlockKey {
    /// First sector.
    pub sector: u64,
    /// Device number as the kernel encodes it.
    pub device: u32,
    /// Always 0.
    pub padding: u32,
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
    use super::{Counters, InterruptContext, NetDevice};

    // SAFETY: `repr(C)`, made of `u64` and `u16` without implicit padding (`bytemuck::Pod` is derived), valid for any bytes.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterruptContext {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NetDevice {}
}

#[cfg(test)]
mod tests {
    use super::Membership;

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
