//! Images of guests: where they are kept, and what is wrong with one that will not boot.
//!
//! What a VMM or a guest says about a wrong image ranges from a number to nothing at all, so an image is looked at before.

use super::{
    super::{Specification, child, kvm_floor, resources::FileSharing},
    Access,
    guest::{Guest, Kernel, Need},
};
use crate::workload::{self, Workload};
use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Endianness,
    elf::{EM_386, EM_AARCH64, EM_X86_64, FileHeader32, FileHeader64, Machine, PT_LOAD},
    read::elf::{FileHeader, ProgramHeader as _},
};
use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Directory that holds the images, a folder for each guest; overrides the places that are looked at otherwise.
const DIRECTORY: &str = "SANDSCOPE_IMAGES";

/// How long the floor's program may take to write its guest.
const FLOOR_LIMIT: Duration = Duration::from_secs(10);

/// Bytes at the beginning of a kernel that are looked at: ELF headers, or the header of a bzImage.
const HEADER_BYTES: u64 = 4096;

/// Bytes at the end of an archive among which its last entry is: file systems of initial RAM disks are padded to 512 bytes.
const TRAILER_BYTES: i64 = 1024;

/// Files that a guest boots from.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// The kernel.
    pub kernel: Option<PathBuf>,
    /// The program that writes the kernel.
    pub floor: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Raw disk.
    pub drive: Option<PathBuf>,
    /// Raw disk with the file that the workload serves.
    pub data: Option<PathBuf>,
    /// What names the functions of the kernel; nothing boots from it.
    pub symbols: Option<PathBuf>,
}

/// What belongs to a guest by its name, if it is not given: `IMAGES/GUEST/WORKLOAD/kernel`, or `IMAGES/GUEST/kernel`.
struct Kept<'a> {
    guest: &'a Guest,
    workload: Option<&'a str>,
}

impl Images {
    /// These, completed by those that are kept for the guest with the workload (`None`: with any).
    ///
    /// # Errors
    /// When one is missing; names the places.
    pub fn or_kept(self, guest: &Guest, workload: Option<&str>, floor: Option<&Path>) -> Result<Self> {
        let kept = Kept { guest, workload };
        let symbols = match self.symbols {
            // Those that are kept are of the kernel that is kept, which may be on the drive.
            None if self.kernel.is_none() && self.drive.is_none() => kept.complete(None, Need::Optional, "symbols")?,
            given => given,
        };
        let (kernel, floor) = match guest.kernel {
            Kernel::OfFloor if self.kernel.is_none() => (None, Some(kvm_floor::executable(floor)?)),
            Kernel::OfFloor => (self.kernel, None),
            Kernel::Image(need) => (kept.complete(self.kernel, need, "kernel")?, None),
        };
        let initrd = kept.complete(self.initrd, guest.initrd, "initrd")?;
        let drive = kept.complete(self.drive, guest.drive, "drive")?;
        let data = kept.complete(self.data, guest.data, "data")?;
        Ok(Self { kernel, floor, initrd, drive, data, symbols })
    }

    /// What there is, in words.
    ///
    /// # Errors
    /// When the guest has nothing to boot from.
    pub fn shown(&self, guest: &Guest) -> Result<String> {
        let all =
            [("kernel", &self.kernel), ("kernel in", &self.floor), ("initrd", &self.initrd), ("drive", &self.drive)];
        let there = all.iter().filter_map(|(what, path)| Some(format!("{what} {}", path.as_ref()?.display())));
        let there: Vec<_> = there.collect();
        ensure!(!there.is_empty(), "the guest `{}` has neither a kernel nor a drive", guest.name);
        Ok(there.join(", "))
    }

    /// Fails unless the guest can boot from these.
    ///
    /// # Errors
    /// When a file is missing, cut off or something else; says what it is.
    pub fn check(&self, guest: &Guest, workload: &Workload) -> Result<()> {
        self.shown(guest)?;
        if let Some(kernel) = &self.kernel {
            check_kernel(kernel)?;
        }
        if let Some(initrd) = &self.initrd {
            check_initrd(initrd)?;
            if guest.holds_workload && is_kept(initrd) {
                ensure_fresh(initrd, &workload.content.written_last())?;
            }
        }
        if let Some(drive) = &self.drive {
            check_drive(drive)?;
        }
        if let Some(data) = &self.data {
            check_data(data)?;
            if let Some(file) = workload.static_file.as_ref().filter(|_| is_kept(data)) {
                ensure_fresh(data, file)?;
            }
        }
        Ok(())
    }

