//! System calls of threads in scope.

use crate::probe::{
    Definition,
    Event::{Raw, Typed},
    Hook,
};
use syscalls::Sysno;

pub(super) const PROBE: Definition = Definition {
    name: "syscall",
    required: false,
    hooks: |_| {
        &[
            Hook { program: "sys_enter", event: Typed("sys_enter", "sys_enter_raw") },
            Hook { program: "sys_exit", event: Raw("sys_exit") },
        ]
    },
    globals: |kernel| {
        let types = kernel.types;
        // The kernel's own names for the registers of the first two arguments.
        let (first, second) = match std::env::consts::ARCH {
            "aarch64" => {
                let registers = types.offset("pt_regs", "regs")?;
                (registers, registers + size_of::<u64>() as u32)
            }
            _ => (types.offset("pt_regs", "di")?, types.offset("pt_regs", "si")?),
        };
        let ioctl = Sysno::ioctl.id().cast_unsigned();
        Ok(vec![("IOCTL_NUMBER", ioctl), ("REGS_ARG1", first), ("REGS_ARG2", second)])
    },
};

/// Name of a system call on this architecture, or its number where it has none.
pub fn name(number: i32) -> String {
    usize::try_from(number)
        .ok()
        .and_then(Sysno::new)
        .map_or_else(|| format!("syscall {number}"), |known| known.name().to_owned())
}
