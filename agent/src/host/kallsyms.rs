//! Names of kernel functions, for the addresses that the probes saw.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

const KALLSYMS: &str = "/proc/kallsyms";

/// Function names by address, filled on demand: the table has some 100,000 lines and few are ever needed.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    names: HashMap<u64, Option<String>>,
}

impl KernelSymbols {
    /// Makes the names of these addresses known; reads the kernel's table once if one of them is new.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let wanted: BTreeSet<u64> = addresses.into_iter().filter(|address| !self.names.contains_key(address)).collect();
        if wanted.is_empty() {
            return;
        }
        self.names.extend(wanted.iter().map(|&address| (address, None)));
        self.read(Path::new(KALLSYMS), &wanted);
    }

    fn read(&mut self, table: &Path, wanted: &BTreeSet<u64>) {
        // A table that can't be read leaves the addresses without a name, which `name` shows.
        let Ok(file) = File::open(table) else { return };
        for line in BufReader::with_capacity(1 << 18, file).lines().map_while(Result::ok) {
            // Such as `ffffffff81000000 T function [module]`; without the privilege all addresses read as 0.
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if let Ok(address) = u64::from_str_radix(address, 16)
                && wanted.contains(&address)
            {
                self.names.insert(address, Some(name.to_owned()));
            }
        }
    }

    /// Name of the function that begins at an address, or the address itself where the kernel does not tell.
    pub fn name(&self, address: u64) -> String {
        self.names.get(&address).cloned().flatten().unwrap_or_else(|| format!("{address:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn addresses_become_names_and_unknown_ones_stay_numbers() {
        let mut table = tempfile::NamedTempFile::new().unwrap();
        writeln!(table, "ffffffff81000010 T hrtimer_wakeup\nffffffffc0000020 t apic_timer_fn\t[kvm]").unwrap();
        let mut symbols = KernelSymbols::default();
        let wanted = [0xffff_ffff_8100_0010, 0xffff_ffff_c000_0020].into_iter().collect();
        symbols.read(table.path(), &wanted);
        assert_eq!(symbols.name(0xffff_ffff_8100_0010), "hrtimer_wakeup");
        assert_eq!(symbols.name(0xffff_ffff_c000_0020), "apic_timer_fn");
        assert_eq!(symbols.name(0x1234), "0x1234");
    }
}
