//! Functions by the table that the Go runtime itself needs for its tracebacks (`.gopclntab`), which stripping leaves in place.
//!
//! Its layout is that of `runtime.pcHeader` and `runtime._func` in Go's `src/runtime/symtab.go` and `runtime2.go`; versions 1.18 and 1.20
//! have the same, and names of their own.

use super::{Function, Symbols};
use anyhow::{Context, Result, ensure};
use object::{File, Object as _, ObjectSection as _};

/// First words of the tables of Go 1.18 and 1.20.
const MAGIC: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// Bytes that instructions are a multiple of.
const QUANTUM: u64 = if cfg!(target_arch = "aarch64") { 4 } else { 1 };

/// A part of the file, in the byte order of x86-64 and arm64.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    /// A word of the header, counted from behind its first eight bytes.
    fn word(&self, number: usize) -> Option<usize> {
        usize::try_from(self.u64(8 + 8 * number)?).ok()
    }
}

/// The functions of a Go program; `None` of others.
///
/// # Errors
/// When it has the table, but not one that is understood.
pub(super) fn symbols(file: &File<'_>) -> Result<Option<Symbols>> {
    let Some(section) = file.section_by_name(".gopclntab") else { return Ok(None) };
    let content = section.uncompressed_data()?;
    let table = Bytes(&content);
    let magic = table.u32(0).context("the table of functions is empty")?;
    ensure!(MAGIC.contains(&magic), "the table of functions is of a version that is not known: {magic:#x}");
    ensure!(table.0.get(7) == Some(&8), "the table of functions is not one of 64 bits");
    // Newer versions leave it out, and mean the section.
    let text = match table.u64(8 + 16).context("the table of functions has no header")? {
        0 => file.section_by_name(".text").context("no section .text")?.address(),
        text => text,
    };
    read(&table, text).map(Some).context("the table of functions is cut off")
}

fn read(table: &Bytes<'_>, text: u64) -> Option<Symbols> {
    let (functions, names, growth, entries) = (table.word(0)?, table.word(3)?, table.word(6)?, table.word(7)?);
    let part = |from: usize, until: usize| Some(table.0.get(from..until)?.to_vec());
    let mut symbols =
        Symbols { functions: Vec::new(), names: part(names, table.word(4)?)?, growth: part(growth, entries)? };
    for number in 0..functions {
        let entry = entries.checked_add(number.checked_mul(8)?)?;
        let (start, function) = (table.u32(entry)?, entries.checked_add(table.u32(entry + 4)? as usize)?);
        let field = |number: usize| table.u32(function.checked_add(4 * number)?);
        symbols.functions.push(Function { start: text.checked_add(start.into())?, name: field(1)?, growth: field(4)? });
    }
    // Where the last one ends nothing begins; the names end with a NUL.
    let end = table.u32(entries.checked_add(functions.checked_mul(8)?)?)?;
    let name = u32::try_from(symbols.names.len()).ok()?;
    symbols.names.push(0);
    symbols.functions.push(Function { start: text.checked_add(end.into())?, name, growth: 0 });
    Some(symbols)
}

/// What a table of values by instruction (`runtime.pcvalue`) has for the one at an offset: pairs of by how much the value changes, and for
/// how many bytes it then holds; it is -1 before the first.
pub(super) fn value_at(table: &[u8], offset: u64) -> Option<i64> {
    let mut bytes = table.iter();
    let (mut value, mut until) = (-1_i64, 0_u64);
    loop {
        let change = variable(&mut bytes)?;
        if change == 0 && until > 0 {
            return None;
        }
        // The lowest bit is the sign.
        value = value.checked_add((change >> 1).cast_signed() ^ -((change & 1).cast_signed()))?;
        until = until.checked_add(variable(&mut bytes)?.checked_mul(QUANTUM)?)?;
        if offset < until {
            return Some(value);
        }
    }
}

/// A number of seven bits per byte, the lowest first.
fn variable(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with a function at each of these offsets, by name.
    fn table(functions: &[(u32, &str)], end: u32) -> Vec<u8> {
        const HEADER: usize = 8 + 8 * 8;
        let mut names = Vec::new();
        let mut name_offsets = Vec::new();
        for (_, name) in functions {
            name_offsets.push(names.len() as u32);
            names.extend(name.bytes().chain([0]));
        }
        let growths = HEADER + names.len();
        let entries = growths + 6;
        let lookup = 8 * functions.len() + 4;
        // Nothing, then of each function: no growth of four instructions, and 16 bytes from then on.
        let growth = [0, 2, 4, 32, 100, 0];
        let mut out = Vec::new();
        out.extend(MAGIC[1].to_le_bytes());
        out.extend([0, 0, 1, 8]);
        for word in [functions.len(), 0, 0x40_1000, HEADER, growths, growths, growths, entries] {
            out.extend((word as u64).to_le_bytes());
        }
        out.extend(&names);
        out.extend(growth);
        for (number, (start, _)) in functions.iter().enumerate() {
            out.extend(start.to_le_bytes());
            out.extend(((lookup + 20 * number) as u32).to_le_bytes());
        }
        out.extend(end.to_le_bytes());
        for ((start, _), name) in functions.iter().zip(name_offsets) {
            out.extend(start.to_le_bytes());
            out.extend(name.to_le_bytes());
            for field in [0, 0, 1] {
                out.extend(u32::to_le_bytes(field));
            }
        }
        out
    }

    #[test]
    fn addresses_have_the_function_that_they_are_in() {
        let content = table(&[(0, "runtime.text"), (0x40, "main.init"), (0x90, "main.main")], 0xa0);
        let symbols = read(&Bytes(&content), 0x40_1000).unwrap();
        let names = [0x40_0fff, 0x40_1000, 0x40_103f, 0x40_1040, 0x40_109f, 0x40_10a0].map(|at| symbols.function(at));
        let expected = [None, Some("runtime.text"), Some("runtime.text"), Some("main.init"), Some("main.main"), None];
        assert_eq!(names, expected);
        let frameless = [0x40_1040, 0x40_1043, 0x40_1044, 0x40_10a0].map(|at| symbols.is_frameless(at));
        assert_eq!(frameless, [true, true, QUANTUM == 4, false]);
    }

    #[test]
    fn a_table_that_is_cut_off_is_none() {
        let content = table(&[(0, "runtime.text"), (0x40, "main.init")], 0x90);
        for length in 0..content.len() {
            assert_eq!(read(&Bytes(&content[..length]), 0), None, "{length} bytes");
        }
    }
}
