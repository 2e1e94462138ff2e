//! Checks a workload before anything is made for it: what goes wrong later comes as `exec format error` from a runtime.

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64, Machine, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Bytes at the beginning of a file in which linkers put the ELF header and the program headers.
const HEADERS_BYTES: u64 = 4096;

/// Fails unless the file is a statically linked executable for this machine; says what it is instead and what to do.
///
/// # Errors
/// When it is missing, unreadable, or something else.
pub fn ensure_static(path: &Path) -> Result<()> {
    let shown = path.display();
    let hint = "`cargo xtask workloads` builds the workloads that come with sandscope";
    // Before it is opened, which would block on a FIFO.
    let metadata = fs::metadata(path).with_context(|| format!("could not find the workload {shown}: {hint}"))?;
    ensure!(metadata.is_file(), "the workload {shown} is no regular file: {hint}");
    ensure!(
        metadata.permissions().mode() & 0o111 != 0,
        "the workload {shown} is not executable: `chmod +x` makes it so, if it is a program; {hint}"
    );
    let mut headers = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADERS_BYTES).read_to_end(&mut headers))
        .with_context(|| format!("could not read the workload {shown}"))?;
    let elf = FileHeader64::<Endianness>::parse(headers.as_slice())
        .ok()
        .with_context(|| format!("the workload {shown} is no 64-bit ELF executable: {hint}"))?;
    let endian = elf.endian().with_context(|| format!("the workload {shown} is no valid ELF file"))?;
    let machine = elf.e_machine(endian);
    ensure!(
        machine == own_machine(),
        "the workload {shown} is for another machine (ELF machine {}, not {}): {hint}",
        machine.0,
        own_machine().0
    );
    let segments = elf.program_headers(endian, headers.as_slice());
    let segments = segments.with_context(|| format!("the workload {shown} has no valid ELF program headers"))?;
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        bail!("the workload {shown} is linked dynamically, but a sandbox has no libraries: link it statically; {hint}");
    }
    Ok(())
}

/// ELF's number of the machine that this was compiled for.
const fn own_machine() -> Machine {
    if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(mode: u32, content: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("the-workload");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = format!("{:#}", ensure_static(&path).unwrap_err());
        assert!(error.contains("the-workload"), "{error}");
        error
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(verdict(0o644, b"\x7fELF").contains("not executable"));
        assert!(verdict(0o755, b"#!/bin/sh\n").contains("no 64-bit ELF"));
        assert!(verdict(0o755, b"").contains("no 64-bit ELF"));
        let own = fs::read("/proc/self/exe").unwrap();
        let mut dynamic = own.clone();
        // This program may be static itself. Its first segment becomes PT_INTERP; e_phoff, which says where, is at 32.
        let segments = u64::from_ne_bytes(own[32..40].try_into().unwrap()) as usize;
        dynamic[segments..segments + 4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(verdict(0o755, &dynamic).contains("linked dynamically"));
        let mut other = own.clone();
        other[18] ^= 0xff;
        assert!(verdict(0o755, &other).contains("another machine"));
        let missing = format!("{:#}", ensure_static(Path::new("/nowhere/app")).unwrap_err());
        assert!(missing.contains("/nowhere/app") && missing.contains("xtask"), "{missing}");
    }
}
