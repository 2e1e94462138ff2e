//! Installs what is missing: distribution packages, the BPF linker, the source of the standard library.
//!
//! What belongs to the distribution is installed by its package manager. What must have one exact version, since the BPF object
//! is reproducible with that alone, goes below `target/tools` and touches nothing else on the machine.

use crate::{
    debian,
    root::{root, target},
};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// The last linker that uses the compiler's own LLVM; later ones need an LLVM of the system.
const BPF_LINKER_VERSION: &str = "0.10.4";

/// Where a sandbox looks for its runtime, and where a program that no package manager knows belongs.
const LOCAL_PROGRAMS: &str = "/usr/local/bin";

/// What to install.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only say what would be installed.
    #[arg(long)]
    dry_run: bool,
    /// Only what is needed to build and run sandscope, not what its tests and its BPF programs need.
    #[arg(long)]
    run_only: bool,
}

/// What something is needed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Building and running sandscope.
    Run,
    /// Its tests, and rebuilding its BPF programs.
    Test,
}

/// A program that a distribution's package brings.
struct Program {
    name: &'static str,
    /// Package of Debian and Ubuntu.
    package: &'static str,
    purpose: Purpose,
    why: &'static str,
}

const PROGRAMS: [Program; 19] = [
    Program { name: "cc", package: "gcc", purpose: Purpose::Run, why: "links programs" },
    Program { name: "ld.so", package: "libc6-dev", purpose: Purpose::Run, why: "static C library of the workload" },
    Program { name: "go", package: "golang-go", purpose: Purpose::Run, why: "builds the workload `go`" },
    Program { name: "node", package: "nodejs", purpose: Purpose::Run, why: "the workload `node`" },
    Program { name: "python3", package: "python3", purpose: Purpose::Run, why: "the workload `python`" },
    Program { name: "runc", package: "runc", purpose: Purpose::Run, why: "the sandbox `runc`" },
    Program { name: "crun", package: "crun", purpose: Purpose::Run, why: "the sandbox `crun`" },
    Program { name: "dockerd", package: "docker.io", purpose: Purpose::Test, why: "the sandbox `docker`" },
    Program { name: "setpriv", package: "util-linux", purpose: Purpose::Test, why: "ends that daemon with the tests" },
    Program { name: "venv", package: "python3-venv", purpose: Purpose::Test, why: "reads the results as users do" },
    Program { name: "ip", package: "iproute2", purpose: Purpose::Test, why: "tests of what is left behind" },
    Program {
        name: "perf",
        package: "linux-perf",
        purpose: Purpose::Test,
        why: "counts the same events independently",
    },
    Program {
        name: "bpftrace",
        package: "bpftrace",
        purpose: Purpose::Test,
        why: "counts the same events independently",
    },
    Program { name: "wrk", package: "wrk", purpose: Purpose::Test, why: "makes as much load as the load generator" },
    Program { name: "chromium", package: "chromium", purpose: Purpose::Test, why: "shows reports as people see them" },
    Program { name: "java", package: "openjdk-17-jre-headless", purpose: Purpose::Test, why: "runs Spark" },
    Program { name: "unshare", package: "util-linux", purpose: Purpose::Test, why: "tests on a host without devices" },
    Program { name: "qemu-system-x86_64", package: "qemu-system-x86", purpose: Purpose::Test, why: "the lab VM" },
    Program { name: "busybox", package: "busybox-static", purpose: Purpose::Test, why: "the user space of the lab VM" },
];

/// Installs what is missing.
///
/// # Errors
/// When something can't be installed; names it, and how to install it by hand.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    let purpose = if arguments.run_only { Purpose::Run } else { Purpose::Test };
    if arguments.dry_run {
        for program in missing(purpose) {
            println!("would install the package {} ({}: {})", program.package, program.name, program.why);
        }
        return Ok(());
    }
    ensure(shell, purpose)?;
    println!("everything is there; `cargo xtask quickstart` is next");
    Ok(())
}

/// Installs what is missing for a purpose.
///
/// # Errors
/// As [`execute`].
pub fn ensure(shell: &Shell, purpose: Purpose) -> Result<()> {
    install_packages(shell, &missing(purpose))?;
    install_runsc(shell)?;
    if purpose >= Purpose::Test {
        // One mostly computes, the other mostly downloads.
        return std::thread::scope(|scope| {
            let python = scope.spawn(|| python(&Shell::new()?).map(drop));
            bpf_linker(shell)?;
            rust_source(shell)?;
            python.join().unwrap_or_else(|_| bail!("the installation of Python packages panicked"))
        });
    }
    Ok(())
}

/// Installs one of the programs, if it is missing.
///
/// # Errors
/// When it can't be installed.
pub fn ensure_program(shell: &Shell, name: &str) -> Result<()> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|program| program.name == name && !is_there(name)).collect();
    install_packages(shell, &missing)
}

fn missing(purpose: Purpose) -> Vec<&'static Program> {
    PROGRAMS.iter().filter(|program| program.purpose <= purpose && !is_there(program.name)).collect()
}

fn is_there(program: &str) -> bool {
    // No program: the static C library tells whether its package is there.
    if program == "ld.so" {
        return ["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib/aarch64-linux-gnu/libc.a", "/usr/lib64/libc.a"]
            .iter()
            .any(|library| Path::new(library).is_file());
    }
    // A module of Python that Debian packs apart.
    if program == "venv" {
        let tried = std::process::Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
        return tried.is_ok_and(|output| output.status.success());
    }
    find(program).is_some()
}

