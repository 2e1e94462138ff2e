//! Which memory of a VMM, or of gVisor's kernel, is the memory of its guest.
//!
//! The kernel tells nobody but the VMM itself (`KVM_SET_USER_MEMORY_REGION`), and a VMM without KVM does not tell at all. So it
//! is inferred: the memory of a guest is by far the largest that a VMM can write to; where it is in pieces (below and above the
//! hole for devices), they are of one kind. gVisor names the file that holds the memory of its applications.

use super::mapping::{Mapping, Region};
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _};

/// The file of gVisor.
const GVISOR: &str = "/memfd:runsc-memory";
/// Role of programs whose largest memory is that of a guest.
const VMM: &str = "vmm";
/// The least that a guest has. What is smaller is a VMM without a guest.
const LEAST_BYTES: u64 = 1 << 20;
/// A piece of the memory is at least one part in so many of the largest.
const PIECE: u64 = 4;

/// Memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestMemory {
    /// What it is made of: `anonymous`, `shmem`, `hugetlb` or `file`.
    pub backing: &'static str,
    /// Size that the guest sees.
    pub size_bytes: u64,
    /// Part of it that is in memory.
    pub populated_bytes: u64,
}

/// Marks the mappings that are the memory of a guest as [`Region::Guest`]; the role is that of their process.
pub fn mark(mappings: &mut [Mapping], role: &str) {
    for mapping in mappings.iter_mut().filter(|mapping| is_of_gvisor(mapping)) {
        mapping.region = Region::Guest;
    }
    if role != VMM {
        return;
    }
    let largest = mappings.iter().filter(|mapping| can_be_of_vm(mapping)).max_by_key(|mapping| mapping.size_bytes());
    let Some(largest) = largest.cloned() else { return };
    for mapping in mappings.iter_mut().filter(|mapping| can_be_of_vm(mapping)) {
        let alike =
            (mapping.region, &mapping.file, mapping.is_shared) == (largest.region, &largest.file, largest.is_shared);
        if alike && mapping.size_bytes() >= largest.size_bytes() / PIECE {
            mapping.region = Region::Guest;
        }
    }
}

fn is_of_gvisor(mapping: &Mapping) -> bool {
    mapping.file.as_ref().is_some_and(|file| file.as_os_str().as_encoded_bytes().starts_with(GVISOR.as_bytes()))
}

/// Code that a VMM generates is in memory that it can execute; its guest's is not.
fn can_be_of_vm(mapping: &Mapping) -> bool {
    let region = matches!(mapping.region, Region::Anonymous | Region::Shmem | Region::Hugetlb | Region::File);
    region && mapping.is_writable && !mapping.is_executable && mapping.size_bytes() >= LEAST_BYTES
}

/// The memory of the guest of a process with these mappings, which are marked; `None` if it has none. What is in a file is
/// counted by the file: not every page of it need be mapped.
pub fn memory(pid: i32, mappings: &[Mapping]) -> Option<GuestMemory> {
    let regions: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.region == Region::Guest).collect();
    let first = regions.first()?;
    let backing = match (first.is_hugetlb, &first.file, first.is_shared) {
        (true, ..) => "hugetlb",
        (_, Some(file), _) if file.as_os_str().as_encoded_bytes().starts_with(b"/memfd:") => "shmem",
        (_, Some(_), true) => "shmem",
        (_, Some(_), false) => "file",
        (_, None, true) => "shmem",
        (_, None, false) => "anonymous",
    };
    let mut memory = GuestMemory { backing, size_bytes: 0, populated_bytes: 0 };
    let mut files = BTreeSet::new();
    for region in regions {
        let link = format!("/proc/{pid}/map_files/{:x}-{:x}", region.start, region.end);
        match fs::metadata(link).ok().filter(|_| region.is_shared) {
            Some(file) => {
                if files.insert((file.dev(), file.ino())) {
                    memory.size_bytes += file.len();
                    // In units of 512 bytes, whatever the file system.
                    memory.populated_bytes += file.blocks() * 512;
                }
            }
            None => {
                memory.size_bytes += region.size_bytes();
                memory.populated_bytes += region.rss_bytes + region.hugetlb_bytes;
            }
        }
    }
    Some(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::memory::mapping::tests_support::mapping;

    #[test]
    fn the_largest_writable_memory_of_a_vmm_is_its_guests_in_all_its_pieces() {
        let mut mappings = [
            mapping(0x1000_0000, 1 << 20, "rwxp", ""),
            mapping(0x4000_0000, 3 << 30, "rw-p", ""),
            mapping(0x2_0000_0000, 1 << 30, "rw-p", ""),
            mapping(0x3_0000_0000, 8 << 20, "rw-p", ""),
            mapping(0x4_0000_0000, 8 << 30, "rwxp", ""),
        ];
        mark(&mut mappings, "vmm");
        let guest: Vec<bool> = mappings.iter().map(|mapping| mapping.region == Region::Guest).collect();
        assert_eq!(guest, [false, true, true, false, false]);
        let memory = memory(0, &mappings).unwrap();
        assert_eq!((memory.backing, memory.size_bytes), ("anonymous", 4 << 30));
    }

    #[test]
    fn other_programs_have_no_guests_but_gvisors_applications_are_one() {
        let mut mappings = [
            mapping(0x1000_0000, 1 << 30, "rw-p", ""),
            mapping(0x9000_0000, 1 << 30, "rw-s", "/memfd:runsc-memory (deleted)"),
        ];
        mark(&mut mappings, "sentry");
        assert_eq!(mappings[0].region, Region::Anonymous);
        assert_eq!(mappings[1].region, Region::Guest);
        let mut alone = [mapping(0x1000_0000, 1 << 30, "rw-p", "")];
        mark(&mut alone, "workload");
        assert_eq!(memory(0, &alone), None);
    }
}
