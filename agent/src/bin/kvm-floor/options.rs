//! The command line. Parsed by hand: this program is the floor under every start-up time, and a parser that builds its
//! description at run time costs about 100 µs of the few hundred that the whole start takes.

use std::{ffi::OsString, path::PathBuf};

const HELP: &str = "\
The smallest VM that KVM can run: its guest makes exactly the exits that it is told to make

Usage: sandscope-kvm-floor [OPTIONS]

Options:
      --pio N               32-bit writes to port 0x5f0 [default: 0]
      --hlt M               HLTs, each woken by a one-shot LAPIC timer [default: 0]
      --mmio K              32-bit writes to address 0xd0000000 [default: 0]
      --touch PAGES         4 KiB pages to write to, each once [default: 0]
      --zeros PAGES         4 KiB pages to write zeros to [default: 0]
      --equals PAGES        pages to make equal to each other, but to those of no other guest [default: 0]
      --uniques PAGES       pages to make equal to no other [default: 0]
      --spin ITERATIONS     turns of an empty loop [default: 0]
      --hlt-spin ITERATIONS turns of an empty loop before each HLT [default: 0]
      --hlt-interval-ns NS  time that each HLT waits [default: 1000000]
      --vcpus COUNT         vCPUs; all but the first are never started by the guest [default: 1]
      --memory-mib MIB      guest memory [default: 16]
      --stay                halt for good at the end, instead of ending the VM; SIGTERM or SIGINT ends it
  -h, --help                this text
  -V, --version             the version

The guest's console goes to stdout. At the end one line of JSON on stderr says what was counted.
Exit status: 0 done, 1 the host can't run it, 2 bad options, 3 the VM failed, 128 + signal when stopped before its end.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print a text and end.
    Print(String),
    /// What needs the guest.
    Floor(Action),
}

/// What to do with the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run it.
    Run(Options),
    /// Print its functions, one `address name` per line.
    PrintSymbols,
    /// Write it as an ELF file that other VMMs boot.
    EmitElf(PathBuf),
}

/// What the guest does, and in which machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Port writes.
    pub pio: u32,
    /// HLTs.
    pub hlt: u32,
    /// MMIO writes.
    pub mmio: u32,
    /// Pages to write to.
    pub touch: u32,
    /// Pages to write zeros to.
    pub zeros: u32,
    /// Pages to make equal to each other.
    pub equals: u32,
    /// Pages to make equal to no other.
    pub uniques: u32,
    /// Turns of the spin loop.
    pub spin: u32,
    /// Turns of an empty loop before each HLT.
    pub hlt_spin: u32,
    /// What each HLT waits, in nanoseconds.
    pub hlt_interval_ns: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Size of the guest memory in MiB.
    pub memory_mib: u32,
    /// Whether the guest idles in the end.
    pub stay: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pio: 0,
            hlt: 0,
            mmio: 0,
            touch: 0,
            zeros: 0,
            equals: 0,
            uniques: 0,
            spin: 0,
            hlt_spin: 0,
            hlt_interval_ns: DEFAULT_HLT_INTERVAL_NS,
            vcpus: 1,
            memory_mib: 16,
            stay: false,
        }
    }
}

/// What each HLT waits unless told otherwise, in nanoseconds.
pub const DEFAULT_HLT_INTERVAL_NS: u32 = 1_000_000;
/// The guest's memory below the pages of `--touch`: low memory and the image, in MiB.
pub const RESERVED_MIB: u32 = 2;
/// The most memory a guest can have, in MiB: the counted MMIO address and the LAPIC lie above it.
const MAX_MEMORY_MIB: u32 = 3072;
/// The most vCPUs: more than any test of parked ones needs.
const MAX_VCPUS: u32 = 64;
const PAGES_PER_MIB: u32 = 256;

/// Reads the arguments (without the program's name).
///
/// # Errors
/// A message for the person who typed them.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let argument = argument.into_string().map_err(|raw| format!("unknown option {raw:?}; try --help"))?;
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (argument.as_str(), None),
        };
        let flag = match name {
            "--stay" => None,
            "-h" | "--help" => Some(Command::Print(HELP.to_owned())),
            "-V" | "--version" => Some(Command::Print(format!("sandscope-kvm-floor {}\n", env!("CARGO_PKG_VERSION")))),
            "--symbols" => Some(Command::Floor(Action::PrintSymbols)),
            _ => {
                let value = || attached.or_else(|| arguments.next()).ok_or(format!("{name} needs a value"));
                if name == "--emit-elf" {
                    return Ok(Command::Floor(Action::EmitElf(value()?.into())));
                }
                let Some(field) = options.number_mut(name) else {
                    return Err(format!("unknown option {argument:?}; try --help"));
                };
                *field = number(name, &value()?)?;
                continue;
            }
        };
        if attached.is_some() {
            return Err(format!("{name} takes no value"));
        }
        match flag {
            Some(command) => return Ok(command),
            None => options.stay = true,
        }
    }
    options.check()?;
    Ok(Command::Floor(Action::Run(options)))
}

