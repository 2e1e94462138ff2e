//! Where threads in scope are, now and then: their stack in user space, by frame pointers, as programs in Go have them.
//!
//! A function that calls nobody makes no frame, and its caller would be missing: so the word is sent too where its return address is if
//! that is so. A tick may also come while a thread is in a system call or a page fault. Whoever reads the records knows, and takes those
//! that came while it ran its own code.

use crate::ring::{fill, header};
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_F_USER_STACK,
    helpers::{bpf_probe_read_user, generated::bpf_get_stack},
    macros::perf_event,
    programs::PerfEventContext,
};
use sandscope_ebpf::{
    event::{Kind, Sample, USER_FRAMES},
    kernel::{current_tid, scope},
};

/// Whether calls leave their return address on the stack (x86) or in a register (arm64).
#[unsafe(no_mangle)]
static RETURN_ON_STACK: Global<u32> = Global::new(0);

/// Offset of the stack pointer in the registers of a task on x86-64 (`struct pt_regs`, a part of the kernel's interface).
const X86_STACK_POINTER: usize = 152;
/// Offset of the link register in those of arm64 (`struct user_pt_regs`).
const ARM64_LINK: usize = 240;

#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    let tid = current_tid(&context);
    let membership = scope::of(tid);
    if !membership.is_recorded() {
        return 0;
    }
    let header = header(Kind::Sample, tid, membership);
    let leaf_return = leaf_return(&context);
    fill(Kind::Sample, header.scope, |record| {
        let record = record.write(Sample { header, leaf_return, frames: [0; USER_FRAMES] });
        let frames = core::ptr::from_mut(&mut record.frames).cast();
        let flags = u64::from(BPF_F_USER_STACK);
        // SAFETY: the context is the program's own, and there is room for as many bytes as are said.
        unsafe { bpf_get_stack(context.as_ptr(), frames, size_of_val(&record.frames) as u32, flags) > 0 }
    });
    0
}

/// The architectures keep their registers at other places of the context, which begins with them. The kernel knows which of the two is
/// read when it checks the program, and does not look at the other.
#[inline(always)]
fn leaf_return(context: &PerfEventContext) -> u64 {
    let register = |offset: usize| {
        // SAFETY: the context begins with the registers, of which this is one.
        let register = unsafe { context.as_ptr().cast::<u8>().add(offset).cast::<u64>() };
        // SAFETY: as above; volatile, so that it stays one load at a fixed offset, which is all that the kernel allows.
        unsafe { register.read_volatile() }
    };
    if RETURN_ON_STACK.load() == 0 {
        return register(ARM64_LINK);
    }
    let stack_pointer = register(X86_STACK_POINTER) as *const u64;
    // SAFETY: an address of the task's own, which the helper checks; in the kernel it is none, and nothing is read.
    unsafe { bpf_probe_read_user(stack_pointer) }.unwrap_or(0)
}
