//! A run of the memory experiment on the terminal: per sandbox what one more instance costs, who has it, and what became of
//! the host's memory.

use crate::experiment::{
    memory::{ContentSummary, Lost, MemorySummary, MergingSummary, SandboxMemory},
    statistics::Slope,
};
use crate::{
    measure::memory::pages::balance::Balance,
    report::units::{counted, duration},
};
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
    match (&sandbox.pss_per_instance, sandbox.first_pss_bytes) {
        (Some(slope), _) => write!(out, "  one more instance takes {} MiB of PSS", interval(slope))?,
        (None, Some(_)) => write!(out, "  one instance alone does not say what one more takes")?,
        (None, None) => write!(out, "  not measured")?,
    }
    if let Some(bytes) = sandbox.first_pss_bytes {
        write!(out, ", the first {} MiB", mib(bytes))?;
    }
    writeln!(out, ", {} ok, {} failed", sandbox.ok_count, sandbox.failed_count)?;
    if let Some(error) = &sandbox.first_error {
        writeln!(out, "  first failure: {error}")?;
    }
    if sandbox.instances_count == 0 {
        return writeln!(out);
    }
    if let (Some(slope), Some(first)) = (&sandbox.available_per_instance, sandbox.first_available_bytes) {
        writeln!(
            out,
            "  as a check, MemAvailable lost {} MiB for one more instance, and {} MiB for the first",
            interval(slope),
            mib(first)
        )?;
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
        if content.file_copies_bytes as f64 >= SHOWN_BYTES as f64 {
            let copies = mib(content.file_copies_bytes as f64);
            writeln!(out, "    {copies} MiB of the page cache are copies of files that it has already")?;
        }
        let balance = Balance { found: content.mapped_pages_count, counted_by_kernel: content.kernel_pages_count };
        if !balance.holds() {
            let Balance { found, counted_by_kernel } = balance;
            writeln!(
                out,
                "    {found} pages were found where the kernel counts {counted_by_kernel}: this is not the whole"
            )?;
        }
        if content.spared_processes_count > 0 {
            writeln!(
                out,
                "    {} of these processes went on meanwhile: sandscope itself, or what it can't do without",
                content.spared_processes_count
            )?;
        }
        if content.running_threads_count > 0 {
            let threads = counted(content.running_threads_count, "thread");
            writeln!(out, "    {threads} went on meanwhile, since they could not be stopped")?;
        }
        if let (true, Some(ns)) = (content.cut_short, content.paused_ns) {
            let time = duration(ns as f64);
            writeln!(out, "    all went on after {time}, before everything was looked at: nobody is held longer")?;
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
    match slope.low.zip(slope.high) {
        Some((low, high)) => format!("{} [{} to {}]", mib(slope.slope), mib(low), mib(high)),
        None => mib(slope.slope),
    }
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
