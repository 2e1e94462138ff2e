//! Allocating, touching and freeing memory.

use anyhow::{Context, Result};
use memmap2::MmapMut;
use std::hint::black_box;

/// Distance of the bytes that are written: the smallest page of the architectures in use.
const PAGE_BYTES: usize = 4096;

/// Allocates `mib` MiB, writes one byte to each page, frees them, and returns the number of pages.
///
/// The memory comes from the kernel and goes back to it. An allocator would keep it after some sizes and not after
/// others, so that the second request would touch memory that is there already, or not.
///
/// # Errors
/// When the kernel refuses.
pub fn touch(mib: usize) -> Result<usize> {
    let mut memory =
        MmapMut::map_anon(mib * 1024 * 1024).with_context(|| format!("the kernel refuses {mib} MiB of memory"))?;
    let pages = memory.chunks_exact_mut(PAGE_BYTES).map(|page| page[0] = 1).count();
    black_box(&mut memory);
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mebibyte_is_256_pages() {
        assert_eq!(touch(1).unwrap(), 256);
        assert_eq!(touch(50).unwrap(), 12_800);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let error = touch(1 << 40).unwrap_err();
        assert!(format!("{error:#}").contains("refuses"), "{error:#}");
    }
}