/// Path of a program, also where only root looks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let root_only = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(root_only).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn install_packages(shell: &Shell, programs: &[&Program]) -> Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    for program in programs {
        println!("installing the package {} ({}: {})", program.package, program.name, program.why);
    }
    let packages: Vec<_> = programs.iter().map(|program| program.package).collect();
    if find("apt-get").is_none() {
        bail!(
            "this machine has no apt-get; install by its package manager what these packages of Debian hold: {}",
            packages.join(", ")
        );
    }
    // An update that fails leaves the lists of before, which may do.
    let updated = as_root(shell, &["apt-get", "--quiet=2", "update"]);
    let mut command = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2", "install", "--yes"];
    command.push("--no-install-recommends");
    command.extend(&packages);
    as_root(shell, &command).with_context(|| {
        let hint = updated.err().map_or(String::new(), |error| format!(" (and `apt-get update` failed: {error})"));
        format!("can't install {}{hint}", packages.join(", "))
    })
}

/// Runs a command as root, by sudo where that is needed.
///
/// # Errors
/// When it fails.
pub fn as_root(shell: &Shell, command: &[&str]) -> Result<()> {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let [program, arguments @ ..] = &[sudo, command].concat()[..] else { bail!("no command") };
    cmd!(shell, "{program} {arguments...}").quiet().run()?;
    Ok(())
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// gVisor. Debian's stable package is too old for today's kernels (its sentry does not start), the backport is not.
fn install_runsc(shell: &Shell) -> Result<()> {
    if find("runsc").is_some() {
        return Ok(());
    }
    println!("installing runsc to {LOCAL_PROGRAMS} (the sandbox `gvisor`)");
    let folder = debian::unpacked(shell, "bookworm-backports", "runsc", None)
        .context("can't get runsc from Debian; https://gvisor.dev/docs/user_guide/install says how to install it")?;
    let program = folder.join("usr/bin/runsc").display().to_string();
    as_root(shell, &["install", "-m", "755", &program, LOCAL_PROGRAMS])
}

/// Folder of the tools that sandscope alone uses.
fn tools() -> PathBuf {
    target().join("tools")
}

/// The BPF linker of the one version that reproduces the committed object.
///
/// # Errors
/// When it can't be built.
pub fn bpf_linker(shell: &Shell) -> Result<PathBuf> {
    let program = tools().join("bin/bpf-linker");
    if !program.is_file() {
        println!("building bpf-linker {BPF_LINKER_VERSION} into {} (links BPF programs)", tools().display());
        let (version, tools) = (BPF_LINKER_VERSION, tools());
        // The work is done by LLVM, and there is little of it: optimising the linker takes longer than it saves.
        cmd!(shell, "cargo install --quiet --locked --root {tools} --version {version} bpf-linker")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .quiet()
            .run()?;
    }
    Ok(program)
}

/// The source of the standard library that belongs to the compiler; `core` is built from it for BPF.
///
/// # Errors
/// When neither rustup nor Debian has it.
pub fn rust_source(shell: &Shell) -> Result<PathBuf> {
    let sysroot = PathBuf::from(cmd!(shell, "rustc --print sysroot").quiet().read()?);
    let library = sysroot.join("lib/rustlib/src/rust/library");
    if library.join("core").is_dir() {
        return Ok(library);
    }
    let version = compiler_version(shell)?;
    println!("getting the source of Rust's standard library {version} (`core` is built from it for BPF)");
    let by_rustup = cmd!(shell, "rustup component add rust-src").quiet().ignore_stderr().run();
    if by_rustup.is_ok() && library.join("core").is_dir() {
        return Ok(library);
    }
    let folder = debian::unpacked(shell, "trixie-backports", "rust-src", Some(&format!("{version}*")))
        .with_context(|| format!("neither rustup nor Debian has the source of Rust {version}"))?;
    Ok(folder.join(format!("usr/src/rustc-{version}/library")))
}

fn compiler_version(shell: &Shell) -> Result<String> {
    let text = cmd!(shell, "rustc --version").quiet().read()?;
    text.split_whitespace().nth(1).map(str::to_owned).context("`rustc --version` names no version")
}

/// A Python that has what readers of the results use, of the versions that `analysis` locks.
///
/// # Errors
/// When the packages can't be installed.
pub fn python(shell: &Shell) -> Result<PathBuf> {
    python_with(shell, "python", "analysis/requirements.lock", "readers of the results")
}

/// A Python that reads the names of a stock kernel's functions out of its image.
///
/// # Errors
/// When the packages can't be installed.
pub fn python_for_symbols(shell: &Shell) -> Result<PathBuf> {
    ensure_program(shell, "venv")?;
    python_with(shell, "symbols", "xtask/symbols.lock", "names of functions of stock kernels")
}

fn python_with(shell: &Shell, name: &str, lock: &str, why: &str) -> Result<PathBuf> {
    let environment = tools().join(name);
    let program = environment.join("bin/python");
    let (lock, stamp) = (root().join(lock), environment.join("requirements.lock"));
    let wanted = shell.read_file(&lock)?;
    if shell.read_file(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    println!("installing Python packages into {} ({why})", environment.display());
    cmd!(shell, "python3 -m venv --clear {environment}").quiet().run()?;
    cmd!(shell, "{program} -m pip install --quiet --requirement {lock}").quiet().run()?;
    shell.write_file(&stamp, wanted)?;
    Ok(program)
}
