//! Names of a guest's functions, from the ELF file of its kernel or from Linux's own table of them.
//!
//! A Linux guest moves itself to a random place (KASLR). How far is told by where it halts: that address must be inside of one of
//! the few functions that halt. Where that does not lead to exactly one distance, addresses stay without names rather than
//! get wrong ones.

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};
use std::{collections::BTreeSet, path::Path};

/// Linux moves its kernel by multiples of this (`CONFIG_PHYSICAL_ALIGN` on x86, `MIN_KIMG_ALIGN` on arm64).
const STEP: u64 = 2 << 20;
/// The furthest that it moves: the size of the kernel's own part of the address space on x86.
const FURTHEST: u64 = 1 << 30;
/// Functions of Linux that halt a CPU.
const HALTING: [&str; 8] = [
    "default_idle",
    "native_safe_halt",
    "pv_native_safe_halt",
    "native_halt",
    "acpi_safe_halt",
    "default_idle_call",
    "kvm_wait",
    "cpu_do_idle",
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

/// How far the guest has moved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes upwards; 0 is where the file says.
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
        let halting: Vec<_> =
            self.functions.iter().filter(|function| HALTING.contains(&function.name.as_str())).collect();
        if halting.is_empty() {
            // No Linux: what else there is stays where it was linked to.
            return Moved::By(0);
        }
        let fits = |moved: u64| {
            halts.iter().all(|ip| {
                let linked = ip.wrapping_sub(moved);
                // The address of the halt, or of the instruction after it.
                halting
                    .iter()
                    .any(|function| (function.start..=function.start + function.size.max(1)).contains(&linked))
            })
        };
        let mut distances = (0..FURTHEST / STEP).map(|steps| steps * STEP).filter(|&moved| fits(moved));
        match (halts.is_empty(), distances.next(), distances.next()) {
            (false, Some(only), None) => Moved::By(only),
            _ => Moved::Unknown,
        }
    }

    /// Function at an address of a guest that has moved itself so far, with the offset in it.
    pub fn name(&self, address: u64, moved: Moved) -> Option<String> {
        let Moved::By(moved) = moved else { return None };
        let linked = address.checked_sub(moved)?;
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
        let moved = symbols.moved(&[0x108 + 7 * STEP].into());
        assert_eq!(moved, Moved::By(7 * STEP));
        assert_eq!(symbols.name(0x204 + 7 * STEP, moved).as_deref(), Some("native_write_msr+0x4"));
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
        let moved = symbols.moved(&[0x108 + 3 * STEP].into());
        assert_eq!(moved, Moved::By(3 * STEP));
        assert_eq!(symbols.name(0x12c + 3 * STEP, moved).as_deref(), Some("native_write_msr+0xc"));
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
