//! Tells the VMM that the machine has booted: a byte to the device at the address that the kernel's command line names by
//! `boot_timer=0x…`. The kernel does not know the word, so it hands it on as a variable of the environment.

use super::Problem;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::{fs::File, ptr::null_mut};

const VARIABLE: &str = "boot_timer";
/// What Firecracker's device waits for.
const BOOTED: u8 = 123;
const PAGE_BYTES: usize = 4096;

/// Does it, if there is such a device.
pub fn signal() -> Result<(), Problem> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    let address = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let address = address.ok_or_else(|| format!("{VARIABLE}={text} is no address in hexadecimal digits"))?;
    let memory = File::options().read(true).write(true).open("/dev/mem");
    let memory = memory.map_err(|error| format!("can't open /dev/mem: {error}"))?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: needed because a device is memory that no Rust value owns. The kernel chooses a place of the address space where
    // nothing is, and the mapping is removed below.
    let page = unsafe { mmap(null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, &memory, address) };
    let page = page.map_err(|error| format!("can't map the boot timer at {text}: {error}"))?;
    // SAFETY: the page was mapped for writing, and nothing else refers to it. Without a device there the write has no effect.
    unsafe { page.cast::<u8>().write_volatile(BOOTED) };
    // SAFETY: what was mapped above, and nothing refers to it any more.
    unsafe { munmap(page, PAGE_BYTES) }.map_err(|error| format!("can't unmap the boot timer: {error}"))
}
