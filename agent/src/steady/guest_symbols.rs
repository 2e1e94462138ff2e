//! Names of a guest's functions, from the ELF file of its kernel or from Linux's own table of them.
//!
//! Linux and Nanos move themselves to a random place (KASLR). How far is told by where they halt: that address must be inside of one
//! of the few functions that halt. Where that does not lead to exactly one distance, addresses stay without names rather than
//! get wrong ones.

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};
use std::{collections::BTreeSet, path::Path};

/// Kernels that move themselves: functions in which they halt a CPU, and what they move by multiples of.
const MOVING: [(&[&str], u64); 2] = [
    // Linux: `CONFIG_PHYSICAL_ALIGN` on x86, `MIN_KIMG_ALIGN` on arm64.
    (
        &[
            "default_idle",
            "native_safe_halt",
            "pv_native_safe_halt",
            "native_halt",
            "acpi_safe_halt",
            "default_idle_call",
            "kvm_wait",
            "cpu_do_idle",
        ],
        2 << 20,
    ),
    // Nanos: a page at least.
    (&["kernel_sleep"], 4096),
];

/// Functions of a guest.
#[derive(Debug)]
pub struct GuestSymbols {
    /// Ascending by their first address.
    functions: Vec<Function>,
}

#[derive(Debug)]
struct Function {
    start: u64,
    /// 0 where nothing tells.
    size: u64,
    name: String,
}

impl Function {
    fn end(&self) -> u64 {
        self.start + self.size.max(1)
    }

    /// Whether it may be told as the place of a halt in it: that of the instruction, or of the one after it.
    fn halts_at(&self, address: u64) -> bool {
        (self.start..=self.end()).contains(&address)
    }
}

/// How far the guest has moved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes upwards, beyond the end of the address space from its beginning on; 0 is where the file says.
    By(u64),
    /// Nobody knows.
    Unknown,
}

impl GuestSymbols {
    /// Reads the functions of an ELF file, or of a table in the form of `System.map` and `/proc/kallsyms`.
    ///
    /// # Errors
    /// When it can't be read, is neither of them or names no functions.
    pub fn read(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let symbols = Self::parse(&content).with_context(|| format!("{} has no symbols of use", path.display()))?;
        Ok(symbols)
    }

    fn parse(content: &[u8]) -> Result<Self> {
        let mut functions = match std::str::from_utf8(content).ok().and_then(functions_of_table) {
            Some(functions) => functions,
            None => functions_of_elf(content)?,
        };
        ensure!(!functions.is_empty(), "it names no functions: it is stripped");
        functions.sort_by_key(|function| function.start);
        // Where the file does not tell how long one is, it ends where the next begins.
        let mut next_start = None;
        for number in (0..functions.len()).rev() {
            let after = functions.get(number + 1).map(|after| after.start);
            if after != Some(functions[number].start) {
                next_start = after;
            }
            let Function { start, size, .. } = &mut functions[number];
            if *size == 0 {
                *size = next_start.map_or(0, |next| next - *start);
            }
        }
        Ok(Self { functions })
    }

    /// How far a guest has moved itself that halts at these addresses.
    pub fn moved(&self, halts: &BTreeSet<u64>) -> Moved {
        let among = |names: &[&str]| -> Vec<&Function> {
            self.functions.iter().filter(|function| names.contains(&function.name.as_str())).collect()
        };
        let found = MOVING.iter().map(|(names, step)| (among(names), *step)).find(|(halting, _)| !halting.is_empty());
        // What else there is stays where it was linked to.
        let Some((halting, step)) = found else { return Moved::By(0) };
        let Some(first) = halts.first() else { return Moved::Unknown };
        let fits = |moved: &u64| {
            let halts_inside = |ip: &u64| halting.iter().any(|function| function.halts_at(ip.wrapping_sub(*moved)));
            halts.iter().all(halts_inside)
        };
        // Distances with which the first of them is in one of the functions; a step is a power of two, so they may wrap.
        let distances = halting.iter().flat_map(|function| {
            let most = first.wrapping_sub(function.start);
            (most % step..=function.end() - function.start)
                .step_by(step as usize)
                .map(move |back| most.wrapping_sub(back))
        });
        let distances: BTreeSet<u64> = distances.filter(fits).collect();
        match distances.first() {
            Some(only) if distances.len() == 1 => Moved::By(*only),
            _ => Moved::Unknown,
        }
    }

    /// Function at an address of a guest that has moved itself so far, with the offset in it.
    pub fn name(&self, address: u64, moved: Moved) -> Option<String> {
        let Moved::By(moved) = moved else { return None };
        let linked = address.wrapping_sub(moved);
        let after = self.functions.partition_point(|function| function.start <= linked);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let offset = linked - function.start;
        // Of the last one nobody may know where it ends.
        let inside = function.size > 0 && offset <= function.size;
        inside.then(|| if offset == 0 { function.name.clone() } else { format!("{}+{offset:#x}", function.name) })
    }
}

fn functions_of_elf(content: &[u8]) -> Result<Vec<Function>> {
    let file = object::File::parse(content)
        .context("it is neither an ELF file (the uncompressed kernel, `vmlinux`) nor a table such as System.map")?;
    // Assembly leaves the kind open.
    let is_code = |kind| matches!(kind, SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
    let functions =
        file.symbols().filter(|symbol| symbol.address() != 0 && is_code(symbol.kind())).filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some(Function { start: symbol.address(), size: symbol.size(), name: name.to_owned() })
        });
    Ok(functions.collect())
}

