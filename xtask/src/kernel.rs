//! Stock kernels, for the lab and for the guest `linux`: which there are, and how their files come here.

use crate::{
    debian::{self, Suite},
    root::target,
};
use anyhow::{Context, Result, bail, ensure};
use lab_guest::Module;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};

/// A stock kernel of Debian for cloud machines.
pub struct Kernel {
    /// What people call it by: the series.
    pub name: &'static str,
    /// Suite of Debian that has it.
    suite: &'static str,
    /// Its version, as a regular expression.
    version: &'static str,
    /// Whether the lab boots it when no kernel is named.
    pub by_default: bool,
}

/// All of them. Three that are far apart in age are the default: a long-term kernel, the next one, and a newer one. A new
/// kernel is a new line here.
pub const KERNELS: [Kernel; 4] = [
    Kernel { name: "6.1", suite: "bookworm", version: r"6\.1\.", by_default: true },
    Kernel { name: "6.12", suite: "bookworm-backports", version: r"6\.12\.", by_default: true },
    Kernel { name: "6.17", suite: "trixie-backports", version: r"6\.17\.", by_default: true },
    Kernel { name: "newest", suite: "trixie-backports", version: r"[0-9]+\.", by_default: false },
];

/// The files of a kernel on this machine.
pub struct Files {
    /// What QEMU boots.
    pub image: PathBuf,
    /// Modules in the order in which they are loaded, each decompressed.
    pub modules: Vec<(PathBuf, Module)>,
}

impl Kernel {
    /// The kernel of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<&'static Self, String> {
        KERNELS.iter().find(|kernel| kernel.name == name).ok_or_else(|| {
            let names = KERNELS.map(|kernel| kernel.name).join(", ");
            format!("the lab has the kernels {names}")
        })
    }

    /// Where the lab keeps what belongs to this kernel.
    pub fn directory(&self) -> PathBuf {
        target().join("lab").join(self.name)
    }

    /// Brings its files here, unless they are: the image and these modules, which have parameters, with those that they depend
    /// on. With `refresh` a newer package takes the place of the one that was used before.
    ///
    /// # Errors
    /// When the package is not to be had or is not what it is expected to be.
    pub fn files(&self, shell: &Shell, refresh: bool, modules: &[(&str, &str)]) -> Result<Files> {
        let packages = self.packages(shell, refresh)?;
        let folders = packages
            .iter()
            .map(|package| debian::unpacked(shell, self.suite, package, None))
            .collect::<Result<Vec<_>>>()?;
        let image = folders.iter().find_map(|folder| image(folder)).context("the kernel's package has no vmlinuz")?;
        let modules = Modules::of(&folders, &self.directory().join("modules"))?.resolve(shell, modules)?;
        Ok(Files { image, modules })
    }

    /// Names of the packages that hold the kernel, chosen once.
    fn packages(&self, shell: &Shell, refresh: bool) -> Result<Vec<String>> {
        let choice = self.directory().join("packages.txt");
        if !refresh && choice.is_file() {
            return Ok(shell.read_file(&choice)?.lines().map(str::to_owned).collect());
        }
        let suite = Suite::open(self.suite)?;
        // Most kernels are one package; from 7.x on it is empty and depends on three that share what it had.
        let pattern = format!("^linux-image-{}[0-9a-z.+~-]*-cloud-amd64$", self.version);
        let image = suite.newest(shell, &pattern)?;
        let parts = |name: &String| {
            ["linux-base-", "linux-binary-", "linux-modules-"].iter().any(|prefix| name.starts_with(prefix))
        };
        let mut packages: Vec<String> = suite.dependencies(shell, &image)?.into_iter().filter(parts).collect();
        if packages.is_empty() {
            packages.push(image);
        }
        shell.write_file(&choice, packages.join("\n"))?;
        shell.remove_path(self.directory().join("modules"))?;
        Ok(packages)
    }
}

/// `vmlinuz` in an unpacked package.
fn image(package: &Path) -> Option<PathBuf> {
    let in_boot = children(&package.join("boot"));
    let beside_modules = children(&package.join("usr/lib/modules")).into_iter().flat_map(|release| children(&release));
    let is_image = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    in_boot.into_iter().chain(beside_modules).find(is_image)
}

