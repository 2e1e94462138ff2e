//! What vCPU threads in scope do inside `KVM_RUN`.

use crate::ring::{header, send};
use aya_ebpf::{
    EbpfContext, Global,
    helpers::bpf_probe_read_kernel,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use sandscope_ebpf::{
    event::{Header, Kind, KvmEntry, KvmExit, KvmHaltPoll, KvmHaltWake, KvmMmio, KvmPio, KvmUserspaceExit},
    kernel::{current_tid, scope},
};

#[unsafe(no_mangle)]
static EXIT_REASON: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static EXIT_GUEST_IP: Global<u32> = Global::new(0);
/// 0 where the kernel's record has no such field.
#[unsafe(no_mangle)]
static EXIT_ISA: Global<u32> = Global::new(0);

/// A header of `kind` about the running thread, if it is in scope.
#[inline(always)]
fn header_of_current(context: &impl EbpfContext, kind: Kind) -> Option<Header> {
    let tid = current_tid(context);
    let membership = scope::of(tid);
    membership.is_recorded().then(|| header(kind, tid, membership))
}

#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(context: RawTracePointContext) -> i32 {
    if let Some(header) = header_of_current(&context, Kind::KvmEntry) {
        send(Kind::KvmEntry, header.scope, KvmEntry { header });
    }
    0
}

/// A classic tracepoint: since 5.16 the raw one no longer passes the reason, and the formatted record always has it.
#[tracepoint(category = "kvm", name = "kvm_exit")]
pub fn kvm_exit(context: TracePointContext) -> u32 {
    if let Some(header) = header_of_current(&context, Kind::KvmExit) {
        // SAFETY: the helper reads the record at any offset and fails outside of memory.
        let reason = unsafe { context.read_at(EXIT_REASON.load() as usize) }.unwrap_or(u32::MAX);
        // SAFETY: as above.
        let guest_ip = unsafe { context.read_at(EXIT_GUEST_IP.load() as usize) }.unwrap_or(0);
        let isa = match EXIT_ISA.load() {
            0 => 0,
            // SAFETY: as above.
            offset => unsafe { context.read_at(offset as usize) }.unwrap_or(0),
        };
        send(Kind::KvmExit, header.scope, KvmExit { header, guest_ip, reason, isa });
    }
    1
}

#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn kvm_userspace_exit(context: RawTracePointContext) -> i32 {
    if let Some(header) = header_of_current(&context, Kind::KvmUserspaceExit) {
        send(
            Kind::KvmUserspaceExit,
            header.scope,
            KvmUserspaceExit { header, reason: context.arg(0), errno: context.arg(1) },
        );
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_pio")]
pub fn kvm_pio(context: RawTracePointContext) -> i32 {
    if let Some(mut header) = header_of_current(&context, Kind::KvmPio) {
        header.flags = context.arg(0);
        let size: u32 = context.arg(2);
        let data: *const u8 = context.arg(4);
        // The buffer is a page of its own, so four bytes are always there. SAFETY: the helper fails where they are not.
        let value: u32 = unsafe { bpf_probe_read_kernel(data.cast()) }.unwrap_or(0);
        let value = match size {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        };
        send(Kind::KvmPio, header.scope, KvmPio { header, port: context.arg(1), size, count: context.arg(3), value });
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_mmio")]
pub fn kvm_mmio(context: RawTracePointContext) -> i32 {
    if let Some(mut header) = header_of_current(&context, Kind::KvmMmio) {
        header.flags = context.arg(0);
        let length: u32 = context.arg(1);
        let data: *const u8 = context.arg(3);
        // SAFETY: the helper reads kernel memory at any address and fails where there is none.
        let value: u64 = if data.is_null() { 0 } else { unsafe { bpf_probe_read_kernel(data.cast()) }.unwrap_or(0) };
        let value = match length {
            1 => value & 0xff,
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
        send(Kind::KvmMmio, header.scope, KvmMmio { header, address: context.arg(2), value, length, padding: 0 });
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_vcpu_wakeup")]
pub fn kvm_vcpu_wakeup(context: RawTracePointContext) -> i32 {
    if let Some(mut header) = header_of_current(&context, Kind::KvmHaltWake) {
        let waited: u8 = context.arg(1);
        let valid: u8 = context.arg(2);
        header.flags = waited & 1 | (valid & 1) << 1;
        send(Kind::KvmHaltWake, header.scope, KvmHaltWake { header, halted_ns: context.arg(0) });
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_halt_poll_ns")]
pub fn kvm_halt_poll_ns(context: RawTracePointContext) -> i32 {
    if let Some(header) = header_of_current(&context, Kind::KvmHaltPoll) {
        let record =
            KvmHaltPoll { header, vcpu: context.arg(1), new_ns: context.arg(2), old_ns: context.arg(3), padding: 0 };
        send(Kind::KvmHaltPoll, header.scope, record);
    }
    0
}
