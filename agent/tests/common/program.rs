//! Static executables of a few instructions, for this machine: workloads that do one thing, and that no compiler is needed for.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// Where the file is loaded, and where memory that is not in it begins.
const BASE: u64 = 0x40_0000;
const MEMORY: u64 = 0x1000_0000;
/// Of [`hog`]: far more than a test's limit.
const MEMORY_BYTES: u64 = 1 << 30;
/// Bytes of ELF's header, and of a program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// Writes `text` to its standard output, then again, or exits with status 3.
pub fn printing(text: &str, forever: bool) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a short text");
    let code: Vec<u8> = if cfg!(target_arch = "aarch64") {
        let tail =
            if forever { [0x17ff_fffb, 0xd503_201f, 0xd503_201f] } else { [0xd280_0ba8, 0xd280_0060, 0xd400_0001] };
        // x8 = write, x0 = 1, x1 = the text right behind these 8 instructions, x2 = its length, svc
        let write = [0xd280_0808, 0xd280_0020, 0x1000_00c1, 0xd280_0002 | length << 5, 0xd400_0001];
        write.iter().chain(&tail).flat_map(|word: &u32| word.to_le_bytes()).collect()
    } else {
        // mov eax, 1; mov edi, 1; lea rsi, [rip + 19]; mov edx, length; syscall
        let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x8d, 0x35, 19, 0, 0, 0, 0xba];
        code.extend(length.to_le_bytes());
        code.extend([0x0f, 0x05]);
        if forever {
            // jmp to the beginning; nops
            code.extend([0xeb, 0xe6]);
            code.extend([0x90; 10]);
        } else {
            // mov eax, 60; mov edi, 3; syscall
            code.extend([0xb8, 60, 0, 0, 0, 0xbf, 3, 0, 0, 0, 0x0f, 0x05]);
        }
        code
    };
    executable(&[&code, text.as_bytes()].concat(), 0)
}

/// Writes to one page of memory after the other until somebody stops it, or there are no more.
pub fn hog() -> Vec<u8> {
    let code: Vec<u8> = if cfg!(target_arch = "aarch64") {
        // x0 = MEMORY, w1 = 1; strb w1, [x0]; add x0, x0, 4096; back
        let words = [0xd2a2_0000, 0x5280_0021, 0x3900_0001, 0x9140_0400, 0x17ff_fffe_u32];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    } else {
        // mov eax, MEMORY; mov byte [rax], 1; add rax, 4096; jmp back
        vec![0xb8, 0, 0, 0, 0x10, 0xc6, 0, 1, 0x48, 0x05, 0, 0x10, 0, 0, 0xeb, 0xf5]
    };
    executable(&code, MEMORY_BYTES)
}

/// An ELF executable with this code, which is at its entry, and with so much memory.
fn executable(code: &[u8], memory_bytes: u64) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    // The file, readable and executable; and memory, readable and writable: flags, then place in the file, addresses and sizes.
    let headers = if memory_bytes == 0 { HEADER + PROGRAM_HEADER } else { HEADER + 2 * PROGRAM_HEADER };
    let size = (headers + code.len()) as u64;
    let mut segments = vec![(5_u32, [0, BASE, BASE, size, size, 0x1000])];
    if memory_bytes > 0 {
        segments.push((6, [0, MEMORY, MEMORY, 0, memory_bytes, 0x1000]));
    }
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Header: executable, machine, version, entry, program headers at 64, no sections, flags, sizes and counts.
    file.extend(2_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for value in [BASE + headers as u64, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for value in [64, 56, segments.len() as u16, 64, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    for (flags, values) in segments {
        file.extend(1_u32.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for value in values {
            file.extend(value.to_le_bytes());
        }
    }
    assert_eq!(file.len(), headers);
    file.extend(code);
    file
}

/// Makes an executable file.
pub fn write_executable(path: &Path, content: &[u8]) {
    let written = fs::write(path, content).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