fn number(name: &str, value: &OsString) -> Result<u32, String> {
    let digits = value.to_str().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("{name} {}: needs a whole number from 0 to {}", value.display(), u32::MAX))
}

impl Options {
    /// The number that an option sets.
    fn number_mut(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "--pio" => &mut self.pio,
            "--hlt" => &mut self.hlt,
            "--mmio" => &mut self.mmio,
            "--touch" => &mut self.touch,
            "--zeros" => &mut self.zeros,
            "--equals" => &mut self.equals,
            "--uniques" => &mut self.uniques,
            "--spin" => &mut self.spin,
            "--hlt-spin" => &mut self.hlt_spin,
            "--hlt-interval-ns" => &mut self.hlt_interval_ns,
            "--vcpus" => &mut self.vcpus,
            "--memory-mib" => &mut self.memory_mib,
            _ => return None,
        })
    }

    /// Refuses what the guest or the machine can't do.
    fn check(&self) -> Result<(), String> {
        within("--hlt-interval-ns", self.hlt_interval_ns, 1, u32::MAX)?;
        within("--vcpus", self.vcpus, 1, MAX_VCPUS)?;
        within("--memory-mib", self.memory_mib, RESERVED_MIB, MAX_MEMORY_MIB)?;
        let most_pages = (self.memory_mib - RESERVED_MIB) * PAGES_PER_MIB;
        let pages = [self.touch, self.zeros, self.equals, self.uniques].map(u64::from).iter().sum::<u64>();
        if pages > most_pages.into() {
            let needed = pages.div_ceil(PAGES_PER_MIB.into()) + u64::from(RESERVED_MIB);
            let remedy = if needed > MAX_MEMORY_MIB.into() {
                format!("the most is {}", (MAX_MEMORY_MIB - RESERVED_MIB) * PAGES_PER_MIB)
            } else {
                format!("give it --memory-mib {needed}")
            };
            let memory_mib = self.memory_mib;
            return Err(format!(
                "--touch, --zeros, --equals and --uniques ask for {pages} pages: {memory_mib} MiB of memory have room for \
                 {most_pages}; {remedy}"
            ));
        }
        Ok(())
    }
}

fn within(name: &str, value: u32, least: u32, most: u32) -> Result<(), String> {
    if value < least || value > most {
        return Err(format!("{name} {value}: must be from {least} to {most}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn values_come_as_the_next_word_or_after_an_equals_sign() {
        let expected = Options { pio: 7, hlt: 3, hlt_interval_ns: 20, stay: true, ..Options::default() };
        assert_eq!(parsed("--pio 7 --hlt=3 --stay --hlt-interval-ns=20"), Ok(Command::Floor(Action::Run(expected))));
        assert_eq!(parsed(""), Ok(Command::Floor(Action::Run(Options::default()))));
        assert_eq!(parsed("--emit-elf x"), Ok(Command::Floor(Action::EmitElf("x".into()))));
    }

    #[test]
    fn bad_input_is_named() {
        for (line, expected) in [
            ("--pio", "--pio needs a value"),
            ("--pio -1", "--pio -1: needs a whole number from 0 to 4294967295"),
            ("--pio +1", "--pio +1: needs a whole number from 0 to 4294967295"),
            ("--mmio 4294967296", "--mmio 4294967296: needs a whole number from 0 to 4294967295"),
            ("--hlt=", "--hlt : needs a whole number from 0 to 4294967295"),
            ("--hlt-interval-ns 0", "--hlt-interval-ns 0: must be from 1 to 4294967295"),
            ("--vcpus 0", "--vcpus 0: must be from 1 to 64"),
            ("--memory-mib 1", "--memory-mib 1: must be from 2 to 3072"),
            ("--memory-mib 4096", "--memory-mib 4096: must be from 2 to 3072"),
            ("--stay=1", "--stay takes no value"),
            ("--nonsense 1", "unknown option \"--nonsense\"; try --help"),
            ("17", "unknown option \"17\"; try --help"),
        ] {
            assert_eq!(parsed(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn touched_pages_must_fit() {
        assert!(parsed("--memory-mib 3 --touch 256").is_ok());
        let error = parsed("--memory-mib 3 --touch 257").expect_err("one page too many");
        assert_eq!(
            error,
            "--touch, --zeros, --equals and --uniques ask for 257 pages: 3 MiB of memory have room for 256; give it \
             --memory-mib 4"
        );
        assert!(parsed("--memory-mib 3 --touch 100 --zeros 100 --equals 100").is_err());
        let error = parsed("--touch 4000000").expect_err("more than any guest has");
        assert!(error.ends_with("the most is 785920"), "{error}");
    }
}
