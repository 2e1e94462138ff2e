//! Functions by the ELF symbols of a program that was not stripped.

use super::{Function, Symbols};
use object::{File, Object as _, ObjectSymbol as _, SymbolKind};

/// The functions of a program; none of a stripped one.
pub(super) fn symbols(file: &File<'_>) -> Symbols {
    let mut symbols = Symbols::default();
    let mut functions: Vec<(u64, u64, &str)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?)))
        .collect();
    functions.sort_unstable();
    functions.dedup_by_key(|(start, ..)| *start);
    let mut end = 0;
    for (start, size, name) in functions {
        // What lies between two functions is none of the first one's.
        if end != 0 && start > end {
            symbols.add(end, "");
        }
        // Names of Rust as they are written, without the hash; all others stay as they are.
        symbols.add(start, &format!("{:#}", rustc_demangle::demangle(name)));
        end = start + size;
    }
    if end != 0 {
        symbols.add(end, "");
    }
    symbols
}

impl Symbols {
    /// Adds a function; their addresses must rise.
    pub(super) fn add(&mut self, start: u64, name: &str) {
        let Ok(place) = u32::try_from(self.names.len()) else { return };
        self.functions.push(Function { start, name: place, growth: 0 });
        self.names.extend(name.bytes().chain([0]));
    }
}