/// `lib/modules/RELEASE` in an unpacked package.
fn release(package: &Path) -> Option<PathBuf> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|folder| children(&package.join(folder)));
    folders.into_iter().flatten().next()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The modules of one kernel. The packages have no `modules.dep` (it is made when they are installed), so the dependencies are
/// read from the modules themselves.
struct Modules {
    /// Those of the package, maybe compressed.
    available: Vec<PathBuf>,
    /// Names of what the kernel has built in.
    built_in: BTreeSet<String>,
    /// Where the decompressed ones go.
    out: PathBuf,
}

impl Modules {
    fn of(packages: &[PathBuf], out: &Path) -> Result<Self> {
        let releases: Vec<_> = packages.iter().filter_map(|package| release(package)).collect();
        let mut available = Vec::new();
        let mut folders: Vec<_> = releases.iter().map(|release| release.join("kernel")).collect();
        while let Some(folder) = folders.pop() {
            for path in children(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    available.push(path);
                }
            }
        }
        ensure!(!available.is_empty(), "the kernel's package has no modules");
        let lists = releases.iter().map(|release| release.join("modules.builtin"));
        let list = lists.filter(|list| list.is_file()).map(fs::read_to_string).collect::<Result<String, _>>()?;
        let built_in = list.lines().map(|line| name_of(Path::new(line))).collect();
        fs::create_dir_all(out).with_context(|| format!("can't make {}", out.display()))?;
        Ok(Self { available, built_in, out: out.to_owned() })
    }

    fn resolve(&self, shell: &Shell, modules: &[(&str, &str)]) -> Result<Vec<(PathBuf, Module)>> {
        let mut loaded = Vec::new();
        for (name, parameters) in modules {
            self.add(shell, name, parameters, &mut loaded)?;
        }
        Ok(loaded)
    }

    /// Adds a module after those that it depends on.
    fn add(&self, shell: &Shell, name: &str, parameters: &str, loaded: &mut Vec<(PathBuf, Module)>) -> Result<()> {
        let name = name.replace('-', "_");
        if self.built_in.contains(&name) || loaded.iter().any(|(path, _)| name_of(path) == name) {
            return Ok(());
        }
        let Some(file) = self.available.iter().find(|path| name_of(path) == name) else {
            bail!("this kernel has no module {name}");
        };
        let plain = self.out.join(format!("{name}.ko"));
        if !plain.is_file() {
            decompress(shell, file, &plain)?;
        }
        for dependency in dependencies(&fs::read(&plain)?)? {
            self.add(shell, &dependency, "", loaded)?;
        }
        let file = format!("/lab/modules/{name}.ko");
        loaded.push((plain, Module { file, parameters: parameters.to_owned() }));
        Ok(())
    }
}

/// Name of a module from its file: `kvm-amd.ko.xz` is `kvm_amd`.
pub fn name_of(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn decompress(shell: &Shell, file: &Path, plain: &Path) -> Result<()> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => shell.copy_file(file, plain)?,
        Some("xz") => {
            let content = cmd!(shell, "xz --decompress --stdout {file}").quiet().output()?.stdout;
            shell.write_file(plain, content)?;
        }
        _ => bail!("{} is compressed in an unknown way", file.display()),
    }
    Ok(())
}

/// What a module depends on: `depends=a,b` in its section `.modinfo`, a list of zero-terminated words. No other section of a
/// module has that word behind a zero.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let start = module.windows(KEY.len()).position(|window| window == KEY);
    let value = &module[start.context("the module does not say what it depends on")? + KEY.len()..];
    let end = value.iter().position(|&byte| byte == 0).context("the module is cut off")?;
    let value = std::str::from_utf8(&value[..end])?;
    ensure!(value.is_ascii(), "the module depends on {value:?}");
    Ok(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=kvm,ccp\0retpoline=Y\0").unwrap(), ["kvm", "ccp"]);
        assert!(dependencies(b"\x7fELF\0depends=\0").unwrap().is_empty());
        assert!(dependencies(b"\x7fELF\0license=GPL\0").is_err());
    }

    #[test]
    fn names_do_not_depend_on_the_spelling_of_the_file() {
        assert_eq!(name_of(Path::new("kernel/arch/x86/kvm/kvm-amd.ko.xz")), "kvm_amd");
        assert_eq!(name_of(Path::new("kernel/net/core.ko")), "core");
    }
}
