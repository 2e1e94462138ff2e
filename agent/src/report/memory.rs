//! A run of the memory experiment on the terminal: per sandbox what one more instance costs, who has it, and what became of
//! the host's memory.

use crate::experiment::{
    memory::{ContentSummary, Lost, MemorySummary, MergingSummary, SandboxMemory},
    statistics::Slope,
};
use crate::report::units::duration;
use std::fmt::{self, Display, Formatter};

/// The summary, laid out for a terminal.
pub struct MemoryReport<'a>(pub &'a MemorySummary);

impl Display for MemoryReport<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for sandbox in &self.0.sandboxes {
            write_sandbox(out, sandbox, self.0.minor_fault_ns)?;
        }
        Ok(())
    }
}

fn write_sandbox(out: &mut Formatter<'_>, sandbox: &SandboxMemory, fault_ns: f64) -> fmt::Result {
    write!(out, "{}", sandbox.sandbox)?;
    match &sandbox.available_per_instance {
        Some(slope) => write!(out, "  {} MiB of MemAvailable per instance", interval(slope))?,
        None => write!(out, "  too few instances to say what one more costs")?,
    }
    if let Some(slope) = &sandbox.pss_per_instance {
        write!(out, ", {} MiB of PSS", interval(slope))?;
    }
    writeln!(out, ", {} ok, {} failed", sandbox.ok_count, sandbox.failed_count)?;
    if let Some(error) = &sandbox.first_error {
        writeln!(out, "  first failure: {error}")?;
    }
    if sandbox.instances_count == 0 {
        return writeln!(out);
    }
    writeln!(out, "  an instance of {}:", sandbox.instances_count)?;
    writeln!(
        out,
        "    {:<14} {:>9} {:>9} {:>9} {:>9} {:>11}",
        "role", "processes", "RSS", "PSS", "USS", "page tables"
    )?;
    for role in &sandbox.roles {
        writeln!(
            out,
            "    {:<14} {:>9.1} {:>9} {:>9} {:>9} {:>11}",
            role.role,
            role.processes_count,
            mib(role.rss_bytes),
            mib(role.pss_bytes),
            mib(role.uss_bytes),
            mib(role.page_tables_bytes)
        )?;
    }
    if let Some(guest) = &sandbox.guest {
        let (size, populated) = (mib(guest.size_bytes), mib(guest.populated_bytes));
        writeln!(out, "    guest memory ({}): {populated} of {size} MiB populated", guest.backing)?;
    }
    if let Some(bytes) = sandbox.kernel_bytes {
        writeln!(out, "    kernel memory of its cgroup: {} MiB", mib(bytes))?;
    }
    writeln!(
        out,
        "    page faults: {:.0} minor (about {:.1} ms), {:.0} major",
        sandbox.minor_faults_count,
        sandbox.minor_faults_count * fault_ns / 1e6,
        sandbox.major_faults_count
    )?;
    if let Some(lost) = &sandbox.lost {
        write_lost(out, lost)?;
    }
    if let Some(content) = &sandbox.content {
        ContentReport(content).fmt(out)?;
    }
    if let Some(merging) = &sandbox.merging {
        write_merging(out, merging)?;
    }
    writeln!(out)
}

/// What is in the pages, for people.
pub struct ContentReport<'a>(pub &'a ContentSummary);

impl Display for ContentReport<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let content = self.0;
        writeln!(out, "  pages of an instance, by what else holds the same, in MiB:")?;
        for part in content.parts.iter().filter(|part| part.mean_bytes >= SHOWN_BYTES as f64) {
            let reason = part.reason.map_or(String::new(), |reason| format!(" ({reason})"));
            writeln!(out, "    {:>9}  {}: shared {}{reason}", mib(part.mean_bytes), part.class, part.state)?;
        }
        writeln!(out, "    KSM could free {} MiB of all instances together", mib(content.freeable_bytes as f64))?;
        if content.shifted_bytes as f64 >= SHOWN_BYTES as f64 {
            writeln!(out, "    about {} MiB are also somewhere else, but shifted", mib(content.shifted_bytes as f64))?;
        }
        if content.differed_count > 0 {
            writeln!(
                out,
                "    {} of {} pairs of equal pages differed when they were compared: the instances went on meanwhile",
                content.differed_count, content.verified_count
            )?;
        }
        Ok(())
    }
}

fn write_lost(out: &mut Formatter<'_>, lost: &Lost) -> fmt::Result {
    let of = |bytes: i64| mib(bytes as f64);
    let (pss, file) = (lost.pss_bytes.cast_signed(), lost.pss_file_bytes.cast_signed());
    writeln!(
        out,
        "  MemAvailable lost {} MiB in all; the sum of PSS is {} MiB, so that:",
        of(lost.available_bytes),
        of(pss)
    )?;
    writeln!(out, "    {:>9}  PSS without files ({} MiB of files can be had again)", of(pss - file), of(file))?;
    for (name, bytes) in lost.beside.iter().filter(|(_, bytes)| bytes.abs() >= SHOWN_BYTES) {
        writeln!(out, "    {:>9}  {name}", of(*bytes))?;
    }
    if lost.others_bytes.abs() >= SHOWN_BYTES {
        writeln!(out, "    {:>9}  processes of others", of(lost.others_bytes))?;
    }
    Ok(())
}

fn write_merging(out: &mut Formatter<'_>, merging: &MergingSummary) -> fmt::Result {
    let (freed, possible) = (mib(merging.freed_bytes as f64), mib(merging.possible_bytes as f64));
    write!(out, "  KSM freed {freed} of {possible} MiB")?;
    match merging.plateau_ns {
        Some(ns) => write!(out, " within {}", duration(ns as f64))?,
        None => write!(out, ", and would have gone on (--ksm-timeout)")?,
    }
    if let Some(ns) = merging.ksmd_cpu_ns {
        write!(out, ", for {} of a CPU", duration(ns as f64))?;
    }
    writeln!(out)
}

/// Parts smaller than this are not shown.
const SHOWN_BYTES: i64 = 64 << 10;

fn interval(slope: &Slope) -> String {
    format!("{} [{} to {}]", mib(slope.slope), mib(slope.low), mib(slope.high))
}

/// MiB with three significant digits or so.
fn mib(bytes: f64) -> String {
    let mib = bytes / (1 << 20) as f64;
    match mib.abs() {
        size if size >= 100.0 => format!("{mib:.0}"),
        size if size >= 10.0 => format!("{mib:.1}"),
        _ => format!("{mib:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_digits() {
        let sizes = [123.4, 12.34, 1.234, -1.234].map(|size| mib(size * (1 << 20) as f64));
        assert_eq!(sizes, ["123", "12.3", "1.23", "-1.23"]);
    }
}