    /// Makes the images available to an instance as the specification asks for.
    ///
    /// # Errors
    /// When one can't be copied.
    pub fn provide(self, specification: &Specification) -> Result<(Self, Access)> {
        let directory = &specification.directory;
        let mut images = self;
        if let Some(program) = &images.floor {
            let image = directory.join("floor.elf");
            let arguments = ["--emit-elf".as_ref(), image.as_os_str()];
            child::run(program, directory, &arguments, FLOOR_LIMIT).context("could not write the floor's guest")?;
            images.kernel = Some(image);
        }
        let access = match specification.resources.files {
            FileSharing::Shared => Access::ReadOnly,
            FileSharing::Overlay => Access::Overlay,
            FileSharing::Copy => {
                let Self { kernel, initrd, drive, data, .. } = &mut images;
                for (name, image) in [("kernel", kernel), ("initrd", initrd), ("drive", drive), ("data", data)] {
                    let Some(image) = image else { continue };
                    let copy = directory.join(name);
                    fs::copy(&*image, &copy)
                        .with_context(|| format!("could not copy {} to {}", image.display(), copy.display()))?;
                    *image = copy;
                }
                Access::Own
            }
        };
        Ok((images, access))
    }
}

impl Kept<'_> {
    fn complete(&self, given: Option<PathBuf>, need: Need, name: &str) -> Result<Option<PathBuf>> {
        match (given, need) {
            (Some(path), Need::None) => {
                bail!("the guest `{}` has no use for a {name}, but {} is given", self.guest.name, path.display())
            }
            (given @ Some(_), _) => Ok(given),
            (None, Need::None) => Ok(None),
            (None, need) => {
                let found = directories().iter().find_map(|directory| self.find(directory, name));
                if need == Need::Required && found.is_none() {
                    bail!("{}", self.missing(name));
                }
                Ok(found)
            }
        }
    }

    fn find(&self, directory: &Path, name: &str) -> Option<PathBuf> {
        let of_guest = directory.join(self.guest.name);
        let folders = match self.workload {
            Some(workload) => vec![of_guest.join(workload)],
            None => workload::NAMES.iter().map(|workload| of_guest.join(workload)).collect(),
        };
        let candidates = folders.into_iter().chain([of_guest]).map(|folder| folder.join(name));
        candidates.into_iter().find(|candidate| candidate.is_file())
    }

    fn missing(&self, name: &str) -> String {
        let (guest, workload) = (self.guest.name, self.workload.unwrap_or("WORKLOAD"));
        let places: Vec<_> = directories().iter().map(|directory| directory.display().to_string()).collect();
        format!(
            "there is no {name} for the guest `{guest}` (looked for {guest}/{workload}/{name} and {guest}/{name} in {})",
            places.join(", ")
        )
    }
}

/// Where images may be: where the environment says, else beside the build that this program is of, else where it runs.
fn directories() -> Vec<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return vec![directory.into()];
    }
    let current = PathBuf::from("target/images");
    let current = std::path::absolute(&current).unwrap_or(current);
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("images")));
    let mut directories: Vec<_> = beside.into_iter().chain([current]).collect();
    directories.dedup();
    directories
}

/// The size of a regular file and what is at its beginning.
fn look_at(file: &Path, what: &str) -> Result<(u64, Vec<u8>)> {
    let shown = file.display();
    // Before it is opened, which would block on a FIFO.
    let metadata = fs::metadata(file).with_context(|| format!("could not find the {what} {shown}"))?;
    ensure!(metadata.is_file(), "the {what} {shown} is no regular file");
    let mut beginning = Vec::new();
    File::open(file)
        .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut beginning))
        .with_context(|| format!("could not read the {what} {shown}"))?;
    ensure!(!beginning.is_empty(), "the {what} {shown} is empty");
    Ok((metadata.len(), beginning))
}

fn check_kernel(file: &Path) -> Result<()> {
    let shown = file.display();
    let (size, beginning) = look_at(file, "kernel")?;
    let needed = if let Ok(header) = FileHeader64::<Endianness>::parse(beginning.as_slice()) {
        needed_by_elf(header, &beginning)
    } else if let Ok(header) = FileHeader32::<Endianness>::parse(beginning.as_slice()) {
        needed_by_elf(header, &beginning)
    } else {
        needed_by_bzimage(&beginning)
    };
    let needed = needed.with_context(|| format!("the kernel {shown} can't be booted"))?;
    ensure!(size >= needed, "the kernel {shown} is cut off: it has {size} bytes of at least {needed}");
    Ok(())
}

/// Bytes that an ELF image has at least.
fn needed_by_elf<E: FileHeader<Endian = Endianness>>(header: &E, beginning: &[u8]) -> Result<u64> {
    let endian = header.endian().context("it is no valid ELF file")?;
    let machine = header.e_machine(endian);
    ensure!(
        own_machines().contains(&machine),
        "it is for another machine (ELF machine {}, not {})",
        machine.0,
        own_machines()[0].0
    );
    let segments = header.program_headers(endian, beginning).context("it has no valid ELF program headers")?;
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let ends = loaded.map(|segment| segment.p_offset(endian).into().saturating_add(segment.p_filesz(endian).into()));
    ends.max().context("it is an ELF file without anything to load, such as an object file")
}

