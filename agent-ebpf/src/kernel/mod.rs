//! What the BPF programs of both objects share: who is of interest, what a CPU is doing, the time.
//!
//! Everything here is in both objects, maps and programs included; what only one of them needs is in its own folder.

pub mod interrupt;
pub mod scope;
pub mod slot;

use aya_ebpf::{
    Argument, EbpfContext, Global,
    helpers::{bpf_probe_read_kernel, generated::bpf_ktime_get_ns},
    programs::{BtfTracePointContext, RawTracePointContext, TracePointContext},
};

/// A tracepoint whose arguments are structures of the kernel, and how their fields are read.
///
/// Where the kernel knows the types of the arguments (`tp_btf`) a field is one load; a raw tracepoint has to ask a helper, which
/// takes longer than all else that a program does with an event that concerns nobody in scope.
pub trait Tracepoint: EbpfContext {
    /// The `n`-th argument.
    fn argument<T: Argument>(&self, n: usize) -> T;
    /// Field of a structure that is an argument, at the offset that the loader has set; nothing where no memory is.
    fn field<T: Copy>(&self, argument: *const u8, offset: &Global<u32>) -> Option<T>;
}

impl Tracepoint for RawTracePointContext {
    #[inline(always)]
    fn argument<T: Argument>(&self, n: usize) -> T {
        self.arg(n)
    }

    #[inline(always)]
    fn field<T: Copy>(&self, argument: *const u8, offset: &Global<u32>) -> Option<T> {
        read_field(argument, offset)
    }
}

impl Tracepoint for BtfTracePointContext {
    #[inline(always)]
    fn argument<T: Argument>(&self, n: usize) -> T {
        self.arg(n)
    }

    #[inline(always)]
    fn field<T: Copy>(&self, argument: *const u8, offset: &Global<u32>) -> Option<T> {
        let field = argument.wrapping_add(offset.load() as usize);
        // SAFETY: the verifier lets only fields of the argument's type be read, and the kernel handles the fault of a load from
        // where no memory is.
        Some(unsafe { field.cast::<T>().read_volatile() })
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and can't fail; there is no safe wrapper for it.
    unsafe { bpf_ktime_get_ns() }
}

/// Thread number of the running task.
#[inline(always)]
pub fn current_tid(context: &impl EbpfContext) -> u32 {
    // The binding calls the kernel's "pid" (a thread number) by that name.
    context.pid()
}

/// Field of a structure of the kernel, at the offset that the loader has set; nothing where no memory is.
#[inline(always)]
pub fn read_field<T>(base: *const u8, offset: &Global<u32>) -> Option<T> {
    // SAFETY: the helper reads kernel memory at any address and fails where there is none.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset.load() as usize).cast()) }.ok()
}

/// Field of a classic tracepoint's record, at the offset that the loader has set; its type's zero when it can't be read.
#[inline(always)]
pub fn record_field<T: Default>(context: &TracePointContext, offset: &Global<u32>) -> T {
    // SAFETY: the helper reads the record at any offset and fails outside of memory.
    unsafe { context.read_at(offset.load() as usize) }.unwrap_or_default()
}

/// Declares numbers that the loader sets, most of them offsets of fields.
#[macro_export]
macro_rules! offsets {
    ($($name:ident)*) => { $(#[unsafe(no_mangle)] static $name: aya_ebpf::Global<u32> = aya_ebpf::Global::new(0);)* };
}
pub use crate::offsets;