/// Lines such as `ffffffff81000000 T function`, with `[module]` behind it in a table of a running kernel; `None` when one is
/// anything else. Without privilege a running kernel shows all addresses as 0, which are left out.
fn functions_of_table(text: &str) -> Option<Vec<Function>> {
    let mut functions = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let start = u64::from_str_radix(words.next()?, 16).ok()?;
        let (kind, name) = (words.next().filter(|kind| kind.len() == 1)?, words.next()?);
        if start != 0 && "tTwW".contains(kind) {
            functions.push(Function { start, size: 0, name: name.to_owned() });
        }
    }
    Some(functions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{
        Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolScope,
        write::{Object as Written, StandardSection, Symbol, SymbolSection as WrittenSection},
    };

    const LINUX_STEP: u64 = 2 << 20;

    fn elf(functions: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut written = Written::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = written.section_id(StandardSection::Text);
        written.append_section_data(text, &vec![0x90; 0x1000], 16);
        for &(name, value, size) in functions {
            written.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: WrittenSection::Section(text),
                flags: SymbolFlags::None,
            });
        }
        written.write().unwrap()
    }

    #[test]
    fn addresses_get_the_function_that_they_are_in() {
        let symbols = GuestSymbols::parse(&elf(&[("pio_loop", 0x100, 0x20), ("hlt_loop", 0x120, 0x10)])).unwrap();
        let moved = symbols.moved(&[0x128].into());
        assert_eq!(moved, Moved::By(0));
        assert_eq!(symbols.name(0x128, moved).as_deref(), Some("hlt_loop+0x8"));
        assert_eq!(symbols.name(0x100, moved).as_deref(), Some("pio_loop"));
        assert_eq!(symbols.name(0x50, moved), None);
        assert_eq!(symbols.name(0x900, moved), None);
    }

    #[test]
    fn a_kernel_that_moved_is_found_by_where_it_halts() {
        let symbols =
            GuestSymbols::parse(&elf(&[("default_idle", 0x100, 0x20), ("native_write_msr", 0x200, 0x10)])).unwrap();
        let moved = symbols.moved(&[0x108 + 7 * LINUX_STEP].into());
        assert_eq!(moved, Moved::By(7 * LINUX_STEP));
        assert_eq!(symbols.name(0x204 + 7 * LINUX_STEP, moved).as_deref(), Some("native_write_msr+0x4"));
        for at_the_linked_place in [0x100, 0x108, 0x120] {
            assert_eq!(symbols.moved(&[at_the_linked_place].into()), Moved::By(0));
        }
    }

    #[test]
    fn a_nanos_that_was_linked_low_is_found_at_the_top_of_the_address_space() {
        let symbols =
            GuestSymbols::parse(&elf(&[("kernel_sleep", 0x25_dc00, 0x80), ("set_timer", 0x20_1d50, 0x20)])).unwrap();
        let moved = symbols.moved(&[0xffff_ffff_e7c7_dc49].into());
        assert_eq!(symbols.name(0xffff_ffff_e7c7_dc49, moved).as_deref(), Some("kernel_sleep+0x49"));
        assert_eq!(symbols.name(0xffff_ffff_e7c2_1d60, moved).as_deref(), Some("set_timer+0x10"));
    }

    #[test]
    fn a_table_of_linux_names_its_functions_and_no_data() {
        let table = "0000000000000000 A fixed_percpu_data\n\
                     0000000000000100 T default_idle\n\
                     0000000000000100 t alias_of_it\n\
                     0000000000000120 t native_write_msr\n\
                     0000000000000128 D jiffies\n\
                     0000000000000140 W weak\n\
                     ffffffffc0000000 t probe\t[virtio_net]\n";
        let symbols = GuestSymbols::parse(table.as_bytes()).unwrap();
        let moved = symbols.moved(&[0x108 + 3 * LINUX_STEP].into());
        assert_eq!(moved, Moved::By(3 * LINUX_STEP));
        assert_eq!(symbols.name(0x12c + 3 * LINUX_STEP, moved).as_deref(), Some("native_write_msr+0xc"));
        // Only where the last one begins is known.
        assert_eq!(symbols.name(0xffff_ffff_c000_0010, Moved::By(0)), None);
    }

    #[test]
    fn where_it_is_not_known_there_are_no_names() {
        let symbols = GuestSymbols::parse(&elf(&[("default_idle", 0x100, 0x20)])).unwrap();
        for halts in [BTreeSet::new(), [0x1800].into()] {
            let moved = symbols.moved(&halts);
            assert_eq!(moved, Moved::Unknown);
            assert_eq!(symbols.name(0x108, moved), None);
        }
    }

    #[test]
    fn what_is_no_use_is_refused() {
        assert!(GuestSymbols::parse(b"MZ").unwrap_err().to_string().contains("vmlinux"));
        assert!(GuestSymbols::parse(&elf(&[])).unwrap_err().to_string().contains("stripped"));
        // A table that a process without privilege has read.
        assert!(GuestSymbols::parse(b"0000000000000000 T default_idle\n").is_err());
        assert!(GuestSymbols::parse(b"not a table\n").unwrap_err().to_string().contains("System.map"));
    }
}
