//! Looks at the pages of a process and says how fast that was: for the project's benchmark, which must not measure what else the
//! agent does.

use anyhow::{Context, Result};
use sandscope::measure::memory::pages::{Subject, analyse};
use std::{fs, io::Write as _};

/// Prints on one line: bytes per second, bytes that were looked at, bytes of the table
/// of fingerprints, and by how many bytes this process was larger meanwhile.
pub fn scan(pid: i32) -> Result<()> {
    // Forgets the largest size so far (`Documentation/filesystems/proc.rst`).
    fs::write("/proc/self/clear_refs", "5").context("can't reset the largest size of this process")?;
    let before = own_bytes("VmRSS:")?;
    let analysis = analyse(&[Subject { pid, role: "vmm".into(), instance: 0 }], &[], true)?;
    let grown = own_bytes("VmHWM:")?.saturating_sub(before);
    let speed = analysis.scanned_bytes as f64 / analysis.scan_time.as_secs_f64();
    writeln!(std::io::stdout(), "{speed} {} {} {grown}", analysis.scanned_bytes, analysis.table_bytes)?;
    Ok(())
}

fn own_bytes(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    Ok(value.with_context(|| format!("no {field}"))?.parse::<u64>()? << 10)
}
