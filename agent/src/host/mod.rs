//! What this machine is and can do. The only code that opens the kernel's own descriptions of itself.

pub mod btf;
pub mod clock;
pub mod control_group;
pub mod kallsyms;
pub mod pid_namespace;
pub mod quiescence;
pub mod support;
pub mod tracefs;
pub mod virtualization;
