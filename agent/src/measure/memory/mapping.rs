//! What a process has mapped, and of which kind each mapping is: what follows for sharing depends on it.

use std::{fs, io, path::PathBuf};

/// Kind of memory that a mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// Memory of a guest: of a virtual machine, or of the applications in a gVisor sandbox.
    Guest,
    /// Private memory without a file, other than the heap and the stack.
    Anonymous,
    /// The heap of `brk`.
    Heap,
    /// The stack of the main thread; those of other threads can't be told from anonymous memory.
    Stack,
    /// A file.
    File,
    /// Memory that can be shared by name or descriptor: memfd, tmpfs of POSIX and System V.
    Shmem,
    /// Huge pages of hugetlbfs.
    Hugetlb,
    /// What the kernel or a device provides.
    Special,
}

impl Region {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Guest, Self::Anonymous, Self::Heap, Self::Stack, Self::File, Self::Shmem, Self::Hugetlb, Self::Special];

    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Anonymous => "anonymous",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::File => "file",
            Self::Shmem => "shmem",
            Self::Hugetlb => "hugetlb",
            Self::Special => "special",
        }
    }
}

/// How the names of files begin that are only in memory.
const SHMEM: [&str; 4] = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero"];

/// A mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Of which kind it is; [`Region::Guest`] only after [`super::guest::mark`].
    pub region: Region,
    /// The file, for mappings of one; as the process sees it.
    pub file: Option<PathBuf>,
    /// Where in the file it begins.
    pub offset: u64,
    /// Whether others see what is written (`MAP_SHARED`).
    pub is_shared: bool,
    /// Whether the process itself may read it.
    pub is_readable: bool,
    /// Whether the process itself may write to it.
    pub is_writable: bool,
    /// Whether the process may execute it.
    pub is_executable: bool,
    /// Whether KSM was asked to merge it.
    pub is_mergeable: bool,
    /// Whether it is of hugetlbfs.
    pub is_hugetlb: bool,
    /// Whether it is a device's memory, which has no pages that could be read or counted.
    pub is_device: bool,
    /// Bytes in memory, without those of hugetlbfs.
    pub rss_bytes: u64,
    /// Bytes of hugetlbfs in memory.
    pub hugetlb_bytes: u64,
    /// Bytes in memory that are not the file's: written to, or without a file.
    pub anonymous_bytes: u64,
    /// Bytes mapped by huge pages.
    pub huge_bytes: u64,
    /// Bytes that KSM has merged; `None` where the kernel does not tell (before 6.6).
    pub ksm_bytes: Option<u64>,
    /// Bytes in memory that other mappings have too.
    pub shared_bytes: u64,
}

impl Mapping {
    /// Address range in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it has pages in memory that can be looked at.
    pub fn has_pages(&self) -> bool {
        self.rss_bytes + self.hugetlb_bytes > 0 && !self.is_device && self.region != Region::Special
    }

    /// Whether its file, if it has one, is only in memory.
    pub fn is_shmem(&self) -> bool {
        let name = self.file.as_ref().map_or("".as_bytes(), |file| file.as_os_str().as_encoded_bytes());
        SHMEM.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    }

    /// Parses the line that begins a mapping: `START-END PERMISSIONS OFFSET DEVICE INODE NAME`.
    fn begin(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let permissions = words.next()?.as_bytes();
        let offset = words.next()?;
        let name = words.nth(2).unwrap_or("").trim();
        let region = region(name);
        let is = |place: usize, letter: u8| permissions.get(place) == Some(&letter);
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            region,
            file: name.starts_with('/').then(|| PathBuf::from(name)),
            offset: u64::from_str_radix(offset, 16).ok()?,
            is_shared: is(3, b's'),
            is_readable: is(0, b'r'),
            is_writable: is(1, b'w'),
            is_executable: is(2, b'x'),
            is_mergeable: false,
            is_hugetlb: false,
            is_device: false,
            rss_bytes: 0,
            hugetlb_bytes: 0,
            anonymous_bytes: 0,
            huge_bytes: 0,
            ksm_bytes: None,
            shared_bytes: 0,
        })
    }

    /// Takes in a line about the mapping: `NAME: VALUE kB`, or its flags.
    fn learn(&mut self, name: &str, value: &str) {
        if name == "VmFlags" {
            let flags = value.split_ascii_whitespace();
            let has = |flag: &str| flags.clone().any(|has| has == flag);
            self.is_mergeable = has("mg");
            self.is_hugetlb = has("ht");
            self.is_device = has("io") || has("pf");
            if self.is_hugetlb {
                self.region = Region::Hugetlb;
            } else if self.is_device {
                self.region = Region::Special;
            }
            return;
        }
        let Some(bytes) = value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()) else {
            return;
        };
        let bytes = bytes.saturating_mul(1024);
        match name {
            "Rss" => self.rss_bytes = bytes,
            "Anonymous" => self.anonymous_bytes = bytes,
            "KSM" => self.ksm_bytes = Some(bytes),
            "Shared_Hugetlb" | "Private_Hugetlb" => self.hugetlb_bytes += bytes,
            "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" => self.huge_bytes += bytes,
            "Shared_Clean" | "Shared_Dirty" => self.shared_bytes += bytes,
            _ => (),
        }
    }
}