/// ELF's numbers of the machines whose code boots on this one. Multiboot kernels for x86-64 are often 32-bit files.
const fn own_machines() -> &'static [Machine] {
    if cfg!(target_arch = "aarch64") { &[EM_AARCH64] } else { &[EM_X86_64, EM_386] }
}

/// Bytes that a bzImage has at least, by its header (`Documentation/arch/x86/boot.rst` of the kernel).
fn needed_by_bzimage(beginning: &[u8]) -> Result<u64> {
    const SETUP_SECTORS: usize = 0x1f1;
    const SYSTEM_SIZE: usize = 0x1f4;
    const MAGIC: usize = 0x202;
    ensure!(
        beginning.get(MAGIC..MAGIC + 4) == Some(b"HdrS") && cfg!(target_arch = "x86_64"),
        "it is no ELF executable and no Linux bzImage"
    );
    let sectors = match beginning[SETUP_SECTORS] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let paragraphs = beginning[SYSTEM_SIZE..SYSTEM_SIZE + 4].try_into().map(u32::from_le_bytes)?;
    Ok((sectors + 1) * 512 + u64::from(paragraphs) * 16)
}

fn check_initrd(file: &Path) -> Result<()> {
    let shown = file.display();
    let (size, beginning) = look_at(file, "initial RAM disk")?;
    if beginning.starts_with(b"\x7fELF") {
        // The application of a guest whose kernel is only its loader.
        return check_kernel(file);
    }
    /// What the kernel can unpack: gzip, xz, zstd, LZ4, and the format itself.
    const MAGICS: [&[u8]; 5] = [b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"070701"];
    let known = MAGICS.iter().find(|magic| beginning.starts_with(magic));
    let known = known.with_context(|| format!("the initial RAM disk {shown} is no cpio archive, compressed or not"))?;
    if *known == b"070701" {
        let mut end = Vec::new();
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(file)?;
            file.seek(SeekFrom::End(-TRAILER_BYTES.min(size.cast_signed())))?;
            file.read_to_end(&mut end)?;
            Ok(())
        };
        read().with_context(|| format!("could not read the initial RAM disk {shown}"))?;
        const TRAILER: &[u8] = b"TRAILER!!!";
        ensure!(
            end.windows(TRAILER.len()).any(|window| window == TRAILER),
            "the initial RAM disk {shown} is cut off: it does not end as an archive does"
        );
    }
    Ok(())
}

/// Fails unless the file is a whole raw disk with a partition table, as the guests that boot from one need.
fn check_drive(file: &Path) -> Result<()> {
    const SECTOR: u64 = 512;
    const PARTITIONS: usize = 446;
    let shown = file.display();
    let (size, beginning) = look_at(file, "drive")?;
    ensure!(
        beginning.get(510..512) == Some(&[0x55, 0xaa]),
        "the drive {shown} is no raw disk with a partition table: qcow2 and the like have to be converted \
         (`qemu-img convert -O raw`)"
    );
    let word = |at: usize| beginning[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
    let ends = (0..4).map(|number| PARTITIONS + 16 * number).map(|entry| {
        // First sector and number of sectors.
        (u64::from(word(entry + 8)) + u64::from(word(entry + 12))) * SECTOR
    });
    let needed = ends.max().unwrap_or(0);
    ensure!(size >= needed, "the drive {shown} is cut off: it has {size} bytes of at least {needed}");
    Ok(())
}

/// Fails unless the file has a file system that the guest can mount.
fn check_data(file: &Path) -> Result<()> {
    /// Of ext2, ext3 and ext4 (`Documentation/filesystems/ext4/super.rst` of the kernel).
    const SUPERBLOCK: usize = 1024;
    const MAGIC: [u8; 2] = [0x53, 0xef];
    let shown = file.display();
    let (size, beginning) = look_at(file, "disk with the workload's file")?;
    let word = |at: usize| {
        let bytes = beginning.get(SUPERBLOCK + at..SUPERBLOCK + at + 4);
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    ensure!(
        beginning.get(SUPERBLOCK + 0x38..SUPERBLOCK + 0x3a) == Some(&MAGIC),
        "the disk {shown} has no ext4 file system: `cargo xtask images` makes one"
    );
    let needed = u64::from(word(0x4)) << (10 + word(0x18).min(6));
    ensure!(size >= needed, "the disk {shown} is cut off: it has {size} bytes of {needed}");
    Ok(())
}

/// Whether an image is one of those that are kept, not one that a person has given.
fn is_kept(image: &Path) -> bool {
    directories().iter().any(|directory| image.starts_with(directory))
}

/// Fails when an image is older than what of the workload is in it: it holds another version of that.
fn ensure_fresh(image: &Path, content: &Path) -> Result<()> {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let (Ok(image_changed), Ok(content_changed)) = (changed(image), changed(content)) else { return Ok(()) };
    ensure!(
        image_changed >= content_changed,
        "{} is older than {}, which it holds: `cargo xtask images` builds it anew",
        image.display(),
        content.display()
    );
    Ok(())
}
