//! Builds the BPF objects that are committed, so that `cargo build` needs nothing but stable Rust.
//!
//! The same source gives the same bytes on every machine: the compiler is pinned by `rust-toolchain.toml`, the linker by
//! [`setup`], and every path that could get into the object is mapped to one that is the same everywhere.

use crate::{
    root::{root, target},
    setup,
};
use anyhow::{Context, Result, bail};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// The target: little endian, as every machine that sandscope runs on.
const TARGET: &str = "bpfel-unknown-none";

/// The objects, each a binary of `agent-ebpf` and a mode of recording.
const OBJECTS: [&str; 2] = ["aggregate", "timeline"];

/// Whether to write.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fail when a committed object is not what its source gives; write nothing.
    #[arg(long)]
    check: bool,
}

/// Rebuilds the objects, or checks them.
///
/// # Errors
/// When one can't be built, or `--check` finds a difference.
pub fn execute(shell: &Shell, arguments: &Arguments) -> Result<()> {
    if arguments.check { check(shell) } else { write(shell) }
}

fn committed(name: &str) -> PathBuf {
    root().join("agent/bpf").join(name).with_extension("o")
}

fn write(shell: &Shell) -> Result<()> {
    for (name, object) in build(shell)? {
        shell.write_file(committed(name), object)?;
        println!("wrote {}", committed(name).display());
    }
    Ok(())
}

/// Fails unless the committed objects are what their source gives.
///
/// # Errors
/// When one is not, or can't be built.
pub fn check(shell: &Shell) -> Result<()> {
    for (name, object) in build(shell)? {
        if object != shell.read_binary_file(committed(name))? {
            bail!("{} is not what its source gives; run `cargo xtask build-ebpf`", committed(name).display());
        }
    }
    Ok(())
}

/// The objects as they are to be committed, by name.
fn build(shell: &Shell) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let linker = setup::bpf_linker(shell)?;
    let library = setup::rust_source(shell)?;
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    // `RUSTFLAGS` would not do: a path may contain a space.
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--remap-path-prefix={}=/rust", library.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=.", root().display()),
    ]
    .join("\u{1f}");
    let directory = target().join("bpf");
    let _flags = shell.push_env("CARGO_ENCODED_RUSTFLAGS", flags);
    // `-Z build-std` and the target are not stable; the compiler that knows them is.
    let _unstable = shell.push_env("RUSTC_BOOTSTRAP", "1");
    // Where cargo looks for the library's source instead of the compiler's own folder.
    let _source = shell.push_env("__CARGO_TESTS_ONLY_SRC_ROOT", &library);
    cmd!(
        shell,
        "cargo build --quiet --locked --profile bpf --target {TARGET} -Z build-std=core --target-dir {directory}
         --package sandscope-ebpf --features programs --bins"
    )
    .quiet()
    .run()?;
    let built = directory.join(TARGET).join("bpf");
    OBJECTS.iter().map(|&name| Ok((name, without_dwarf(&shell.read_binary_file(built.join(name))?)?))).collect()
}

/// Removes what a debugger would read, nine tenths of the file. What the kernel reads stays: from `.BTF` and `.BTF.ext` the
/// verifier's log and `bpftool` quote source lines.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's output is no ELF file")?;
    for section in builder.sections.iter_mut() {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    // LLVM keeps the names of sections and symbols in one section; the writer wants two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("can't write the object without debug information")?;
    Ok(out)
}