fn region(name: &str) -> Region {
    match name {
        "" => Region::Anonymous,
        "[heap]" => Region::Heap,
        "[stack]" => Region::Stack,
        // `prctl(PR_SET_VMA_ANON_NAME)` gives private and shared memory names.
        _ if name.starts_with("[anon:") => Region::Anonymous,
        _ if name.starts_with("[anon_shmem:") => Region::Shmem,
        _ if SHMEM.iter().any(|prefix| name.starts_with(prefix)) => Region::Shmem,
        _ if name.starts_with('/') => Region::File,
        _ => Region::Special,
    }
}

/// The mappings of a process, by address.
///
/// # Errors
/// When the process is gone, or may not be looked at.
pub fn of_process(pid: i32) -> io::Result<Vec<Mapping>> {
    // Names of files come from the sandbox and need not be UTF-8.
    let text = fs::read(format!("/proc/{pid}/smaps"))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Parses smaps. By hand: the mappings' names are the sandbox's choice, and the parser of the crate procfs panics at some.
fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        // Only what is said about a mapping begins with a capital: addresses are in lower case.
        if line.starts_with(|first: char| first.is_ascii_uppercase()) {
            if let (Some(mapping), Some((name, value))) = (mappings.last_mut(), line.split_once(':')) {
                mapping.learn(name, value);
            }
        } else {
            mappings.extend(Mapping::begin(line));
        }
    }
    mappings
}

/// Mappings that tests make up.
#[cfg(test)]
pub(super) mod tests_support {
    use super::{Mapping, parse};

    /// A mapping with these permissions and this name, of which nothing is in memory.
    pub fn mapping(start: u64, size: u64, permissions: &str, name: &str) -> Mapping {
        let line = format!("{start:x}-{:x} {permissions} 00000000 00:00 0 {name}\n", start + size);
        parse(&line).remove(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    #[test]
    fn own_mappings_have_their_kinds() {
        let mappings = of_process(std::process::id().cast_signed()).unwrap();
        let at = |address: usize| {
            mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&(address as u64))).unwrap()
        };
        let code = at(own_mappings_have_their_kinds as fn() as usize);
        assert_eq!((code.region, code.is_executable, code.is_shared), (Region::File, true, false));
        assert!(mappings.iter().any(|mapping| mapping.region == Region::Stack && mapping.is_writable));
        assert!(mappings.iter().any(|mapping| mapping.region == Region::Special));
    }

    #[test]
    fn what_is_in_memory_of_a_mapping_is_known() {
        const PAGES: usize = 8;
        let size = PAGES * rustix::param::page_size();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let memory =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED) }
                .unwrap();
        // SAFETY: the first byte of the mapping, which is writable and which nobody else knows.
        unsafe { memory.cast::<u8>().write_volatile(1) };
        let mappings = of_process(std::process::id().cast_signed()).unwrap();
        let found = mappings.iter().find(|mapping| mapping.start == memory as u64).unwrap();
        assert_eq!((found.region, found.is_shared, found.size_bytes()), (Region::Shmem, true, size as u64));
        assert_eq!(found.rss_bytes, rustix::param::page_size() as u64);
        // SAFETY: the mapping was made above and nothing refers to it.
        unsafe { munmap(memory, size) }.unwrap();
    }

    #[test]
    fn whatever_a_file_is_called_it_is_one() {
        let text = "7f00-8f00 r--p 00001000 08:01 7    /SYSV\u{e9}\nRss:        8 kB\nVmFlags: rd mr ht\n\
                    9000-a000 rw-s 00000000 00:01 8    /a b [heap] (deleted)\nRss: x kB\n";
        let mappings = parse(text);
        assert_eq!(mappings.len(), 2);
        assert_eq!((mappings[0].region, mappings[0].rss_bytes, mappings[0].offset), (Region::Hugetlb, 8192, 4096));
        assert_eq!((mappings[1].region, mappings[1].is_shared, mappings[1].rss_bytes), (Region::File, true, 0));
        assert_eq!(mappings[1].file, Some("/a b [heap] (deleted)".into()));
    }
}
