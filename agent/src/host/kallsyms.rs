//! Names of kernel functions, for the addresses that the probes saw.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

const KALLSYMS: &str = "/proc/kallsyms";
/// No function is longer: an address that is farther from the beginning of one is in none that is listed.
const LONGEST_BYTES: u64 = 1 << 20;
/// What a stack shows in place of a function that is not listed.
const UNKNOWN: &str = "[unknown]";

/// The kernel's functions, read when the first is asked for: some 100,000.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// Where each begins, in order, and its name; of several names of one address the first that is listed.
    functions: Vec<(u64, Box<str>)>,
    /// Addresses that were not in any when the table was last read.
    unknown: HashSet<u64>,
}

impl KernelSymbols {
    /// Makes the functions at these addresses known; reads the kernel's table if one of them is in none that is known.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = u64>) {
        self.learn_from(Path::new(KALLSYMS), addresses);
    }

    fn learn_from(&mut self, table: &Path, addresses: impl IntoIterator<Item = u64>) {
        let is_new = |address: &u64| self.find(*address).is_none() && !self.unknown.contains(address);
        let wanted: HashSet<u64> = addresses.into_iter().filter(is_new).collect();
        if wanted.is_empty() {
            return;
        }
        // A module may have come since.
        self.read(table);
        let unknown: Vec<u64> = wanted.into_iter().filter(|&address| self.find(address).is_none()).collect();
        self.unknown.extend(unknown);
    }

    fn read(&mut self, table: &Path) {
        // A table that can't be read leaves the addresses without a name, which `name` shows.
        let Ok(file) = File::open(table) else { return };
        self.functions.clear();
        for line in BufReader::with_capacity(1 << 18, file).lines().map_while(Result::ok) {
            // Such as `ffffffff81000000 T function [module]`; without the privilege all addresses read as 0.
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if let Ok(address @ 1..) = u64::from_str_radix(address, 16)
                && matches!(kind, "t" | "T" | "w" | "W")
            {
                self.functions.push((address, name.into()));
            }
        }
        self.functions.sort_by_key(|&(address, _)| address);
        self.functions.dedup_by_key(|(address, _)| *address);
    }

    /// The function that holds an address: where it begins, and its name.
    fn find(&self, address: u64) -> Option<(u64, &str)> {
        let after = self.functions.partition_point(|&(begins, _)| begins <= address);
        let (begins, name) = self.functions[..after].last()?;
        (address - begins < LONGEST_BYTES).then_some((*begins, name))
    }

    /// Name of the function that begins at an address, or the address itself where the kernel does not tell.
    pub fn name(&self, address: u64) -> String {
        match self.find(address) {
            Some((begins, name)) if begins == address => name.to_owned(),
            _ => format!("{address:#x}"),
        }
    }

    /// Name of the function that holds an address.
    pub fn function(&self, address: u64) -> &str {
        self.find(address).map_or(UNKNOWN, |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn addresses_become_names_and_unknown_ones_stay_numbers() {
        let mut table = tempfile::NamedTempFile::new().unwrap();
        let lines = [
            "ffffffffc0000020 t apic_timer_fn\t[kvm]",
            "ffffffff81000010 T hrtimer_wakeup",
            "ffffffff81000010 t its_other_name",
            "ffffffff81000018 D data",
            "0000000000000000 T hidden",
        ];
        writeln!(table, "{}", lines.join("\n")).unwrap();
        let mut symbols = KernelSymbols::default();
        symbols.learn_from(table.path(), [0xffff_ffff_8100_0010, 0x1234]);
        assert_eq!(symbols.name(0xffff_ffff_8100_0010), "hrtimer_wakeup");
        assert_eq!(symbols.name(0xffff_ffff_c000_0020), "apic_timer_fn");
        assert_eq!((symbols.name(0x1234), symbols.function(0x1234)), ("0x1234".to_owned(), UNKNOWN));
        // Not where it begins, but within.
        assert_eq!(symbols.name(0xffff_ffff_8100_0019), "0xffffffff81000019");
        assert_eq!(symbols.function(0xffff_ffff_8100_0019), "hrtimer_wakeup");
        // What was not there is not looked for each time.
        symbols.learn_from(Path::new("/no/such/table"), [0x1234]);
        assert_eq!(symbols.functions.len(), 2);
    }
}
