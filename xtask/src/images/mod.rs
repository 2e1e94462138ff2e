//! Images for virtual machines, made without root into `target/images`: for the guest `linux` a stock kernel, for each workload an
//! initial RAM disk with an init of our own, and for all of them a disk with the file that they serve.
//!
//! An image is made anew only when something that goes into it has changed: its key is a hash of all of that.

mod vmlinux;

use crate::{
    cpio::Archive,
    ext4,
    kernel::{Files, Kernel, name_of},
    root::{root, target},
    setup, workloads,
};
use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::SystemTime,
};
use xshell::{Shell, cmd};

/// Series of the kernel, unless somebody decides.
const KERNEL: &str = "6.1";

/// What a file system takes for itself, beside a share of its content.
const LEAST_MIB: u64 = 4;

/// Which kernel.
#[derive(clap::Args)]
pub struct Arguments {
    /// Series of the kernel, as for `cargo xtask lab`.
    #[arg(long, default_value = KERNEL, value_parser = |name: &str| Kernel::find(name))]
    kernel: &'static Kernel,
    /// Look for a newer package of the kernel than that used before.
    #[arg(long)]
    refresh: bool,
}

/// Drivers of the devices that VMMs offer, with the bus that only they need. Stock kernels have them as modules.
const MODULES: [(&str, Option<&str>); 5] = [
    ("virtio_mmio", Some("mmio")),
    ("virtio_pci", Some("pci")),
    ("virtio_net", None),
    ("virtio_blk", None),
    ("ext4", None),
];

/// Builds them.
///
/// # Errors
/// When the kernel is not to be had, or no workload is built.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the guest `linux` is for x86-64 machines only so far");
    build(shell, arguments.kernel, arguments.refresh)
}

/// Builds those that the tests boot, and tells where they are; nothing on a machine that has none.
///
/// # Errors
/// As [`execute`].
pub fn build_for_tests(shell: &Shell) -> Result<PathBuf> {
    if cfg!(target_arch = "x86_64") {
        build(shell, Kernel::find(KERNEL).map_err(Error::msg)?, false)?;
    }
    Ok(folder())
}

/// Where images are: a folder for each guest.
fn folder() -> PathBuf {
    target().join("images")
}

fn build(shell: &Shell, kernel: &Kernel, refresh: bool) -> Result<()> {
    let folder = folder().join("linux");
    let modules: Vec<_> = MODULES.iter().map(|(name, _)| (*name, "")).collect();
    let files = kernel.files(shell, refresh, &modules)?;
    let kernel = folder.join("kernel");
    build_kernel(&files.image, &kernel)?;
    if let Err(error) = build_symbols(shell, &kernel, &folder.join("symbols")) {
        println!("the guest boots, but the addresses at which it exits will have no names: {error:#}");
    }
    build_data(shell, &folder.join("data"))?;
    let init = build_init(shell)?;
    let mut built = 0;
    for name in workloads::NAMES {
        let content = target().join("workloads").join(name);
        if !content.is_dir() {
            println!("the workload `{name}` is not built, so it gets no image: `cargo xtask workloads` builds it");
            continue;
        }
        let disk = Disk::of(&init, &files, &content).with_context(|| format!("the workload `{name}`"))?;
        disk.build(&folder.join(name).join("initrd"))?;
        built += 1;
    }
    ensure!(built > 0, "no workload is built: `cargo xtask workloads` builds them");
    Ok(())
}

/// Takes the kernel out of its package's image.
fn build_kernel(image: &Path, at: &Path) -> Result<()> {
    let content = fs::read(image).with_context(|| format!("can't read {}", image.display()))?;
    let mut key = Key::default();
    key.add("image", &content);
    build_unless_known(at, key, |partial| {
        let kernel = vmlinux::extract(&content).with_context(|| image.display().to_string())?;
        fs::write(partial, kernel).with_context(|| format!("can't write {}", partial.display()))
    })
}

/// Writes the names of the kernel's functions, for addresses at which guests exit, as `/proc/kallsyms` has them: a stock kernel has
/// no ELF symbols, but that table is in it.
fn build_symbols(shell: &Shell, kernel: &Path, at: &Path) -> Result<()> {
    let program = setup::python_for_symbols(shell)?;
    let finder = program.with_file_name("kallsyms-finder");
    let mut key = Key::default();
    let content = fs::read(kernel).with_context(|| format!("can't read {}", kernel.display()))?;
    key.add("kernel", &content);
    key.add("finder", shell.read_file(root().join("xtask/symbols.lock"))?.as_bytes());
    build_unless_known(at, key, |partial| {
        let table = cmd!(shell, "{program} {finder} {kernel}").quiet().ignore_stderr().read();
        let table = table.with_context(|| format!("no names of functions were found in {}", kernel.display()))?;
        fs::write(partial, table).with_context(|| format!("can't write {}", partial.display()))
    })
}

/// Makes the disk with the file that workloads serve, as `/static_file`.
fn build_data(shell: &Shell, at: &Path) -> Result<()> {
    let file = workloads::static_file()?;
    let content = fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
    let mut key = Key::default();
    key.add("static_file", &content);
    key.add("file system", ext4::OPTIONS.join(" ").as_bytes());
    build_unless_known(at, key, |partial| {
        let folder = tempfile::tempdir().context("can't make a folder")?;
        let inside = folder.path().join("static_file");
        shell.copy_file(&file, inside)?;
        let mib = (content.len() as u64).div_ceil(1 << 20);
        ext4::make(shell, partial, mib + mib / 8 + LEAST_MIB, Some(folder.path()))
    })
}

