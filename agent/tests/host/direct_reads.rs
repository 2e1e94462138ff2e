//! Reads past the page cache (`O_DIRECT`) against known answers: they are neither hits nor misses, however the descriptor came to be
//! one of these.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print, also in its helpers")]

use crate::common::{probes, spawn_in_scope};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use sandscope::{
    probe::{Options, Probes},
    testing::skip,
};
use sandscope_ebpf::map::FileCounts;
use std::{
    fs::File,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    process::Command,
};
use tempfile::NamedTempFile;

const SCOPE: u16 = 1;
const BYTES: u64 = 8 << 20;
const CALLS: u64 = BYTES / (64 << 10);

/// Probes that watch files, and a file of 8 MiB on a file system that can be read past the page cache; else a reported skip.
fn bench(test: &str) -> Option<(Probes, NamedTempFile)> {
    let mut probes = probes(test, Options::default())?;
    // Beside the build, which is on a disk; the directory for temporary files may be in memory.
    let file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), vec![5; BYTES as usize]).unwrap();
    // Dirty pages would be written back by the first direct read.
    file.as_file().sync_all().unwrap();
    if let Err(error) = opened(&file) {
        skip(test, "disk", format!("this file system has no O_DIRECT: {error}"));
        return None;
    }
    probes.attach().unwrap();
    probes.watch_files(SCOPE).unwrap();
    Some((probes, file))
}

fn opened(file: &NamedTempFile) -> std::io::Result<File> {
    File::options().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(file.path())
}

/// Reads all of it in calls of 64 KiB, as a program of the sandbox would.
fn copy(probes: &Probes, command: &mut Command) {
    let status = spawn_in_scope(probes, SCOPE, command.args(["of=/dev/null", "bs=64k", "status=none"])).wait().unwrap();
    assert!(status.success());
}

fn counts(probes: &Probes, file: &NamedTempFile) -> FileCounts {
    let inode = file.as_file().metadata().unwrap().ino();
    let sums = probes.file_sums(SCOPE).unwrap().expect("this kernel tells of files");
    sums.files.iter().find(|((of, _), _)| *of == inode).map(|(_, counts)| *counts).unwrap()
}

fn input(file: &NamedTempFile) -> String {
    format!("if={}", file.path().display())
}

#[test]
fn a_file_that_is_opened_for_it_is_read_past_the_page_cache() {
    let Some((probes, file)) = bench("a_file_that_is_opened_for_it_is_read_past_the_page_cache") else { return };
    copy(&probes, Command::new("dd").args([&input(&file), "iflag=direct"]));
    let counts = counts(&probes, &file);
    assert_eq!((counts.read_bytes, counts.direct_bytes), (BYTES, BYTES), "{counts:?}");
    assert_eq!((counts.missed_by_reads, counts.missed_by_faults), (0, 0), "{counts:?}");
    // The last call finds the end.
    assert_eq!(counts.reads, CALLS + 1, "{counts:?}");
}

#[test]
fn an_inherited_descriptor_is_what_it_was_opened_for() {
    let Some((probes, file)) = bench("an_inherited_descriptor_is_what_it_was_opened_for") else { return };
    copy(&probes, Command::new("dd").stdin(opened(&file).unwrap()));
    assert_eq!(counts(&probes, &file).direct_bytes, BYTES);
    // One that is set back afterwards reads from the page cache, where the file is already.
    std::fs::read(file.path()).unwrap();
    let usual = opened(&file).unwrap();
    fcntl_setfl(&usual, fcntl_getfl(&usual).unwrap() - OFlags::DIRECT).unwrap();
    copy(&probes, Command::new("dd").stdin(usual));
    let both = counts(&probes, &file);
    assert_eq!((both.read_bytes, both.direct_bytes, both.missed_by_reads), (2 * BYTES, BYTES, 0), "{both:?}");
}

#[test]
fn both_ways_in_one_file_are_told_apart() {
    let Some((probes, file)) = bench("both_ways_in_one_file_are_told_apart") else { return };
    copy(&probes, Command::new("dd").args([&input(&file), "iflag=direct"]));
    copy(&probes, Command::new("dd").arg(input(&file)));
    copy(&probes, Command::new("dd").args([&input(&file), "iflag=direct", "count=32"]));
    // What is written past the page cache is no read at all.
    let written = Command::new("dd")
        .args(["if=/dev/zero", "count=4", "bs=64k", "oflag=direct", "conv=notrunc", "status=none"])
        .arg(format!("of={}", file.path().display()))
        .status();
    assert!(written.unwrap().success());
    let counts = counts(&probes, &file);
    let direct = BYTES + 32 * (64 << 10);
    assert_eq!((counts.read_bytes, counts.direct_bytes), (BYTES + direct, direct), "{counts:?}");
    assert_eq!((counts.writes, counts.written_bytes), (0, 0), "the writer was not of the scope: {counts:?}");
}
