//! Names of the functions of programs, by address: from the table that every Go program carries, stripped or not, or from its ELF
//! symbols. Nothing is fetched from a network.

mod elf;
mod go;

use anyhow::{Context, Result};
use std::path::Path;

/// The functions of a program that is loaded where its file says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// In order of their first addresses.
    functions: Vec<Function>,
    /// Names, each with a NUL behind it.
    names: Vec<u8>,
    /// By how much the stack has grown at which instruction, function by function; see [`go`].
    growth: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    start: u64,
    /// Where its name begins.
    name: u32,
    /// Where its part of the growth begins; 0: it has none.
    growth: u32,
}

impl Symbols {
    /// The functions of the program in a file. None of a program that is loaded where the kernel likes (`ET_DYN`): its addresses mean
    /// nothing without knowing where that was.
    ///
    /// # Errors
    /// When it can't be read, or is no program that is understood.
    pub fn read(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::of(&content).with_context(|| format!("can't read the functions of {}", path.display()))
    }

    /// The functions of the program in a file that is loaded from `start` on, and by how much its addresses are larger than those that
    /// the file says. Of a program that is loaded where the kernel likes those that its ELF symbols name.
    ///
    /// # Errors
    /// When it can't be read, or is no program that is understood.
    pub fn loaded_at(path: &Path, start: u64) -> Result<(Self, u64)> {
        let content = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let file = object::File::parse(&*content)?;
        if object::Object::kind(&file) == object::ObjectKind::Executable {
            return Ok((Self::of(&content)?, 0));
        }
        let first = object::Object::segments(&file).map(|segment| object::ObjectSegment::address(&segment)).min();
        Ok((elf::symbols(&file), start.wrapping_sub(first.unwrap_or(0))))
    }

    fn of(content: &[u8]) -> Result<Self> {
        let file = object::File::parse(content)?;
        if object::Object::kind(&file) != object::ObjectKind::Executable {
            return Ok(Self::default());
        }
        match go::symbols(&file)? {
            Some(symbols) => Ok(symbols),
            None => Ok(elf::symbols(&file)),
        }
    }

    fn at(&self, address: u64) -> Option<&Function> {
        let after = self.functions.partition_point(|function| function.start <= address);
        self.functions[..after].last()
    }

    /// Whether the function that holds an address has no frame there: its return address is on top of the stack.
    pub fn is_frameless(&self, address: u64) -> bool {
        self.at(address).is_some_and(|function| {
            let table = self.growth.get(function.growth as usize..).filter(|_| function.growth != 0);
            table.and_then(|table| go::value_at(table, address - function.start)) == Some(0)
        })
    }

    /// The function that holds an address.
    pub fn function(&self, address: u64) -> Option<&str> {
        let name = self.names.get(self.at(address)?.name as usize..)?;
        let name = std::str::from_utf8(name.split(|&byte| byte == 0).next()?).ok()?;
        // A place between functions has an empty one.
        (!name.is_empty()).then_some(name)
    }
}