/// Builds the first process, and returns its file.
fn build_init(shell: &Shell) -> Result<PathBuf> {
    let triple = "x86_64-unknown-linux-gnu";
    let configuration = root().join("workloads/init/static.toml");
    cmd!(
        shell,
        "cargo build --quiet --locked --config {configuration} --profile init --target {triple} --package sandscope-init"
    )
    // It would take the place of the flags in the configuration.
    .env_remove("RUSTFLAGS")
    .quiet()
    .run()?;
    Ok(target().join(triple).join("init/sandscope-init"))
}

/// An initial RAM disk.
#[derive(Default)]
struct Disk {
    entries: Vec<(String, Entry)>,
}

enum Entry {
    File(PathBuf),
    Text(String),
    Link(String),
    Directory,
}

/// What `workload.toml` in the folder of a workload says, of what matters here.
#[derive(Deserialize)]
struct Description {
    command: Vec<String>,
}

impl Disk {
    /// With what `workloads/init` expects.
    fn of(init: &Path, files: &Files, workload: &Path) -> Result<Self> {
        let mut disk = Self::default();
        disk.add("/init", Entry::File(init.to_owned()));
        let mut order = String::new();
        for (file, _) in &files.modules {
            let name = name_of(file);
            // What a bus's driver needs, such as `virtio_pci_modern_dev`, is named after it.
            let bus = MODULES.iter().find(|(module, bus)| bus.is_some() && name.starts_with(module));
            let bus = bus.and_then(|(_, bus)| *bus).map_or(String::new(), |bus| format!(" {bus}"));
            order.push_str(&format!("{name}{bus}\n"));
            disk.add(&format!("/modules/{name}.ko"), Entry::File(file.clone()));
        }
        disk.add("/modules/order", Entry::Text(order));
        let (app, description) = (workload.join("app"), workload.join("workload.toml"));
        let command = if app.is_file() {
            disk.add("/app", Entry::File(app));
            vec!["/app".to_owned()]
        } else {
            let text =
                fs::read_to_string(&description).with_context(|| format!("can't read {}", description.display()))?;
            let Description { command } = toml::from_str(&text).with_context(|| description.display().to_string())?;
            disk.add_folder("", &workload.join("root"))?;
            command
        };
        if let Some(word) = command.iter().find(|word| word.contains('\n')) {
            bail!("the word {word:?} of its command has a line break in it");
        }
        disk.add("/command", Entry::Text(command.join("\n")));
        Ok(disk)
    }

    fn add(&mut self, at: &str, entry: Entry) {
        self.entries.push((at.to_owned(), entry));
    }

    fn add_folder(&mut self, at: &str, folder: &Path) -> Result<()> {
        let failed = || format!("can't read {}", folder.display());
        let mut children =
            fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(failed)?;
        // The order of a folder is that of its making, and would change the image.
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            let (path, kind) = (child.path(), child.file_type().with_context(failed)?);
            let inside = format!("{at}/{}", child.file_name().to_string_lossy());
            if kind.is_dir() {
                self.add(&inside, Entry::Directory);
                self.add_folder(&inside, &path)?;
            } else if kind.is_symlink() {
                self.add(&inside, Entry::Link(fs::read_link(&path)?.to_string_lossy().into_owned()));
            } else {
                self.add(&inside, Entry::File(path));
            }
        }
        Ok(())
    }

    fn key(&self) -> Result<Key> {
        let mut key = Key::default();
        for (at, entry) in &self.entries {
            match entry {
                Entry::File(path) => {
                    let content = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
                    key.add(at, &content);
                }
                Entry::Text(text) => key.add(at, text.as_bytes()),
                Entry::Link(to) => key.add(at, format!("-> {to}").as_bytes()),
                Entry::Directory => key.add(at, b"directory"),
            }
        }
        Ok(key)
    }

    fn build(&self, at: &Path) -> Result<()> {
        build_unless_known(at, self.key()?, |partial| {
            let mut archive = Archive::create(partial)?;
            for (at, entry) in &self.entries {
                match entry {
                    Entry::File(path) => archive.file(at, path)?,
                    Entry::Text(text) => archive.content(at, text.as_bytes())?,
                    Entry::Link(to) => archive.link(at, to)?,
                    Entry::Directory => archive.directory(at)?,
                }
            }
            archive.finish()
        })
    }
}

/// A hash of everything that goes into an image.
#[derive(Default)]
struct Key(Sha256);

impl Key {
    fn add(&mut self, name: &str, content: &[u8]) {
        for part in [name.as_bytes(), content] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn digits(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Makes an image unless the one that is there was made of the same. Either way its time is that of this call: what is older
/// than its workload is taken for outdated.
fn build_unless_known(at: &Path, key: Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (key, key_file) = (key.digits(), at.with_added_extension("key"));
    let folder = at.parent().context("an image has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let is_known = at.is_file() && fs::read_to_string(&key_file).is_ok_and(|known| known == key);
    if !is_known {
        let partial = at.with_added_extension("partial");
        make(&partial)?;
        fs::rename(&partial, at).with_context(|| format!("can't name {}", at.display()))?;
        let written = File::create(&key_file).and_then(|mut file| file.write_all(key.as_bytes()));
        written.with_context(|| format!("can't write {}", key_file.display()))?;
    }
    let touched = File::options().write(true).open(at).and_then(|file| file.set_modified(SystemTime::now()));
    touched.with_context(|| format!("can't set the time of {}", at.display()))?;
    println!("{} {} ({} KiB)", if is_known { "kept " } else { "built" }, at.display(), fs::metadata(at)?.len() >> 10);
    Ok(())
}
