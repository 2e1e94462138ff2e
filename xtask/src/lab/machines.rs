//! What the lab needs for virtual machines inside it: QEMU of this machine, Firecracker if it has one, with their libraries and
//! firmware, and the images of the guest `linux`; on a disk of its own, since it is far more than the rest.

use crate::{images, root_file_system::RootFileSystem, setup, workloads};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// Serial number of the disk.
pub const DISK: &str = "machines";
/// Where the lab VM mounts it.
pub const AT: &str = "/machines";
/// Folders of the disk whose files programs expect at the root.
const AT_ROOT: [&str; 3] = ["lib", "lib64", "usr"];
/// Folder of the disk that holds the images.
pub const IMAGES: &str = "/machines/images";

const QEMU: &str = "qemu-system-x86_64";
const FIRECRACKER: &str = "firecracker";
/// Its firmware, some of which is in a package of its own.
const QEMU_DATA: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
/// Debian's package has its software emulation as a module.
const QEMU_EMULATION: &str = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so";
/// Guests whose images a person makes (docs/sandboxes.md); the lab has those that are there.
const BY_HAND: [&str; 4] = ["nanos", "osv", "unikraft", "hermit"];
/// What images there can be of one.
const FILES: [&str; 4] = ["kernel", "symbols", "initrd", "drive"];
/// Room on the disk for the rest.
const MIB: u64 = 384;
/// Where the agent finds it, wherever it is on this machine.
const LOCAL_PROGRAMS: &str = "usr/local/bin";

/// The content of the disk.
pub struct Machines {
    /// Folder of this machine that holds it.
    pub content: PathBuf,
    /// Whether Firecracker is among it.
    pub has_firecracker: bool,
    /// Size of the disk that it needs.
    pub mib: u64,
}

impl Machines {
    /// The files that programs expect at the root: paths there, and on the disk.
    ///
    /// # Errors
    /// When the content can't be read.
    pub fn at_root(&self, shell: &Shell) -> Result<Vec<(String, String)>> {
        let mut folders: Vec<_> = AT_ROOT.iter().map(|folder| self.content.join(folder)).collect();
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in shell.read_dir(folder)? {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inside = path.strip_prefix(&self.content)?.display();
                    files.push((format!("/{inside}"), format!("{AT}/{inside}")));
                }
            }
        }
        Ok(files)
    }
}

/// Gathers it below a folder.
///
/// # Errors
/// When something is missing.
pub fn gather(shell: &Shell, folder: &Path) -> Result<Machines> {
    workloads::rust(shell)?;
    let images = images::build_for_tests(shell)?;
    let mut root = RootFileSystem::create(shell, folder)?;
    let qemu = setup::find(QEMU).with_context(|| format!("there is no {QEMU}: `cargo xtask setup`"))?;
    root.add_program(&qemu.canonicalize()?)?;
    for folder in QEMU_DATA {
        root.add_folder(Path::new(folder), &[])?;
    }
    if Path::new(QEMU_EMULATION).is_file() {
        root.add_program(Path::new(QEMU_EMULATION))?;
    }
    let firecracker = setup::find(FIRECRACKER);
    let content = root.inside(Path::new("/"));
    if let Some(program) = &firecracker {
        let program = program.canonicalize()?;
        root.add_program(&program)?;
        let place = content.join(LOCAL_PROGRAMS);
        shell.create_dir(&place)?;
        shell.copy_file(&program, place.join(FIRECRACKER))?;
    }
    let (from, to) = (images.join("linux"), content.join("images/linux"));
    for file in ["kernel", "symbols", "data", "rust/initrd"] {
        let place = to.join(file);
        shell.create_dir(place.parent().unwrap_or(&to))?;
        shell.copy_file(from.join(file), &place)?;
    }
    let mut mib = MIB;
    for file in BY_HAND.iter().flat_map(|guest| FILES.map(|file| Path::new(guest).join(file))) {
        let (from, to) = (images.join(&file), content.join("images").join(&file));
        if from.is_file() {
            shell.create_dir(to.parent().unwrap_or(&to))?;
            // A disk is mostly holes.
            cmd!(shell, "cp --sparse=always {from} {to}").quiet().run()?;
            mib += from.metadata()?.len() >> 20;
        }
    }
    Ok(Machines { content, has_firecracker: firecracker.is_some(), mib })
}
