//! Where the running kernel keeps the fields that the probes read, from its own type information (BTF).

use btf_rs::{Backend, Btf, Type};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fmt::Display,
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why a field could not be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel offers no type information, or it can't be read.
    #[error("can't read the kernel's type information {path}: {reason}; a kernel with CONFIG_DEBUG_INFO_BTF=y has it")]
    Unreadable {
        /// File that was tried.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The kernel has no such structure.
    #[error("this kernel has no `struct {structure}`")]
    NoStructure {
        /// Name that was looked up.
        structure: String,
    },
    /// The structure has no such field.
    #[error("`struct {structure}` of this kernel has no field `{field}`")]
    NoField {
        /// Name of the structure.
        structure: String,
        /// Name that was looked up.
        field: String,
    },
}

/// Type information of a kernel.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Reads the type information of the running kernel.
    ///
    /// # Errors
    /// When the kernel offers none.
    pub fn of_running_kernel() -> Result<Self, Error> {
        Self::read(Path::new(KERNEL_BTF))
    }

    /// Reads type information from a file.
    ///
    /// # Errors
    /// When it can't be read or parsed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |error: &dyn Display| Error::Unreadable { path: path.to_owned(), reason: error.to_string() };
        let copy = in_memory(path).map_err(|error| failed(&error))?;
        let path_of_copy = format!("/proc/self/fd/{}", copy.as_raw_fd());
        Btf::from_file_with_backend(path_of_copy, Backend::Mmap).map(Self).map_err(|error| failed(&error))
    }

    /// Bytes from the beginning of a structure to one of its fields, also when the field is inside unnamed members.
    ///
    /// # Errors
    /// When the kernel has no such structure or field.
    pub fn offset(&self, structure: &str, field: &str) -> Result<u32, Error> {
        let no_structure = || Error::NoStructure { structure: structure.to_owned() };
        let candidates = self.0.resolve_types_by_name(structure).map_err(|_| no_structure())?;
        let mut known = false;
        for candidate in candidates {
            let Type::Struct(candidate) = candidate else { continue };
            known = true;
            if let Some(bits) = self.member_bits(&candidate, field) {
                return Ok(bits / 8);
            }
        }
        if known {
            Err(Error::NoField { structure: structure.to_owned(), field: field.to_owned() })
        } else {
            Err(no_structure())
        }
    }

    fn member_bits(&self, structure: &btf_rs::Struct, field: &str) -> Option<u32> {
        for member in &structure.members {
            let name = self.0.resolve_name(member).unwrap_or_default();
            if name == field {
                return Some(member.bit_offset());
            }
            if name.is_empty()
                && let Ok(Type::Struct(inner) | Type::Union(inner)) = self.0.resolve_chained_type(member)
                && let Some(bits) = self.member_bits(&inner, field)
            {
                return Some(member.bit_offset() + bits);
            }
        }
        None
    }
}

/// Copies a file to memory that can be mapped, which the kernel's own file can't before 6.16. In a mapping only what is asked
/// for is decoded: that takes milliseconds, where decoding all of the 150,000 types takes a tenth of a second.
fn in_memory(path: &Path) -> io::Result<File> {
    let mut copy = File::from(memfd_create("btf", MemfdFlags::CLOEXEC)?);
    io::copy(&mut File::open(path)?, &mut copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Option<KernelTypes> {
        match KernelTypes::of_running_kernel() {
            Ok(kernel) => Some(kernel),
            Err(error) => {
                crate::testing::skip("host::btf", "btf", &error);
                None
            }
        }
    }

    #[test]
    fn fields_of_the_public_abi_are_where_the_abi_says() {
        let Some(kernel) = kernel() else { return };
        // `struct timespec64` is two 64-bit numbers; `struct iovec` a pointer and a length.
        assert_eq!(kernel.offset("timespec64", "tv_nsec").unwrap(), 8);
        assert_eq!(kernel.offset("iovec", "iov_len").unwrap(), 8);
    }

    #[test]
    fn fields_inside_unnamed_members_are_found() {
        let Some(kernel) = kernel() else { return };
        assert!(kernel.offset("mm_struct", "arg_start").unwrap() > 0);
    }

    #[test]
    fn missing_names_are_named() {
        let Some(kernel) = kernel() else { return };
        let error = kernel.offset("task_struct", "no_such_field").unwrap_err();
        assert!(error.to_string().contains("no_such_field"));
        let error = kernel.offset("no_such_structure", "x").unwrap_err();
        assert!(error.to_string().contains("no_such_structure"));
    }
}
