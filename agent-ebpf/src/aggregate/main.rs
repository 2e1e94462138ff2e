//! BPF programs of sandscope, aggregate mode: one module per probe, named like its user-space half in
//! `agent/src/probe/aggregate`.
//!
//! Nothing is sent: sums and histograms stay in maps that user space reads when it likes. The rules are those of the timeline's
//! programs; in addition a program writes only what no other CPU writes at the same time (see [`sandscope_ebpf::sums`]).

#![no_std]
#![no_main]

mod group;
mod kvm;
mod sched;
mod scope;
mod shortage;
mod thread;
mod wakeup;

/// Never reached: programs have no unwinding and the verifier rejects endless loops, so a panic can't be compiled in.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
