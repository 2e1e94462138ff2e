//! System calls of threads in scope.

use crate::probe::{Definition, Event::Raw, Hook};
use syscalls::Sysno;

pub(super) const PROBE: Definition = Definition {
    name: "syscall",
    required: false,
    hooks: |_| {
        &[Hook { program: "sys_enter", event: Raw("sys_enter") }, Hook { program: "sys_exit", event: Raw("sys_exit") }]
    },
    globals: |kernel| {
        // The kernel's own names for the register of the second argument.
        let second_argument = match std::env::consts::ARCH {
            "aarch64" => kernel.types.offset("pt_regs", "regs")? + size_of::<u64>() as u32,
            _ => kernel.types.offset("pt_regs", "si")?,
        };
        Ok(vec![("IOCTL_NUMBER", Sysno::ioctl.id().cast_unsigned()), ("REGS_ARG2", second_argument)])
    },
};

/// Name of a system call on this architecture, or its number where it has none.
pub fn name(number: i32) -> String {
    usize::try_from(number)
        .ok()
        .and_then(Sysno::new)
        .map_or_else(|| format!("syscall {number}"), |known| known.name().to_owned())
}
