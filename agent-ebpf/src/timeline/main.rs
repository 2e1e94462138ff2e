//! BPF programs of sandscope, timeline mode: one module per probe, named like its user-space half in
//! `agent/src/probe/timeline`.
//!
//! Rules that every module keeps:
//! - The first thing a program does is to ask [`sandscope_ebpf::kernel::scope`] about the thread; for the rest of the host it ends there.
//! - No field offset is a constant: the loader sets the `Global`s from the running kernel's BTF or tracefs formats.
//! - Records go out through [`ring`], without wake-ups, and each one that finds no room is counted.
//! - Programs on classic tracepoints return 1: 0 would hide the event from other users of the tracepoint.
//! - Frequent events use raw tracepoints. They are cheaper, and a raw tracepoint is not skipped when an interrupt arrives
//!   while another program runs on the same CPU, as a classic one silently is (`bpf_prog_active`).

#![no_std]
#![no_main]

mod block;
mod file;
mod kvm;
mod lock;
mod memory;
mod net;
mod object;
mod pickup;
mod ring;
mod sample;
mod sched;
mod scope;
mod syscall;
mod wakeup;

/// Never reached: programs have no unwinding and the verifier rejects endless loops, so a panic can't be compiled in.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
