//! Builds the workloads that run inside the sandboxes, and the file that they serve, into `target/workloads/NAME/app`.

use crate::{
    root::{self, target},
    root_file_system::RootFileSystem,
    setup,
};
use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use xshell::{Shell, cmd};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// The file of `/static`, `/read` and `/unzip` is an archive of as many files of this size as the paper's.
const STATIC_FILES: usize = 10;
const STATIC_FILE_BYTES: usize = 5 << 20;

/// Names of the workloads, which are those of their folders.
pub const NAMES: [&str; 4] = ["rust", "go", "node", "python"];

/// Builds all of them.
///
/// # Errors
/// When a compiler is missing or fails.
pub fn build(shell: &Shell) -> Result<()> {
    rust(shell)?;
    let folder = target().join("workloads");
    go(shell, &folder.join("go"))?;
    node(shell, &folder.join("node"))?;
    python(shell, &folder.join("python"))?;
    static_file()?;
    Ok(())
}

/// Builds the one that no compiler but Rust's is needed for.
///
/// # Errors
/// As [`build`].
pub fn rust(shell: &Shell) -> Result<()> {
    let folder = target().join("workloads/rust");
    let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let configuration = root::root().join("workloads/rust/static.toml");
    cmd!(
        shell,
        "cargo build --quiet --locked --config {configuration} --profile workload --target {machine}
         --package sandscope-workload"
    )
    // It would take the place of the flags in the configuration.
    .env_remove("RUSTFLAGS")
    .quiet()
    .run()?;
    shell.create_dir(&folder)?;
    let (built, app) = (target().join(machine).join("workload/sandscope-workload"), folder.join("app"));
    // What has not changed keeps its time: images that hold it would count as old.
    let is_new = std::fs::read(&app).ok() != Some(shell.read_binary_file(&built)?);
    if is_new {
        shell.copy_file(built, app)?;
    }
    Ok(())
}

fn go(shell: &Shell, folder: &Path) -> Result<()> {
    shell.create_dir(folder)?;
    let _directory = shell.push_dir(root::root().join("workloads/go"));
    let app = folder.join("app");
    let linker_flags = "-ldflags=-s -w";
    cmd!(shell, "go build -trimpath -buildvcs=false {linker_flags} -o {app} .")
        .env("CGO_ENABLED", "0")
        .quiet()
        .run()
        .context("can't build the workload `go`")?;
    Ok(())
}

fn node(shell: &Shell, folder: &Path) -> Result<()> {
    let program = setup::find("node").context("there is no `node` to pack for the workload `node`")?;
    let program = program.canonicalize()?;
    let mut root = RootFileSystem::create(shell, folder)?;
    root.add_program(&program)?;
    root.add_application(&root::root().join("workloads/node"), &["js", "json"])?;
    root.finish(&[&program.display().to_string(), "/app/main.js"])
}

fn python(shell: &Shell, folder: &Path) -> Result<()> {
    // The distribution's, wherever another one is first in the search path: that may not be relocatable.
    let program = PathBuf::from("/usr/bin/python3").canonicalize().context("there is no /usr/bin/python3 to pack")?;
    let library =
        cmd!(shell, "{program} -I -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))'").quiet().read()?;
    let mut root = RootFileSystem::create(shell, folder)?;
    root.add_program(&program)?;
    // What no server needs; compiled code would not match the copies' times.
    let left_out = [
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "dist-packages",
        "site-packages",
    ];
    root.add_folder(Path::new(&library), &left_out)?;
    root.add_application(&root::root().join("workloads/python"), &["py"])?;
    // Compiled, as an image for containers would have it; by content, since the copies have times of their own.
    let (library, application) = (root.inside(Path::new(&library)), root.inside(Path::new("/app")));
    cmd!(shell, "{program} -I -m compileall -q -f --invalidation-mode unchecked-hash {library} {application}")
        .quiet()
        .run()?;
    root.finish(&[&program.display().to_string(), "/app/main.py"])
}

/// Writes the archive, unless it is there, and tells where. It is the same on every machine: random bytes from a fixed seed, which
/// no compression and no page sharing can make smaller.
///
/// # Errors
/// When it can't be written.
pub fn static_file() -> Result<PathBuf> {
    let path = target().join("workloads/static_file.zip");
    if path.is_file() {
        return Ok(path);
    }
    let partial = path.with_added_extension("partial");
    let file = File::create(&partial).with_context(|| format!("can't make {}", partial.display()))?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    let mut random = StdRng::seed_from_u64(0);
    let mut content = vec![0; STATIC_FILE_BYTES];
    for number in 0..STATIC_FILES {
        random.fill_bytes(&mut content);
        archive.start_file(format!("file{number}"), options)?;
        archive.write_all(&content)?;
    }
    archive.finish()?.flush()?;
    std::fs::rename(&partial, &path).with_context(|| format!("can't name {}", path.display()))?;
    Ok(path)
}
