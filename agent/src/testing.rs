//! How a test says that this host can't run it. A skip is printed and written down, so that the test command can count it and
//! fail when it concerns something that the host should be able to do.

use std::{fmt::Display, fs::OpenOptions, io::Write};

/// File that collects the skips of a whole test run.
const SKIP_LOG: &str = "SANDSCOPE_SKIP_LOG";

/// Reports that a test did not run because the host lacks a feature.
pub fn skip(test: &str, feature: &str, reason: impl Display) {
    // One line each: what a kernel says of a BPF program has many.
    let reason = reason.to_string().trim().replace('\n', " | ");
    let line = format!("SKIP {test} [{feature}]: {reason}");
    eprintln!("{line}");
    let Some(path) = std::env::var_os(SKIP_LOG) else { return };
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut log| writeln!(log, "{line}"));
    if let Err(error) = written {
        panic!("can't write to {SKIP_LOG}={}: {error}", path.display());
    }
}
