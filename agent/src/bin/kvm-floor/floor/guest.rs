//! The guest: its code, assembled into this program from `guest.s`, and the addresses that it and a VMM agree on.

use crate::options::{DEFAULT_HLT_INTERVAL_NS, Options, RESERVED_MIB};
use std::{arch::global_asm, ffi::CStr, slice};

/// Guest-physical address of the image; its first byte is the 32-bit PVH entry.
pub const LOAD_ADDRESS: u32 = 0x10_0000;
/// Guest-physical address of the first page that the touch phase writes; nothing else lies above it.
pub const TOUCH_ADDRESS: u32 = RESERVED_MIB << 20;
/// Port of the console, one byte per write (a 16550's data register).
pub const CONSOLE_PORT: u16 = 0x3f8;
/// Port of the counted writes, 32 bits each.
pub const COUNTED_PORT: u16 = 0x5f0;
/// Guest-physical address of the counted MMIO writes, 32 bits each. No VMM that boots this guest has anything there.
pub const MMIO_ADDRESS: u32 = 0xd000_0000;
/// Port that ends the VM (QEMU's isa-debug-exit has it here by convention).
pub const EXIT_PORT: u16 = 0xf4;
/// What the guest writes to [`EXIT_PORT`] when it did all it was told; QEMU makes exit status 33 of it.
pub const EXIT_SUCCESS: u8 = 0x10;
/// Selector of the flat code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the flat data segment.
pub const DATA_SELECTOR: u16 = 0x10;
/// First field of `struct hvm_start_info` of the PVH boot protocol.
pub const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Where `struct hvm_start_info` has the address of the command line.
pub const START_INFO_COMMAND_LINE: usize = 24;
/// Bit of CPUID leaf 1, ECX that says that there is an x2APIC.
pub const CPUID_X2APIC_BIT: u32 = 21;

global_asm!(
    include_str!("guest.s"),
    LOAD_ADDRESS = const LOAD_ADDRESS,
    TOUCH_ADDRESS = const TOUCH_ADDRESS,
    CONSOLE_PORT = const CONSOLE_PORT,
    COUNTED_PORT = const COUNTED_PORT,
    MMIO_ADDRESS = const MMIO_ADDRESS,
    EXIT_PORT = const EXIT_PORT,
    EXIT_SUCCESS = const EXIT_SUCCESS,
    RESET_PORT = const 0x64,
    RESET_COMMAND = const 0xfe,
    DEFAULT_HLT_INTERVAL_NS = const DEFAULT_HLT_INTERVAL_NS,
    CODE_SELECTOR = const CODE_SELECTOR,
    DATA_SELECTOR = const DATA_SELECTOR,
    START_INFO_MAGIC = const START_INFO_MAGIC,
    START_INFO_COMMAND_LINE = const START_INFO_COMMAND_LINE,
    CPUID_X2APIC_BIT = const CPUID_X2APIC_BIT,
    APIC_BASE_MSR = const 0x1b,
    // Global enable and x2APIC enable.
    APIC_BASE_X2APIC = const 0xc00,
    X2APIC_MSR = const 0x800,
    LAPIC_ADDRESS = const 0xfee0_0000_u32,
    LAPIC_EOI = const 0xb0,
    LAPIC_SPURIOUS = const 0xf0,
    // Software enable, spurious vector 255.
    LAPIC_ENABLE = const 0x1ff,
    LAPIC_TIMER = const 0x320,
    LAPIC_INITIAL_COUNT = const 0x380,
    LAPIC_DIVIDE = const 0x3e0,
    LAPIC_DIVIDE_BY_1 = const 0xb,
    // As the value of the timer's LVT: this vector, one-shot, not masked.
    TIMER_VECTOR = const 0x20,
    options(att_syntax)
);

unsafe extern "C" {
    static sandscope_floor_image: u8;
    static sandscope_floor_image_end: u8;
    static sandscope_floor_symbols: u8;
    static sandscope_floor_symbols_end: u8;
}

/// The image, to be placed at [`LOAD_ADDRESS`].
pub fn image() -> &'static [u8] {
    let (start, end) = (&raw const sandscope_floor_image, &raw const sandscope_floor_image_end);
    // SAFETY: the two labels of guest.s bound one read-only section of this program, so the memory between them is
    // initialised, is never written, and lives as long as the program does.
    unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// A function of the guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its label in `guest.s`.
    pub name: &'static str,
    /// Its guest-physical address.
    pub address: u32,
    /// The bytes it takes, up to the next one.
    pub size: u32,
}

/// The functions of the guest, by address.
pub fn symbols() -> Vec<Symbol> {
    let (start, end) = (&raw const sandscope_floor_symbols, &raw const sandscope_floor_symbols_end);
    // SAFETY: as for the image: two labels of guest.s around one read-only section.
    let mut table = unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) };
    let mut rows = Vec::new();
    while let Some((offset, rest)) = table.split_first_chunk() {
        let name = CStr::from_bytes_until_nul(rest).expect("guest.s ends each name with a zero byte");
        rows.push((u32::from_le_bytes(*offset), name.to_str().expect("guest.s has ASCII names only")));
        table = &rest[name.count_bytes() + 1..];
    }
    // The last row, `code_end`, only bounds the function before it.
    rows.windows(2)
        .map(|pair| Symbol { name: pair[0].1, address: LOAD_ADDRESS + pair[0].0, size: pair[1].0 - pair[0].0 })
        .collect()
}

/// The words of the command line that tell the guest what `options` say, without those that say 0: reading takes time.
pub fn command_line(options: &Options) -> String {
    let words = [
        ("pio", options.pio),
        ("mmio", options.mmio),
        ("hlt", options.hlt),
        ("hlt_ns", if options.hlt == 0 { 0 } else { options.hlt_interval_ns }),
        ("hlt_spin", options.hlt_spin),
        ("touch", options.touch),
        ("zeros", options.zeros),
        ("equals", options.equals),
        ("uniques", options.uniques),
        ("spin", options.spin),
        ("stay", options.stay.into()),
    ];
    let words = words.iter().filter(|(_, value)| *value != 0).map(|(name, value)| format!("{name}={value}"));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_documentation() {
        let names: Vec<_> = symbols().iter().map(|symbol| symbol.name).collect();
        let expected = [
            "pvh_start",
            "console_write",
            "read_parameters",
            "pio_loop",
            "mmio_loop",
            "hlt_loop",
            "hlt_spin_loop",
            "interrupts_setup",
            "lapic_write",
            "touch_loop",
            "fill_loop",
            "spin_loop",
            "idle_loop",
            "power_off",
        ];
        assert_eq!(names, expected);
        assert_eq!(symbols()[0].address, LOAD_ADDRESS, "the entry is the start of the image");
        let end = symbols().last().map(|symbol| symbol.address + symbol.size).expect("there are functions");
        assert!((end - LOAD_ADDRESS) as usize <= image().len(), "functions lie in the image");
    }

    #[test]
    fn the_command_line_has_what_is_not_zero() {
        assert_eq!(command_line(&Options::default()), "");
        let options = Options { pio: 3, hlt: 2, hlt_interval_ns: 50, stay: true, ..Options::default() };
        assert_eq!(command_line(&options), "pio=3 hlt=2 hlt_ns=50 stay=1");
    }
}
